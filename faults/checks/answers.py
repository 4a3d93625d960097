"""G4 and G8: what answers clients get, and when."""

from __future__ import annotations

from http import HTTPStatus

from faults.checks.availability import (
    NEVER,
    nobody_answers,
    nobody_decides,
    one_replica_lives,
)
from faults.checks.index import ANSWERED_WITHIN_S, Exchange, Index
from faults.checks.verdict import Findings, Verdict, counted

# How long a client may take to record an answer after it has arrived.
_ALLOWANCE_S = 0.25

_DECISIONS = (HTTPStatus.OK, HTTPStatus.NOT_FOUND)


def one_survivor_serves(index: Index) -> Verdict:
    found = Findings("G4", "One survivor serves")
    alone = index.times(one_replica_lives)
    excused, no_edge = index.times(nobody_decides), index.times(nobody_answers)
    served = 0
    for one in index.exchanges:
        if one.call.op != "trade" or not alone.meet(one.began_ns, one.ended_ns):
            continue
        served += one.is_acknowledged
        is_excused = no_edge if one.status is None else excused
        if _failed(one) and not is_excused.meet(one.began_ns, one.ended_ns):
            found.wrong(f"one replica lived: {_say(index, one)}")
    if not alone:
        return found.verdict("not put to the test: there was no time with one replica")
    return found.verdict(f"{counted(served, 'trade')} acknowledged while one replica lived")


def clients_do_not_notice(index: Index) -> Verdict:
    found = Findings("G8", "Clients don't notice")
    excused, no_edge = index.times(nobody_decides), index.times(nobody_answers)
    held = unanswered = 0
    for one in index.exchanges:
        away = no_edge.last_met(one.began_ns, one.ended_ns)
        # While the edge is away no answer can come, so none can be late.
        waiting_ns = one.ended_ns - max(one.began_ns, away.ended_ns if away else 0)
        if waiting_ns > (ANSWERED_WITHIN_S + _ALLOWANCE_S) * 1e9:
            found.wrong(f"no answer within {ANSWERED_WITHIN_S:g} s: {_say(index, one)}")
        elif one.status is None and away:
            unanswered += 1
        elif one.status == HTTPStatus.SERVICE_UNAVAILABLE and excused.meet(
            one.began_ns, one.ended_ns
        ):
            held += 1
        elif one.status not in _DECISIONS or _is_malformed(one):
            found.wrong(_say(index, one))
    if index.end is None:
        found.cannot_judge("the run did not come to its end")
    elif not index.end.interrupted:
        _all_settled(index, found)
    if index.double_completions:
        found.wrong(f"{counted(len(index.double_completions), 'call')} answered twice")
    if not index.exchanges:
        found.cannot_judge("nothing was asked")
    calls = counted(len(index.exchanges), "call")
    return found.verdict(f"{calls}; excused: {held:,} of 503, {unanswered:,} without an answer")


def _all_settled(index: Index, found: Findings) -> None:
    for keyed in index.keys.values():
        # Nobody asks for the outcome of an orphan, and a client without keys cannot ask for any.
        is_asked_again = keyed.asked.phase != "orphan" and keyed.asked.key is not None
        if is_asked_again and not any(one.is_decided for one in keyed.calls):
            calls = counted(len(keyed.calls), "call")
            found.wrong(f"{keyed.name} was never decided, in {calls}")


def _failed(one: Exchange) -> bool:
    return one.status is None or one.status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _is_malformed(one: Exchange) -> bool:
    return (
        one.status == HTTPStatus.OK
        and one.completion is not None
        and one.completion.error is not None
    )


def _say(index: Index, one: Exchange) -> str:
    asked = f"call {one.call.id} at {index.seconds(one.began_ns)}, a {one.call.op},"
    if one.completion is None:
        return f"{asked} had no answer"
    lasted_s = (min(one.ended_ns, NEVER) - one.began_ns) / 1e9
    said = one.status if one.status is not None else "no answer"
    return f"{asked} got {said} after {lasted_s:.3f} s: {one.completion.error}"
