"""The catalog as a process: what it says when it cannot start, and how it stops."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.health import is_serving
from common.rpc_client import open_channel
from proto import bourse_pb2, bourse_pb2_grpc
from tests.unit.catalog.files import bytes_of

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 20


def start(data: Path, **settings: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "LISTEN_ADDRESS": "127.0.0.1:0",
        "DATA_DIR": str(data),
        **settings,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "catalog"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(data: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A catalog that serves, and its address."""
    with start(data, **settings) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(r"serving on port (\d+)", line):
                    yield process, f"127.0.0.1:{found[1]}"
                    return
            pytest.fail("it did not start")
        finally:
            process.kill()


def failed_start(data: Path, **settings: str) -> tuple[int, str]:
    with start(data, **settings) as process:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, errors


def trade(address: str, epoch: int, request_id: str) -> bourse_pb2.UpdateResponse:
    with open_channel(address) as channel:
        stub = bourse_pb2_grpc.CatalogServiceStub(channel)
        stub.Fence(bourse_pb2.FenceRequest(epoch=epoch, leader_id=1), timeout=TIMEOUT_S)
        return stub.Update(
            bourse_pb2.UpdateRequest(epoch=epoch, request_id=request_id, name="stock1", quantity=1),
            timeout=TIMEOUT_S,
        )


def test_serves_until_told_to_stop(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address):
        assert is_serving(address, TIMEOUT_S)
        assert trade(address, 1, "a").transaction_number == 1
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert "stopped, everything is on disk" in rest
    assert not list(tmp_path.glob("*-wal"))


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address):
        assert trade(address, 1, "a").transaction_number == 1
        process.send_signal(signal.SIGKILL)
        process.wait(TIMEOUT_S)
    with running(tmp_path) as (_, address):
        assert trade(address, 2, "a").replayed
        later = trade(address, 2, "b")
        assert later.transaction_number == 2
        assert later.lease_ms > 0  # after a restart every stock counts as leased


def test_a_wrong_setting_is_one_line(tmp_path: Path) -> None:
    code, errors = failed_start(tmp_path, CATALOG_THREADPOOL_SIZE="1")
    assert code == 2
    assert errors.startswith("catalog: setting CATALOG_THREADPOOL_SIZE='1': ")
    assert errors.count("\n") == 1


def test_a_wrong_stocks_file_is_one_line(tmp_path: Path) -> None:
    stocks_file = tmp_path / "stocks.txt"
    stocks_file.write_text("stockname,price,currvol\nstock1,25.789,100\n")
    code, errors = failed_start(tmp_path / "data", STOCKS_FILE=str(stocks_file))
    assert code == 1
    assert f"{stocks_file}, line 2: price '25.789' has more than two places" in errors
    assert errors.count("\n") == 1


def test_a_directory_in_use_is_one_line(tmp_path: Path) -> None:
    with running(tmp_path):
        code, errors = failed_start(tmp_path)
    assert code == 1
    assert "another catalog has it open" in errors
    assert errors.count("\n") == 1


def test_a_damaged_catalog_does_not_start(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address):
        for number in range(50):
            trade(address, 1, f"order-of-a-stock-{number}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    raw = bytearray((tmp_path / "catalog.db").read_bytes())
    raw[raw.rindex(b"order-of-a-stock")] ^= 1
    (tmp_path / "catalog.db").write_bytes(raw)
    before = bytes_of(tmp_path)
    code, errors = failed_start(tmp_path)
    assert code == 1
    assert errors.count("\n") == 1
    assert " CRITICAL " in errors
    assert f"{tmp_path / 'catalog.db'} is damaged: " in errors
    assert "python -m catalog restore" in errors
    assert bytes_of(tmp_path) == before


def test_trouble_with_the_disk_is_no_damage(tmp_path: Path) -> None:
    """Here it is full: SQLite cannot make the index of the write-ahead log."""
    with running(tmp_path) as (process, address):
        trade(address, 1, "a")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    before = bytes_of(tmp_path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limit[1]))  # the process inherits it
    try:
        code, errors = failed_start(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert code == 1
    assert re.search(r"CRITICAL .*catalog\.db: (disk I/O error|database or disk is full)", errors)
    assert "damaged" not in errors
    assert bytes_of(tmp_path) == before


def test_an_address_in_use_is_one_line(tmp_path: Path) -> None:
    with running(tmp_path / "one") as (_, address):
        code, errors = failed_start(tmp_path / "two", LISTEN_ADDRESS=address)
    assert code == 1
    assert f"cannot listen on {address}" in errors
