"""Sorts the history for the checks, in one pass."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import accumulate

from faults.history import (
    BadHistory,
    Call,
    Completion,
    End,
    Fault,
    Record,
    Run,
)
from faults.schedule import frontends_of
from stack.observations import Final, Observation, Row
from stack.parts import ORDER_SERVICES

NEVER = 2**63
ANSWERED_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A call and its completion."""

    call: Call
    completion: Completion | None

    @property
    def began_ns(self) -> int:
        return self.call.at_ns

    @property
    def ended_ns(self) -> int:
        return NEVER if self.completion is None else self.completion.at_ns

    @property
    def status(self) -> int | None:
        return None if self.completion is None else self.completion.status

    @property
    def number(self) -> int | None:
        """The order number that a trade was answered with."""
        return None if self.completion is None else self.completion.number

    @property
    def is_unknown(self) -> bool:
        """Whether a trade may have been executed, or may not."""
        said = self.completion
        return said is None or (said.sent and said.is_unknown)

    @property
    def is_unavailable(self) -> bool:
        return self.status == HTTPStatus.SERVICE_UNAVAILABLE

    @property
    def is_acknowledged(self) -> bool:
        return self.call.op == "trade" and self.status == HTTPStatus.OK

    @property
    def is_refused(self) -> bool:
        return self.call.op == "trade" and self.status == HTTPStatus.NOT_FOUND

    @property
    def is_decided(self) -> bool:
        return self.is_acknowledged or self.is_refused


@dataclass(slots=True)
class Keyed:
    """All calls of one trade, in the order in which they began.

    A trade with a key has all calls with that key. A trade without a key has one call. Its `key`
    is then the request id in the row that it is assumed to have made, if there is such a row.
    """

    key: str
    calls: list[Exchange] = field(default_factory=list)

    @property
    def asked(self) -> Call:
        return self.calls[0].call

    @property
    def name(self) -> str:
        """How messages name the trade."""
        return f"key {self.key}" if self.asked.key is not None else f"call {self.asked.id}"

    @property
    def began_ns(self) -> int:
        return self.calls[0].began_ns

    def first(self, *, acknowledged: bool) -> Exchange | None:
        """The first acknowledgement; with `acknowledged` False, the first refusal."""
        wanted = [
            one for one in self.calls if (one.is_acknowledged if acknowledged else one.is_refused)
        ]
        return min(wanted, key=lambda one: one.ended_ns, default=None)


@dataclass(frozen=True, slots=True)
class Span:
    """A time from `began_ns` until just before `ended_ns`."""

    began_ns: int
    ended_ns: int


class Spans:
    """Spans that do not overlap, in order."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self._begins = [span.began_ns for span in spans]

    def __bool__(self) -> bool:
        return bool(self._spans)

    def meet(self, began_ns: int, ended_ns: int) -> bool:
        """Whether one of the spans overlaps that time."""
        return self.last_met(began_ns, ended_ns) is not None

    def last_met(self, began_ns: int, ended_ns: int) -> Span | None:
        """The last of the spans that overlap that time."""
        last = bisect_right(self._begins, ended_ns) - 1
        met = last >= 0 and self._spans[last].ended_ns >= began_ns
        return self._spans[last] if met else None


class Newest:
    """The highest number so far at any time; 0 if there was none.

    Args:
        happened: pairs of a time and a number, which can be an order or an epoch.
    """

    def __init__(self, happened: Iterable[tuple[int, int]]) -> None:
        in_time = sorted(happened)
        self._times = [at_ns for at_ns, _ in in_time]
        self._highest = list(accumulate((number for _, number in in_time), max))

    def before(self, at_ns: int) -> int:
        return self._of_first(bisect_left(self._times, at_ns))

    def until(self, at_ns: int) -> int:
        """As `before`, but includes what happened at exactly that time."""
        return self._of_first(bisect_right(self._times, at_ns))

    def _of_first(self, count: int) -> int:
        return self._highest[count - 1] if count else 0


class Index:
    """Raises BadHistory if the calls and answers cannot belong to one history."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.run: Run | None = None
        self.final: Final | None = None
        self.end: End | None = None
        self.rows: list[Row] = []
        self.observations: list[Observation] = []
        self.exchanges: list[Exchange] = []
        self.double_completions: list[Completion] = []
        faults: list[Fault] = []
        calls: dict[int, Call] = {}
        completions: dict[int, Completion] = {}
        for record in records:
            match record:
                case Call():
                    _is_new(record, calls)
                    calls[record.id] = record
                case Completion():
                    _belongs(record, calls.get(record.id))
                    (self.double_completions.append(record) if record.id in completions else None)
                    completions[record.id] = record
                case Observation():
                    self.observations.append(record)
                case Row():
                    self.rows.append(record)
                case Fault():
                    faults.append(record)
                case Run():
                    self.run = record
                case Final():
                    self.final = record
                case End():
                    self.end = record
        timed: list[Call | Completion | Fault | Observation]
        timed = [*calls.values(), *completions.values(), *faults, *self.observations]
        self._last_ns = max((one.at_ns for one in timed), default=0)
        asked = sorted(
            (Exchange(call, completions.get(call.id)) for call in calls.values()),
            key=lambda one: one.began_ns,
        )
        # Nobody waits for the answer of an orphan, and a killed client does not wait either.
        self.exchanges = [
            one for one in asked if one.call.phase != "orphan" and not self._was_cut_short(one)
        ]
        self.keys: dict[str, Keyed] = {}
        for one in asked:
            if one.call.op == "trade" and one.call.key is not None:
                self.keys.setdefault(one.call.key, Keyed(one.call.key)).calls.append(one)
        self.row_by_number = {row.number: row for row in self.rows}
        self.rows_by_key: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            self.rows_by_key[row.request_id].append(row)
        self._take_in([one for one in asked if one.call.op == "trade" and one.call.key is None])
        self._impaired = _impaired(faults)

    def _take_in(self, keyless: Sequence[Exchange]) -> None:
        """Finds the row of each trade without a key.

        An acknowledged trade has the row with its number. A trade of unknown outcome may have any
        equal row that is left. The earliest trade gets the first such row in the journal. So the
        trade that made the row never began earlier than the trade that gets it here.
        """
        unknown: dict[_Likeness, deque[Exchange]] = defaultdict(deque)
        for one in keyless:
            row = self.row_by_number.get(one.number) if one.number is not None else None
            # The row may belong to another trade: one with a key, or an earlier one without.
            is_own = row is not None and row.request_id not in self.keys
            key = row.request_id if row is not None and is_own else f"call {one.call.id}"
            if one.number is not None or not one.is_unknown:
                self.keys[key] = Keyed(key, [one])
            else:
                unknown[_likeness(one.call)].append(one)
        for row in self.rows:
            if row.request_id not in self.keys and (waiting := unknown[_likeness(row)]):
                self.keys[row.request_id] = Keyed(row.request_id, [waiting.popleft()])
        for one in (one for left in unknown.values() for one in left):
            key = f"call {one.call.id}"
            self.keys[key] = Keyed(key, [one])

    def _was_cut_short(self, one: Exchange) -> bool:
        """True if the history ends during the call, before the answer was late."""
        in_time_ns = one.began_ns + int(ANSWERED_WITHIN_S * 1e9)
        return one.completion is None and self.end is None and self._last_ns <= in_time_ns

    def seconds(self, at_ns: int) -> str:
        """The time since the start of the run, for messages."""
        began_ns = self.run.at_ns if self.run else 0
        return "the end" if at_ns >= NEVER else f"{(at_ns - began_ns) / 1e9:.3f} s"

    def acknowledged(self) -> list[Keyed]:
        return [one for one in self.keys.values() if one.first(acknowledged=True)]

    def times(self, is_so: _Condition) -> Spans:
        """The times at which a condition on the set of impaired parts was true."""
        parts = self.run.parts if self.run else ()
        return Spans(_times(self._impaired, lambda impaired: is_so(impaired, parts)))


