"""Sorts the history for the checks, in one pass."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import accumulate

from faults.checks.availability import NEVER, Condition, Spans, course_of, times_of
from faults.history import (
    BadHistory,
    Call,
    Completion,
    End,
    Fault,
    Record,
    Run,
)
from stack.observations import Final, Observation, Row

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
        self._course = course_of(faults)

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

    def times(self, is_so: Condition) -> Spans:
        """The times at which a condition on the set of impaired parts was true."""
        return times_of(self._course, is_so, self.run.parts if self.run else ())


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
