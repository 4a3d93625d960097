"""Which parts were not available at what time, and for how long that excuses a 503."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from faults.history import Fault
from faults.targets import catalogs_of, frontends_of
from stack.offices import ACTIVE, PRIMARY, STANDBY
from stack.parts import ETCD_SERVICES, ORDER_SERVICES

NEVER = 2**63


@dataclass(frozen=True, slots=True)
class Excuse:
    """For how long after a fault a 503 is right, unless what it hit serves again before."""

    faults: tuple[str, ...]
    hits: tuple[str, ...]  # who holds that office, or that part
    at_most_s: float
    reason: str


_SILENT = ("kill", "pause", "partition", "zombie")
_UNTIL_IT_SERVES = float("inf")

# Of a part that another one stands in for. What is not here excuses nothing: the active catalog is
# followed by the other one while the trades still have time.
EXCUSES = (
    Excuse(
        ("crash",),
        (PRIMARY,),
        10.0,
        "Patroni sees it at its next loop, within a second, and promotes the synchronous standby",
    ),
    Excuse(
        ("stop", "rolling"),
        (PRIMARY,),
        20.0,
        "it hands over: PostgreSQL writes everything to its disk and ends, then the other starts",
    ),
    Excuse(
        _SILENT,
        (PRIMARY,),
        40.0,
        "it is replaced when Patroni has not heard of it for its ttl of 20 s; then a catalog has "
        "to find the new one",
    ),
    Excuse(
        ("crash", "stop", "rolling", *_SILENT),
        (STANDBY,),
        25.0,
        "each COMMIT waits until Patroni names another, within its ttl of 20 s",
    ),
    Excuse(
        ("lossy",),
        (ACTIVE, PRIMARY, STANDBY, *ETCD_SERVICES),
        _UNTIL_IT_SERVES,
        "who is slow and not silent is replaced late, or never",
    ),
)


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


Impaired = frozenset[str]
Condition = Callable[[Impaired, Sequence[str]], bool]
# Each time at which the set of impaired parts changed, and the set from then on.
Course = Sequence[tuple[int, Impaired]]

# Stands among the impaired parts for as long as a lost office excuses a 503.
_NO_OFFICE = "an office"


def nobody_decides(impaired: Impaired, parts: Sequence[str]) -> bool:
    """Whether a 503 is right: without the edge, any catalog, any frontend or any replica.

    Or while the database finds its offices again: see EXCUSES.
    """
    return (
        not impaired.isdisjoint({"edge", _NO_OFFICE})
        or impaired.issuperset(catalogs_of(parts))
        or impaired.issuperset(ORDER_SERVICES)
        or impaired.issuperset(frontends_of(parts))
    )


def nobody_answers(impaired: Impaired, _parts: Sequence[str]) -> bool:
    """Whether a connection may break. Clients have connections to the edge only."""
    return "edge" in impaired


def one_replica_lives(impaired: Impaired, _parts: Sequence[str]) -> bool:
    return len(impaired & set(ORDER_SERVICES)) == len(ORDER_SERVICES) - 1


def course_of(faults: Sequence[Fault]) -> Course:
    recovered = {fault.id: fault.at_ns for fault in faults if fault.step == "recovered"}
    changes: list[tuple[int, int, str]] = []
    for fault in faults:
        step = {"begin": 1, "recovered": -1}.get(fault.step, 0)
        changes += [(fault.at_ns, step, service) for service in fault.impairs if step]
        if fault.step == "begin" and (excused_s := _excused_s(fault)) > 0:
            until_ns = min(recovered.get(fault.id, NEVER), fault.at_ns + excused_s * 1e9)
            changes += [(fault.at_ns, 1, _NO_OFFICE), (int(until_ns), -1, _NO_OFFICE)]
    held: dict[str, int] = defaultdict(int)
    course: list[tuple[int, Impaired]] = []
    for at_ns, step, service in sorted(changes):
        held[service] += step
        course.append((at_ns, frozenset(name for name, count in held.items() if count > 0)))
    return course


def _excused_s(fault: Fault) -> float:
    lost = {*fault.hits, *(office for office, part in fault.offices.items() if part in fault.hits)}
    found = [
        excuse.at_most_s
        for excuse in EXCUSES
        if fault.fault in excuse.faults and not lost.isdisjoint(excuse.hits)
    ]
    return max(found, default=0.0)


def times_of(course: Course, is_so: Condition, parts: Sequence[str]) -> Spans:
    return Spans(_times(course, lambda impaired: is_so(impaired, parts)))


def _times(course: Course, is_so: Callable[[Impaired], bool]) -> list[Span]:
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
