"""The state machine of being active: every step in every role, and when the office may be taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from catalog.postgres.tenure import PATIENCE, IllegalTransition, Role, Tenure, TenureView

ME, OTHER = "me", "other"
V = 1.0
D = PATIENCE * V


def standing_by() -> Tenure:
    """It saw generation 4 at 100 s."""
    tenure = Tenure(ME, V)
    tenure.observe(4, 77, OTHER, False, 100.0)
    return tenure


def taking() -> Tenure:
    tenure = standing_by()
    assert tenure.begin_take(100.0 + D) == 5
    return tenure


def active() -> Tenure:
    """In generation 5, valid until 103 s."""
    tenure = taking()
    assert tenure.taken(102.0) == 5
    return tenure


def left() -> Tenure:
    tenure = active()
    assert tenure.leave()
    return tenure


STATES: dict[str, Callable[[], Tenure]] = {
    "standing_by": standing_by,
    "taking": taking,
    "active": active,
    "left": left,
}
STEPS: dict[str, Callable[[Tenure], Any]] = {
    "observe": lambda tenure: tenure.observe(4, 78, OTHER, False, 101.0),
    "observe.same": lambda tenure: tenure.observe(4, 77, OTHER, False, 101.0),
    "begin_take": lambda tenure: tenure.begin_take(100.0 + D),
    "begin_take.early": lambda tenure: tenure.begin_take(99.9 + D),
    "not_taken": lambda tenure: tenure.not_taken(),
    "taken": lambda tenure: tenure.taken(102.0),
    "renew": lambda tenure: tenure.renew(5, 102.5),
    "renew.late": lambda tenure: tenure.renew(4, 102.5),
    "end": lambda tenure: tenure.end(5),
    "end.late": lambda tenure: tenure.end(4),
    "leave": lambda tenure: tenure.leave(),
}
# The result of each step in each state: the new role, `same` if nothing changes, `changed` if only
# the role stays, or `-` if the step is illegal. After a colon comes the value that it returns.
TABLE = """
                  standing_by  taking       active            left
