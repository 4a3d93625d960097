"""The numbers of a run, for the terminal and for the page."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from faults.history import (
    Call,
    Completion,
    End,
    Fault,
    Record,
    Run,
)
from stack.numbers import percentile
from stack.observations import Observation
from stack.parts import ORDER_SERVICES

_BUCKET_S = 0.5
_MOST_BUCKETS = 600


@dataclass(frozen=True, slots=True)
class Waits:
    """How long calls took, in seconds; 0 if there are none."""

    count: int
    p50_s: float
    p99_s: float
    worst_s: float


@dataclass(frozen=True, slots=True)
class FaultFigures:
    fault: str
    target: str
    hits: tuple[str, ...]
    began_s: float  # since the start of the run, as the two below
    healed_s: float
    ended_s: float
    waits: Waits  # of the calls that overlapped the fault
    errors: int  # of these calls: 5xx, or no answer at all
    new_leader_s: float | None  # after the break, if the leader was hit
    catch_up_s: float | None  # after healing, if an order service was hit
    detail: str

    @property
    def label(self) -> str:
        return f"{self.fault}:{self.target}"


@dataclass(frozen=True, slots=True)
class LeaderChange:
    at_s: float
    epoch: int
    replica: str


@dataclass(frozen=True, slots=True)
class Bucket:
    at_s: float
    trades: float  # acknowledged ones per second
    lookups: float  # answered ones per second, of stocks and orders
    errors: int
    waits: Waits


@dataclass(frozen=True, slots=True)
class Figures:
    run: Run | None
    duration_s: float
    interrupted: bool
    problems: tuple[str, ...]
    requests: dict[str, Counter[str]]  # op → status in words → count
    repeats: int
    waits: dict[str, Waits]  # op → waits of calls in the phase "run"
    faults: tuple[FaultFigures, ...]
    leaders: tuple[LeaderChange, ...]
    bucket_s: float
    buckets: tuple[Bucket, ...] = field(default=())

    @property
    def parts(self) -> tuple[str, ...]:
        """The containers of the stack."""
        return () if self.run is None else self.run.parts

    @property
    def total(self) -> int:
        return sum(sum(statuses.values()) for statuses in self.requests.values())


@dataclass(frozen=True, slots=True)
class _Timed:
    began_s: float
    ended_s: float
    op: str
    status: int | None

    @property
    def is_error(self) -> bool:
        return self.status is None or self.status >= 500

    @property
    def wait_s(self) -> float:
        return self.ended_s - self.began_s


def figures_of(records: Iterable[Record]) -> Figures:
    """The figures of a history, which may be cut short."""
    run: Run | None = None
    end: End | None = None
    calls: dict[int, Call] = {}
    answers: dict[int, Completion] = {}
    steps: dict[int, list[Fault]] = defaultdict(list)
    seen: list[Observation] = []
    keys: Counter[str] = Counter()
    for record in records:
        match record:
            case Call():
                calls[record.id] = record
                keys.update([record.key] if record.key else [])
            case Completion():
                answers[record.id] = record
            case Fault():
                steps[record.id].append(record)
            case Observation():
                seen.append(record)
            case Run():
                run = record
            case End():
                end = record
            case _:
                pass
    zero_ns = run.at_ns if run else 0
    timed = _timed(calls, answers, zero_ns)
    loaded = [one for id, one in timed.items() if calls[id].phase == "run"]
    loaded.sort(key=lambda one: one.began_s)
    requests: dict[str, Counter[str]] = defaultdict(Counter)
    for id, call in calls.items():
        requests[call.op][_outcome(call, answers.get(id))] += 1
    duration_s = max((one.ended_s for one in loaded), default=0.0)
    leaders = _leader_changes(seen, zero_ns)
    bucket_s = max(_BUCKET_S, duration_s / _MOST_BUCKETS)
    return Figures(
        run=run,
        duration_s=duration_s,
        interrupted=end is None or end.interrupted,
        problems=("the history has no end",) if end is None else end.problems,
        requests=dict(requests),
        repeats=sum(count - 1 for count in keys.values()),
        waits={op: _waits([one.wait_s for one in loaded if one.op == op]) for op in requests},
        faults=tuple(_fault(one, loaded, leaders, zero_ns, duration_s) for one in steps.values()),
        leaders=leaders,
        bucket_s=bucket_s,
        buckets=_buckets(loaded, bucket_s),
    )


def _timed(
    calls: dict[int, Call], answers: dict[int, Completion], zero_ns: int
) -> dict[int, _Timed]:
    return {
        id: _Timed(
            (calls[id].at_ns - zero_ns) / 1e9,
            (answer.at_ns - zero_ns) / 1e9,
            calls[id].op,
            answer.status,
        )
        for id, answer in answers.items()
        if id in calls
    }


def _outcome(call: Call, answer: Completion | None) -> str:
    if answer is None:
        return "with nobody waiting" if call.phase == "orphan" else "under way at the end"
    return "without an answer" if answer.status is None else f"of {answer.status}"


def _fault(
    steps: Sequence[Fault],
    calls: Sequence[_Timed],
    leaders: Sequence[LeaderChange],
    zero_ns: int,
    duration_s: float,
) -> FaultFigures:
    at_s = {step.step: (step.at_ns - zero_ns) / 1e9 for step in steps}
    first = steps[0]
    began_s = (first.at_ns - zero_ns) / 1e9
    broken_s = at_s.get("broken", began_s)
    healed_s = at_s.get("healed", max(duration_s, began_s))
    ended_s = at_s.get("recovered", max(healed_s, at_s.get("failed", 0.0)))
    met = [one for one in _begun_before(calls, ended_s) if one.ended_s >= began_s]
    hit_leader = _leader_at(leaders, began_s) in first.hits
    later = [change.at_s - broken_s for change in leaders if began_s < change.at_s <= ended_s + 5]
    is_caught_up = "recovered" in at_s and set(first.hits) & set(ORDER_SERVICES)
    return FaultFigures(
        fault=first.fault,
        target=first.target,
        hits=first.hits,
        began_s=began_s,
        healed_s=healed_s,
        ended_s=ended_s,
        waits=_waits([one.wait_s for one in met]),
        errors=sum(one.is_error for one in met),
        new_leader_s=max(0.0, later[0]) if hit_leader and later else None,
        catch_up_s=ended_s - healed_s if is_caught_up else None,
        detail="; ".join(step.detail for step in steps if step.detail),
    )


def _begun_before(calls: Sequence[_Timed], at_s: float) -> Sequence[_Timed]:
    return calls[: bisect_left(calls, at_s, key=lambda one: one.began_s)]


def _leader_changes(seen: Iterable[Observation], zero_ns: int) -> tuple[LeaderChange, ...]:
    """When each epoch was first seen to have a leader."""
    changes: list[LeaderChange] = []
    for observation in seen:
        leading = [
            (said.epoch, name)
            for name, said in observation.replicas.items()
            if said.role == "leader"
        ]
        if leading and (not changes or max(leading)[0] > changes[-1].epoch):
            at_s = (observation.until_ns - zero_ns) / 1e9
            changes.append(LeaderChange(at_s, *max(leading)))
    return tuple(changes)


def _leader_at(leaders: Sequence[LeaderChange], at_s: float) -> str | None:
    before = [change.replica for change in leaders if change.at_s <= at_s]
    return before[-1] if before else None


def _buckets(calls: Sequence[_Timed], bucket_s: float) -> tuple[Bucket, ...]:
    """Sorts the calls by the time of their answers, not of their beginnings."""
    sorted_in: dict[int, list[_Timed]] = defaultdict(list)
    for one in calls:
        sorted_in[int(max(0.0, one.ended_s) / bucket_s)].append(one)
    return tuple(
        Bucket(
            at_s=place * bucket_s,
            trades=sum(one.op == "trade" and one.status == 200 for one in there) / bucket_s,
            lookups=sum(one.op != "trade" and not one.is_error for one in there) / bucket_s,
            errors=sum(one.is_error for one in there),
            waits=_waits([one.wait_s for one in there]),
        )
        for place in range(max(sorted_in, default=-1) + 1)
        for there in [sorted_in[place]]
    )


def _waits(waits_s: list[float]) -> Waits:
    waits_s.sort()
    if not waits_s:
        return Waits(0, 0.0, 0.0, 0.0)
    return Waits(len(waits_s), percentile(waits_s, 50), percentile(waits_s, 99), waits_s[-1])
