"""The history of a run: every call, answer, fault and observation, one JSON object a line.

All times are nanoseconds of CLOCK_MONOTONIC, which every process and container of one machine
shares. A history may end anywhere: its writer may have been killed.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from stack.observations import Final, Observation, Position, Row, restored_positions

FORMAT = 2


class BadHistory(Exception):
    """The file is not a history. The message says where and why."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a run began: its settings, and the catalog's content before anybody traded."""

    at_ns: int
    url: str
    started: str  # wall clock, ISO 8601
    command: str  # repeats the same faults
    seed: int | None
    clients: int
    parts: tuple[str, ...]  # every container, by name: edge, frontend-1, order-2, …
    first_number: int  # the last order number before the run; 0 if there was none
    first_digest: str  # of the journal up to there, in hexadecimal
    quantities: Mapping[str, int]  # of every stock
    versions: Mapping[str, int]  # of every stock
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request that was about to be sent. A repeat under the same key is another call.

    `op` is trade (name, type, quantity, and a key unless the load sends none), lookup (name) or
    order (number). `phase` is run, settle (unknown outcomes are repeated under their key), verify
    (nobody trades any more) or orphan. An orphan is a trade that is sent once, directly to a paused
    replica, and nobody waits for its answer.
    """

    id: int
    at_ns: int
    client: int
    op: str
    phase: str
    key: str | None = None
    name: str | None = None
    type: str | None = None
    quantity: int | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """How a call ended. `status` is None if no complete HTTP answer came.

    `sent` is False only if the request certainly never left. Of a 200: `number` for a trade;
    `quantity` for a lookup; `order` (number, name, type, quantity) for an order lookup.
    """

    id: int
    at_ns: int
    status: int | None
    sent: bool = True
    error: str | None = None  # the message of an error, or of the exception
    number: int | None = None
    replayed: bool = False
    quantity: int | None = None
    order: Mapping[str, Any] | None = None
    cache: str | None = None  # the header X-Cache

    @property
    def is_unknown(self) -> bool:
        """Whether a trade may have been executed, or may not."""
        is_refused = (
            self.status is not None
            and HTTPStatus.BAD_REQUEST <= self.status < HTTPStatus.INTERNAL_SERVER_ERROR
        )
        return self.number is None and not is_refused


@dataclass(frozen=True, slots=True)
class Fault:
    """A step in the life of one fault; the steps of one share its `id`.

    `step` is begin (about to break), broken, healing, healed (nothing is broken any more),
    recovered (what it hit serves again), or failed (it could not be injected, or did not recover
    in time; `detail` says why). The parts in `impairs` count as not available from `begin` to
    `recovered`.
    """

    id: int
    at_ns: int
    step: str
    fault: str  # kill, stop, pause, partition, …
    target: str  # as the schedule names it: leader, two, redis, …
    hits: tuple[str, ...]  # the parts that it was done to
    impairs: tuple[str, ...]
    detail: str = ""
    # The offices that these parts held when the fault began: of which catalog was active, …
    offices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class End:
    at_ns: int
    interrupted: bool
    problems: tuple[str, ...] = field(default=())  # what the injector could not do


Record = Run | Call | Completion | Fault | Observation | Row | Final | End
_KINDS: Mapping[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (Run, Call, Completion, Fault, Observation, Row, Final, End)
}


class HistoryWriter:
    """Appends to a file, from any thread. Raises OSError if it cannot."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, record: Record) -> None:
        line = to_line(record)
        with self._lock:
            self._file.write(line)

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()


def to_line(record: Record) -> str:
    defaults = {one.name: _default(one) for one in dataclasses.fields(record)}
    fields = {
        key: value
        for key, value in dataclasses.asdict(record).items()
        if value != defaults[key] or key == "format"
    }
    return json.dumps({"kind": type(record).__name__.lower(), **fields}) + "\n"


def _default(one: dataclasses.Field[Any]) -> object:
    return one.default if one.default_factory is dataclasses.MISSING else one.default_factory()


def read_history(path: Path) -> Iterator[Record]:
    """Every record, in the order they were written. A last line cut short is left out.

    Raises:
        BadHistory: the file is not a history.
        OSError: it cannot be read.
    """
    with path.open(encoding="utf-8") as file:
        try:
            yield from read_lines(file)
        except UnicodeDecodeError as error:
            raise BadHistory(f"{path} is no history: {error}") from error


def read_lines(lines: Iterable[str]) -> Iterator[Record]:
    """Raises BadHistory."""
    number = 0
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        record = _read(line, number)
        if number == 1 and not isinstance(record, Run):
            raise BadHistory("line 1: a history begins with its run")
        yield record
    if number == 0:
        raise BadHistory("the history is empty")


def _read(line: str, number: int) -> Record:
    try:
        fields = json.loads(line)
        kind = _KINDS[fields.pop("kind")]
        if kind is Run and fields.get("format") != FORMAT:
            raise BadHistory(f"line {number}: not format {FORMAT}")
        record: Record = kind(**{key: _restored(key, value) for key, value in fields.items()})
        _check(record)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message = f"line {number}: {type(error).__name__}: {error}"
        raise BadHistory(message) from error
    return record


def _check(record: Record | Position) -> None:
    """Checks the type and the value of each field. Raises ValueError, TypeError."""
    for field_ in dataclasses.fields(record):
        value = getattr(record, field_.name)
        if not _IS[str(field_.type)](value):
            raise TypeError(f"{field_.name} is {value!r:.80}")
        if value not in _ONE_OF.get(field_.name, (value,)):
            raise ValueError(f"{field_.name} is {value!r:.80}")
        if field_.name in ("digest", "first_digest"):
            bytes.fromhex(value)
    if isinstance(record, Call):
        missing = [name for name in _NEEDS[record.op] if getattr(record, name) is None]
        if missing:
            raise TypeError(f"a {record.op} without {', '.join(missing)}")


def _is_whole(value: object) -> bool:
    return type(value) is int  # isinstance would also accept a bool


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_position(value: object) -> bool:
    if isinstance(value, Position):
        _check(value)
    return isinstance(value, Position)


def _all(is_so: Callable[[object], bool], values: Iterable[object]) -> bool:
    return all(is_so(value) for value in values)


# The type of a field → whether a value has that type.
_IS: Mapping[str, Callable[[Any], bool]] = {
    "int": _is_whole,
    "int | None": lambda value: value is None or _is_whole(value),
    "str": _is_text,
    "str | None": lambda value: value is None or _is_text(value),
    "bool": lambda value: isinstance(value, bool),
    "tuple[str, ...]": lambda value: _all(_is_text, value),
    "tuple[int, ...]": lambda value: _all(_is_whole, value),
    "Mapping[str, Any] | None": lambda value: value is None or isinstance(value, dict),
    "Mapping[str, int]": lambda value: _all(_is_whole, value.values()),
    "Mapping[str, str]": lambda value: _all(_is_text, value.values()),
    "Mapping[str, Position]": lambda value: _all(_is_position, value.values()),
}
_ONE_OF = {
    "op": ("trade", "lookup", "order"),
    "phase": ("run", "settle", "verify", "orphan"),
    "step": ("begin", "broken", "healing", "healed", "recovered", "failed"),
}
# `op` → the fields that such a call must have.
_NEEDS = {"trade": ("name", "type", "quantity"), "lookup": ("name",), "order": ("number",)}


def _restored(key: str, value: Any) -> Any:
    if key in {"hits", "impairs", "in_sync", "parts", "problems"}:
        return tuple(value)
    return restored_positions(value) if key == "replicas" else value
