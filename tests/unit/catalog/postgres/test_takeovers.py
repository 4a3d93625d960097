"""However catalogs take over from each other, no promise is broken.

Histories of several catalogs over a database whose nodes fail, each decided by a seed. Each
mechanism is necessary: when it is taken out, a history breaks a promise.
"""

from __future__ import annotations

import pytest

from tests.support.mechanisms import taken_out
from tests.unit.catalog.postgres import faults
from tests.unit.catalog.postgres.simulation import explore

# The last test shows that this is enough to notice each missing mechanism. More by hand:
# `python -m tests.unit.catalog.postgres.simulation 0 5000`.
SEEDS = 120
GROUPS = 6


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_no_history_breaks_a_promise(group: int) -> None:
    for seed in range(group, SEEDS, GROUPS):
        explore(seed)


def test_a_seed_decides_everything() -> None:
    first, second = (explore(faults.ROUGH) for _ in range(2))
    assert first.cluster.leader.shown.orders == second.cluster.leader.shown.orders
    assert first.scheduler.now_s == second.scheduler.now_s


# Without one of these, some history of that kind breaks a promise.
NEEDED = {
    "generation check": faults.RARE_TRADES,
    "repeats write too": faults.DOUBTS,
    "over when in doubt": faults.DOUBTS,
    "a warning is a doubt": faults.DOUBTS,
    "shown from memory": faults.DOUBTS,
    "acknowledged rows": faults.DOUBTS,
    "validity": faults.PAUSES,
    "patience": faults.PAUSES,
    "random beat": faults.TWINS,
    "lease after a restart": faults.ROUGH,
    "lease before the read": faults.MANY_STOCKS,
}


@pytest.mark.parametrize(("mechanism", "profile"), NEEDED.items())
def test_each_mechanism_is_needed(mechanism: str, profile: int) -> None:
    with taken_out(mechanism), pytest.raises(AssertionError):
        for seed in range(profile, SEEDS, len(faults.PROFILES)):
            explore(seed)
