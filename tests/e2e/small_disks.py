"""A stack on volumes that a test can fill, without filling the machine's disk."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stack.parts import ORDER_SERVICES, SERVICES
from stack.waiting import wait_for
from tests.e2e.stack import Stack

# What SQLite says of one.
FULL = "database or disk is full"
DISKS = ("catalog", *ORDER_SERVICES)
_OVERRIDE = Path(__file__).with_name("small_disks.yaml")


@contextmanager
def stack_on_small_disks() -> Iterator[Stack]:
    stack = Stack(overrides=[_OVERRIDE])
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


def fill(stack: Stack, *disks: str, spare_kib: int = 0) -> None:
    """Writes a file of the service's own user into each, until so much room is left."""
    for disk in disks:
        filler = f"/disks/{disk}/filler"
        write = f"head -c 1G /dev/zero > {filler} 2> /dev/null; truncate -s -{spare_kib}K {filler}"
        stack.execute("keeper", "sh", "-c", write)


def free(stack: Stack, *disks: str) -> None:
    for disk in disks:
        stack.execute("keeper", "rm", "-f", f"/disks/{disk}/filler")


def heal(stack: Stack) -> None:
    """Room on every disk, and everything up."""
    free(stack, *DISKS)
    for service in SERVICES:
        stack.start(service)
    for service in SERVICES:
        stack.wait_healthy(service)


def files(stack: Stack, disk: str) -> set[str]:
    return set(stack.execute("keeper", "ls", f"/disks/{disk}").split())


def lines(stack: Stack, service: str, *words: str) -> list[str]:
    """The lines in a service's log that have all of these words in them."""
    said = stack.container(service).logs().decode().splitlines()
    return [line for line in said if all(word in line for word in words)]


def wait_for_line(stack: Stack, service: str, *words: str) -> str:
    found = wait_for(
        lambda: lines(stack, service, *words),
        20,
        lambda: f"{words} in the log of {service}:\n{stack.logs(lines=20)}",
    )
    return found[-1]


def trade(stack: Stack, key: str = "") -> tuple[int, dict[str, str], Any]:
    body = {"name": "stock2", "quantity": 1, "type": "SELL"}
    return stack.request("POST", "/orders", body, {"Idempotency-Key": key or str(uuid.uuid4())})


def trade_until_refused(stack: Stack) -> dict[str, int]:
    """The trades that were acknowledged before the first 503: key → number."""
    acknowledged: dict[str, int] = {}
    # A write-ahead log that was begun anew has room for about a thousand in its own file.
    for _ in range(3_000):
        key = str(uuid.uuid4())
        status, headers, body = trade(stack, key)
        if status == 503:
            assert int(headers["retry-after"]) >= 1
            return acknowledged
        assert status == 200, body
        acknowledged[key] = body["data"]["transaction_number"]
    raise AssertionError("3,000 trades, and none was refused")
