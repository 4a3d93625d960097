"""The checker accepts a good history, and finds the fault in each bad one."""

from __future__ import annotations

import pytest

from faults.checker import judge
from faults.history import Call, Completion, End, Run
from stack.observations import Final, Row
from tests.unit.faults import bad_keyless, bad_service, bad_trades
from tests.unit.faults.histories import Bad, S, Story, good, told


def test_a_good_history_holds() -> None:
    judgement = judge(told(good()))
    assert [one.promise for one in judgement.verdicts] == [f"G{n}" for n in range(1, 10)]
    assert [one for one in judgement.verdicts if one.held is not True] == []
    assert judgement.held


def test_what_happened_in_the_same_moment_may_have_come_first() -> None:
    """A read may show the quantity of a trade that begins at the moment when the read ends."""
    story = good()
    begins_ns = story.now_ns
    story.records.append(Call(99, begins_ns - S // 4, 2, "lookup", "run", name="a"))
    story.trade("k5", 1, "SELL", 2)
    story.records.append(Completion(99, begins_ns, 200, quantity=story.quantity))
    story.call("lookup", {"status": 404, "error": "stock not found"}, name="no stock")
    assert judge(told(story)).held


def test_a_trade_of_unknown_outcome_may_have_happened() -> None:
    """Its outcome is unknown, a lookup shows its effect, and then it is acknowledged."""
    story = good().fault("begin", "catalog", id=3)
    story.asked("k5", 1, "SELL", status=503, error="outcome unknown")
    story.fault("recovered", "catalog", id=3)
    story.rows.append(Row(4, "k5", "a", "SELL", 1, 4, 2, ""))
    story.quantity += 1
    assert judge(told(story.lookup().repeat("k5", 4))).held


def test_trades_without_a_key_are_known_by_their_answers() -> None:
    """Some are answered. Of two with unknown outcomes, one was executed and one was not."""
    story = Story().keyless(7).keyless(7).lookup()
    story.fault("begin", "edge")
    story.keyless(8, status=None, error="reset")
    story.call("trade", {"status": 503, "error": "?"}, name="a", type="SELL", quantity=8)
    story.fault("recovered", "edge")
    story.call("trade", {"status": 404, "error": "insufficient volume"}, name="a", type="BUY",
               quantity=1000)  # fmt: skip
    for number in (1, 2):
        story.order(number, "verify")
    assert judge(story.lookup(phase="verify").told()).held


def test_an_edge_that_is_away_excuses_broken_connections() -> None:
    story = good().fault("begin", "edge", id=3)
    story.call("lookup", {"status": None, "error": "reset"}, name="a")
    story.call("lookup", {"status": 503, "error": "no frontend"}, name="a")
    assert judge(told(story.fault("recovered", "edge", id=3))).held


@pytest.mark.parametrize(
    "bad",
    [*bad_trades.BAD, *bad_keyless.BAD, *bad_service.BAD],
    ids=lambda bad: bad.title,
)
def test_a_bad_history_is_caught(bad: Bad) -> None:
    judgement = judge(bad.records())
    broken = {one.promise: one for one in judgement.verdicts if one.held is False}
    assert set(broken) == set(bad.promises.split()), broken
    assert not judgement.held
    said = [line for one in broken.values() for line in one.violations]
    assert any(bad.says in line for line in said), said
    assert all(one.violation_count == len(one.violations) for one in broken.values())


@pytest.mark.parametrize("kind", [Run, Final, End])
def test_what_is_missing_is_not_called_held(kind: type) -> None:
    records = [one for one in told(good()) if not isinstance(one, kind)]
    judgement = judge(records)
    assert not judgement.held
    assert None in [one.held for one in judgement.verdicts]


def test_nothing_examined_is_not_held() -> None:
    judgement = judge(Story().told())
    assert not judgement.held
    assert judgement.verdicts[0].held is None


def test_an_interrupted_run_is_not_called_broken_for_what_it_left_out() -> None:
    records = good().lookup(phase="verify").told()
    records[-1] = End(records[-1].at_ns, interrupted=True)  # type: ignore[union-attr]
    judgement = judge(records)
    assert [one.promise for one in judgement.verdicts if one.held is False] == []
    assert judgement.verdicts[1].held is None
