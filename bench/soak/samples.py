"""What is sampled of each container, and the file of it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Measure:
    title: str
    slack: float = 0.0  # so much more is no growth, whatever the level is
    grows: bool = False  # each trade adds to it, for ever
    of_all: bool = False  # every container has it


MEASURES: Mapping[str, Measure] = {
    "memory_mib": Measure("memory, MiB", slack=3, of_all=True),
    "files": Measure("open files", slack=8, of_all=True),
    "threads": Measure("threads", slack=4, of_all=True),
    # SQLite begins a log anew when it has reached 4 MiB.
    "wal_mib": Measure("write-ahead log, MiB", slack=4),
    "database_mib": Measure("database, MiB", grows=True),
    "text_mib": Measure("log as text, MiB", grows=True),
}

STEADY, FAULTS, AFTER = "steady", "faults", "after"


class Moment(NamedTuple):
    at_s: float  # since the load began
    phase: str  # STEADY, FAULTS or AFTER
    trades: int  # that the steady load has had acknowledged


@dataclass(frozen=True, slots=True)
class Sample:
    """Of one container. A value that it does not have, or that could not be read, is missing."""

    moment: Moment
    container: str
    values: Mapping[str, float] = field(default_factory=dict)


def containers_of(samples: Iterable[Sample]) -> list[str]:
    return list(dict.fromkeys(sample.container for sample in samples))


@contextmanager
def written(path: Path) -> Iterator[Callable[[Sample], None]]:
    """Yields a function that appends a line of CSV. Each line is on the disk at once."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow([*Moment._fields, "container", *MEASURES])

        def write(sample: Sample) -> None:
            moment = sample.moment._replace(at_s=round(sample.moment.at_s, 1))
            values = [sample.values.get(name) for name in MEASURES]
            shown = ["" if value is None else f"{value:.6g}" for value in values]
            lines.writerow([*moment, sample.container, *shown])
            file.flush()

        yield write