observe           changed      -            -                 -
observe.same      same         -            -                 -
begin_take        taking:5     -            -                 -
begin_take.early  -            -            -                 -
not_taken         -            standing_by  -                 -
taken             -            active:5     -                 -
renew             same:False   same:False   changed:True      same:False
renew.late        same:False   same:False   same:False        same:False
end               same:False   same:False   standing_by:True  same:False
end.late          same:False   same:False   same:False        same:False
leave             left:False   -            left:True         -
"""


def cells() -> list[tuple[str, str, str]]:
    header, *lines = [line.split() for line in TABLE.strip().splitlines()]
    return [
        (state, step, expected)
        for step, *row in lines
        for state, expected in zip(header, row, strict=True)
    ]


def insides(tenure: Tenure) -> dict[str, object]:
    return dict(vars(tenure))


def role_of(tenure: Tenure) -> str:
    return tenure.view().role.name.lower()


def test_the_table_is_complete() -> None:
    named = {(state, step) for state, step, _ in cells()}
    assert named == {(state, step) for state in STATES for step in STEPS}


@pytest.mark.parametrize(("state", "step", "expected"), cells())
def test_each_step_in_each_state(state: str, step: str, expected: str) -> None:
    tenure = STATES[state]()
    before = insides(tenure)
    if expected == "-":
        with pytest.raises(IllegalTransition, match=step.partition(".")[0]):
            STEPS[step](tenure)
        assert insides(tenure) == before
        return
    after, _, returned = expected.partition(":")
    answer = STEPS[step](tenure)
    assert str(answer) == (returned or "None")
    if after == "same":
        assert insides(tenure) == before
    elif after == "changed":
        assert insides(tenure) != before
        assert role_of(tenure) == state
    else:
        assert role_of(tenure) == after


def test_an_illegal_step_says_what_was_tried_and_where() -> None:
    with pytest.raises(IllegalTransition, match=r"taken: .*STANDING_BY.*generation=0"):
        standing_by().taken(1.0)


# ------------------------------------------------------------ when it may be taken


def test_who_saw_nothing_takes_nothing() -> None:
    tenure = Tenure(ME, V)
    assert not tenure.may_take(1e9)
    with pytest.raises(IllegalTransition):
        tenure.begin_take(1e9)


def test_a_row_is_old_when_it_stayed_the_same_since_it_was_first_seen() -> None:
    tenure = standing_by()
    for now_s in (100.5, 101.0, 101.2):
        tenure.observe(4, 77, OTHER, False, now_s)
        assert not tenure.may_take(now_s)
    assert tenure.may_take(100.0 + D)


@pytest.mark.parametrize(("generation", "beat"), [(4, 78), (5, 77), (3, 77)])
def test_any_other_row_begins_the_wait_anew(generation: int, beat: int) -> None:
    tenure = standing_by()
    tenure.observe(generation, beat, OTHER, False, 101.0)
    assert not tenure.may_take(100.9 + D)
    assert tenure.may_take(101.0 + D)


def test_a_row_that_was_seen_before_another_begins_the_wait_anew() -> None:
    tenure = standing_by()
    tenure.observe(4, 78, OTHER, False, 101.0)
    tenure.observe(4, 77, OTHER, False, 102.0)
    assert not tenure.may_take(101.9 + D)


def test_a_released_office_is_taken_at_once() -> None:
    tenure = standing_by()
    tenure.observe(4, 78, OTHER, True, 101.0)
    assert tenure.begin_take(101.0) == 5


def test_an_office_that_is_held_again_is_not_free() -> None:
    tenure = standing_by()
    tenure.observe(4, 78, OTHER, True, 101.0)
    tenure.observe(5, 79, OTHER, False, 101.1)
    assert not tenure.may_take(101.1)


def test_its_own_last_term_is_taken_again_at_once() -> None:
    tenure = active()
    tenure.end(5)
    tenure.observe(5, 80, ME, False, 102.5)
    assert tenure.begin_take(102.5) == 6


def test_a_term_whose_acknowledgement_never_came_is_not_its_own() -> None:
    tenure = taking()
    tenure.not_taken()
    tenure.observe(5, 80, ME, False, 102.5)
    assert not tenure.may_take(102.5)


def test_another_holder_of_the_same_generation_is_somebody_else() -> None:
    """So it is after a failover that lost this process's term."""
    tenure = active()
    tenure.end(5)
    tenure.observe(5, 80, OTHER, False, 102.5)
    assert not tenure.may_take(102.5)


def test_a_failed_attempt_may_be_repeated_at_once() -> None:
    tenure = taking()
    tenure.not_taken()
    assert tenure.begin_take(101.5) == 5


# ------------------------------------------------------------ validity


def test_a_term_is_valid_for_v_from_the_beginning_of_what_was_acknowledged() -> None:
    tenure = active()
    assert tenure.is_valid(5, 102.99)
    assert not tenure.is_valid(5, 103.0)
    assert tenure.renew(5, 102.5)
    assert tenure.is_valid(5, 103.49)
    assert not tenure.is_valid(5, 103.5)


def test_an_acknowledgement_that_comes_late_does_not_shorten_it() -> None:
    tenure = active()
    assert tenure.renew(5, 102.5)
    assert tenure.renew(5, 102.1)
    assert tenure.is_valid(5, 103.49)


def test_a_term_that_lapsed_may_be_renewed() -> None:
    """Only another generation in the row ends it."""
    tenure = active()
    assert not tenure.is_valid(5, 110.0)
    assert tenure.renew(5, 110.0)
    assert tenure.is_valid(5, 110.9)


@pytest.mark.parametrize("state", ["standing_by", "taking", "left"])
def test_nothing_is_valid_out_of_office(state: str) -> None:
    tenure = STATES[state]()
    assert not tenure.is_valid(5, 102.0)
    assert not tenure.holds(5)


def test_a_term_is_not_valid_for_another() -> None:
    assert not active().is_valid(4, 102.0)
    assert active().holds(5)


def test_a_process_begins_by_standing_by() -> None:
    assert Tenure(ME, V).view() == TenureView(Role.STANDING_BY, 0, 0.0)
