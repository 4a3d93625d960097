"""Whatever the order of events, nothing is executed twice, lost, or decided by a deposed leader.

And each mechanism that this rests on is needed: with it taken out, a promise breaks.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog import schema, store
from catalog.decisions import OpenBatch
from common.errors import BourseError, Unavailable
from order.office import Office
from order.replica import Replica, Role
from tests.unit.simulation import explore

_MEMORY = Path("/dev/shm")  # noqa: S108 - thousands of small databases


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as name:
        yield Path(name)


def fresh(scratch: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=scratch))


def random_histories(count: int, length: int) -> Iterator[list[int]]:
    for seed in range(count):
        chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        yield [chance.randrange(2**20) for _ in range(length)]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=st.lists(st.integers(0, 2**20 - 1), max_size=150))
def test_no_short_history_breaks_a_promise(scratch: Path, choices: list[int]) -> None:
    explore(fresh(scratch), choices)


def test_no_long_history_breaks_a_promise(scratch: Path) -> None:
    for choices in random_histories(count=120, length=400):
        explore(fresh(scratch), choices)


# ---- the mechanisms, taken out


class UnfencedBatch(OpenBatch):
    """Takes batches of any epoch."""

    def __init__(self, connection: sqlite3.Connection, epoch: int, now_s: float) -> None:
        self._connection, self._epoch, self._now_s = connection, epoch, now_s
        self._last_number, self._digest = schema.last_position(connection)


def split_without_order(replica: Replica, numbers: Iterable[int]) -> tuple[list[int], list[int]]:
    position, ordered = replica.view().position, sorted(set(numbers))
    return [n for n in ordered if n <= position], [n for n in ordered if n > position]


def believe_hearsay(replica: Replica, leader_id: int, epoch: int) -> bool:
    view = replica.view()
    if leader_id == view.replica_id and epoch > view.epoch and view.role is Role.FOLLOWER:
        replica._role, replica._epoch, replica._leader_id = Role.LEADER, epoch, leader_id
    return False


def take_a_refusal_for_yes(office: Office, asked: int) -> int:
    replica_id = office._node.view().replica_id
    try:
        answer = office._registry.fence(asked, replica_id, 1.0)
    except BourseError:
        raise Unavailable from None
    if answer.leader_id != replica_id:
        raise Unavailable
    office._node.step(lambda replica: setattr(replica, "_asked_epoch", answer.epoch))
    office._accepted(answer.epoch)
    return answer.epoch


MECHANISMS: dict[str, tuple[Any, str, Any]] = {
    "fence check": (store, "OpenBatch", UnfencedBatch),
    "recorded rows": (OpenBatch, "_earlier_decision", lambda _batch, _trade: None),
    "recorded refusals": (schema, "insert_refusal", lambda *_: None),
    "in-order append": (Replica, "split", split_without_order),
    "no office by hearsay": (Replica, "hear_of", believe_hearsay),
    "a refusal is a refusal": (Office, "_ask_fence", take_a_refusal_for_yes),
    "pull before leading": (Office, "_pull", lambda _office, _epoch: None),
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_each_mechanism_is_needed(scratch: Path, mechanism: str) -> None:
    target, name, replacement = MECHANISMS[mechanism]
    with (
        mock.patch.object(target, name, replacement),
        pytest.raises((AssertionError, BourseError)),
    ):
        for choices in random_histories(count=300, length=300):
            explore(fresh(scratch), choices)
