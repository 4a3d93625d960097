"""Spreads, ratios, rounds and verdicts of the measuring tools."""

from __future__ import annotations

import pytest

from bench.failover import longest_gap_s
from bench.measuring.rounds import Contestant, Results, in_turns
from bench.measuring.spread import Spread, ratios
from bench.measuring.targets import Judged, Relation, Target
from bench.measuring.wrk import Measured
from bench.scale import CatchUp


def measured(rate_per_s: float, **errors: int) -> Measured:
    return Measured(round(rate_per_s * 2), 2.0, 1.0, 1.0, 2.0, 3.0, errors)


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    spread = Spread.of([30, 10, 20, 1000, 0])
    assert spread == Spread(20, 10, 30)
    assert spread.shown(1) == "20.0 (10.0 to 30.0)"
    assert Spread.of([12345.6]).shown(0) == "12,346 (12,346 to 12,346)"
    with pytest.raises(ValueError, match="nothing was measured"):
        Spread.of([])


def test_ratios_are_of_what_was_measured_in_the_same_round() -> None:
    """The machine became twice as fast in between: each round still says a half."""
    assert ratios([50, 100], [100, 200]) == Spread(0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


@pytest.mark.parametrize(
    ("relation", "value", "is_met"),
    [
        ("at least", 0.6, True),
        ("at least", 0.599, False),
        ("at most", 0.6, True),
        ("at most", 0.601, False),
    ],
)
def test_a_target_is_met_on_its_limit(relation: Relation, value: float, is_met: bool) -> None:
    verdict = Judged.of_median(Target("it", relation, 0.6), Spread.of([0, value, value, 9]))
    assert verdict.is_met is is_met
    assert verdict.row()[-1] == ("met" if is_met else "MISSED")
    assert verdict.as_json()["met"] is is_met


def test_a_verdict_tells_its_unit() -> None:
    verdict = Judged(Target("a pause", "at most", 1500, "ms"), 1300, Spread(1000, 900, 1300))
    assert verdict.row() == ("a pause", "at most 1500 ms", "1300 ms", "900 to 1300 ms", "met")


def test_everyone_has_a_turn_in_each_round_and_the_direction_changes() -> None:
    order: list[str] = []

    def contestant(key: str, rate_per_s: float) -> Contestant[str]:
        def measure() -> Measured:
            order.append(key)
            return measured(rate_per_s)

        return Contestant(key, measure)

    shown: list[tuple[int, str]] = []
    results = in_turns(
        [contestant("floor", 100), contestant("stack", 50)],
        3,
        lambda number, key, _one: shown.append((number, key)),
    )
    assert order == ["floor", "stack", "stack", "floor", "floor", "stack"]
    assert [number for number, _ in shown] == [0, 0, 1, 1, 2, 2]
    assert results.rates("floor") == [100, 100, 100]
    assert results.rate_ratio("stack", "floor") == Spread(0.5, 0.5, 0.5)


def test_errors_are_added_up() -> None:
    results: Results[str] = Results()
    results.add("a", measured(1, status=2))
    results.add("a", measured(1))
    results.add("b", measured(1, status=1, timeout=4))
    assert results.errors() == {"status": 3, "timeout": 4}


@pytest.mark.parametrize(
    ("answers_s", "gap_s"),
    [
        ([1, 2, 3, 4, 9, 10], 5),  # 4 to 9: the strike at 5 is in it
        ([1, 2, 3, 4, 5, 6, 7, 8], 2),  # nobody noticed, but for the end
        ([0, 3, 3.5, 4, 5, 6, 7, 8, 9], 1),  # what was over before the strike does not count
        ([9, 10, 4, 3, 2, 1], 5),  # in any order
        ([1, 2, 3], 7),  # not back by the end: so long at least
        ([1, 2, 3, 30], 7),  # what comes later is not of it
        ([], None),
    ],
)
def test_the_longest_gap_around_a_strike(answers_s: list[float], gap_s: float | None) -> None:
    assert longest_gap_s(answers_s, since_s=5, until_s=10) == gap_s


def test_rates_before_while_and_after_a_replica_catches_up() -> None:
    answers_s = [0.6, 1.0, 1.5, 2.0, 2.5, 4.0, 4.1, 4.2, 4.3]
    one = CatchUp(answers_s, started_s=1.5, in_sync_s=3.5, until_s=4.5, errors={})
    assert one.rates() == {"before": 2.0, "catching up": 1.5, "in sync": 4.0}
