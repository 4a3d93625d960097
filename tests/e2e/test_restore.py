"""The catalog's volume is lost and restored with the commands that OPERATIONS.md has."""

from __future__ import annotations

import shlex
import uuid

import pytest

from client.api import BourseClient
from stack.compose import ComposeFailed
from stack.parts import ORDER_SERVICES, ROOT
from tests.e2e.inside import digests, statuses
from tests.e2e.stack import Stack


def documented(beginning: str) -> list[str]:
    """The arguments of the one documented command that begins so, after `docker compose`."""
    lines = (ROOT / "OPERATIONS.md").read_text().splitlines()
    (command,) = (line for line in lines if line.startswith(f"docker compose {beginning}"))
    return shlex.split(command)[2:]


@pytest.mark.slow
def test_a_lost_catalog_volume_is_restored(stack: Stack) -> None:
    with BourseClient(stack.url) as client:
        keys = [str(uuid.uuid4()) for _ in range(20)]
        numbers = {key: client.trade("stock7", 1, "SELL", key).data for key in keys}
        quantity = client.lookup("stock7").data["quantity"]
    before = digests(stack)
    stack.compose(*documented("stop"))
    stack.wipe("catalog")
    printed = stack.compose(*documented("run --rm --no-deps -v order-1-data"))
    last_number, _ = before
    assert f"last number {last_number}, digest " in printed
    stack.compose("up", "--wait")
    assert digests(stack) == before
    with BourseClient(stack.url) as client:
        assert {key: client.trade("stock7", 1, "SELL", key).data for key in keys} == numbers
        assert client.lookup("stock7").data["quantity"] == quantity
        later = client.trade("stock7", 1, "SELL", str(uuid.uuid4()))
        assert later.data == {"transaction_number": int(last_number) + 1}
    assert all(status["ready"] for status in statuses(stack).values())
    for service in ORDER_SERVICES:
        files = stack.execute(service, "ls", "/data")
        assert "damaged" not in files, files  # no log was given up


@pytest.mark.slow
def test_a_damaged_catalog_is_moved_away_and_restored(stack: Stack) -> None:
    with BourseClient(stack.url) as client:
        key = str(uuid.uuid4())
        number = client.trade("stock8", 1, "SELL", key).data
    before = digests(stack)
    stack.compose(*documented("stop"))
    scribble = "dd if=/dev/zero of=/data/catalog.db bs=4096 seek=1 count=2 conv=notrunc"
    stack.compose("run", "--rm", "--no-deps", "catalog", "sh", "-c", scribble)
    with pytest.raises(ComposeFailed, match=r"/data/catalog\.db is damaged"):
        stack.compose("run", "--rm", "--no-deps", "catalog", timeout_s=60)
    stack.compose(*documented("run --rm --no-deps catalog sh -c 'mkdir"))
    stack.compose(*documented("run --rm --no-deps -v order-1-data"))
    stack.compose("up", "--wait")
    assert digests(stack) == before
    with BourseClient(stack.url) as client:
        assert client.trade("stock8", 1, "SELL", key).data == number
