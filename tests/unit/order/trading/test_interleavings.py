"""In every order of events, no trade is executed twice, lost, or decided by a deposed leader.

Each mechanism for this is necessary: when it is taken out, a promise breaks.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import BourseError
from tests.support.mechanisms import taken_out
from tests.unit.order.trading.simulation import explore

# The last test shows that this is enough to notice each missing mechanism.
HISTORIES, LENGTH = 40, 300

_MEMORY = Path("/dev/shm")  # noqa: S108 - thousands of small databases


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as name:
        yield Path(name)


def fresh(scratch: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=scratch))


def random_histories() -> Iterator[list[int]]:
    for seed in range(HISTORIES):
        chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        yield [chance.randrange(2**20) for _ in range(LENGTH)]


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(choices=st.lists(st.integers(0, 2**20 - 1), max_size=150))
def test_no_short_history_breaks_a_promise(scratch: Path, choices: list[int]) -> None:
    explore(fresh(scratch), choices)


@pytest.mark.slow
def test_no_long_history_breaks_a_promise(scratch: Path) -> None:
    for choices in random_histories():
        explore(fresh(scratch), choices)


# Without one of these, some order of events breaks a promise.
NEEDED = (
    "fence check",
    "recorded rows",
    "recorded refusals",
    "in-order append",
    "no leader by hearsay",
    "a refusal is a refusal",
    "pull before leading",
)


@pytest.mark.parametrize("mechanism", NEEDED)
def test_each_mechanism_is_needed(scratch: Path, mechanism: str) -> None:
    with taken_out(mechanism), pytest.raises((AssertionError, BourseError)):
        for choices in random_histories():
            explore(fresh(scratch), choices)