def _is_new(call: Call, calls: Mapping[int, Call]) -> None:
    if call.id in calls:
        raise BadHistory(f"two calls have the number {call.id}")


def _belongs(completion: Completion, call: Call | None) -> None:
    if call is None:
        raise BadHistory(f"there is an answer to call {completion.id}, and no such call before it")
    if completion.at_ns < call.at_ns:
        raise BadHistory(f"call {completion.id} was answered before it was asked")


_Likeness = tuple[str | None, str | None, int | None]


def _likeness(one: Call | Row) -> _Likeness:
    """Trades without keys can be distinguished by these fields only."""
    return one.name, one.type, one.quantity


_Impaired = frozenset[str]


def nobody_decides(impaired: _Impaired, parts: Sequence[str]) -> bool:
    """Whether a 503 is right: without the edge, the catalog, any frontend or any replica."""
    frontends = frontends_of(parts)
    return (
        not impaired.isdisjoint({"edge", "catalog"})
        or impaired.issuperset(ORDER_SERVICES)
        or impaired.issuperset(frontends)
    )


def nobody_answers(impaired: _Impaired, _parts: Sequence[str]) -> bool:
    """Whether a connection may break. Clients have connections to the edge only."""
    return "edge" in impaired


def one_replica_lives(impaired: _Impaired, _parts: Sequence[str]) -> bool:
    return len(impaired & set(ORDER_SERVICES)) == len(ORDER_SERVICES) - 1


_Condition = Callable[[_Impaired, Sequence[str]], bool]


def _impaired(faults: Sequence[Fault]) -> list[tuple[int, _Impaired]]:
    """Each time at which the set of impaired parts changed, and the set from then on."""
    changes: list[tuple[int, int, str]] = []
    for fault in faults:
        step = {"begin": 1, "recovered": -1}.get(fault.step, 0)
        changes += [(fault.at_ns, step, service) for service in fault.impairs if step]
    held: dict[str, int] = defaultdict(int)
    course: list[tuple[int, _Impaired]] = []
    for at_ns, step, service in sorted(changes):
        held[service] += step
        course.append((at_ns, frozenset(name for name, count in held.items() if count > 0)))
    return course


def _times(
    course: Sequence[tuple[int, _Impaired]], is_so: Callable[[_Impaired], bool]
) -> list[Span]:
    spans: list[Span] = []
    began_ns: int | None = None
    for at_ns, impaired in course:
        if is_so(impaired) and began_ns is None:
            began_ns = at_ns
        elif not is_so(impaired) and began_ns is not None:
            spans.append(Span(began_ns, at_ns))
            began_ns = None
    if began_ns is not None:
        spans.append(Span(began_ns, NEVER))
    return spans
