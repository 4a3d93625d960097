"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    promise: str  # G1 …
    title: str
    held: bool | None  # None: it could not be judged, and counts as not held
    examined: str
    violations: tuple[str, ...]  # the first few of them
    violation_count: int


@dataclass(frozen=True, slots=True)
class Judgement:
    verdicts: tuple[Verdict, ...]

    @property
    def held(self) -> bool:
        return all(verdict.held for verdict in self.verdicts)


class Findings:
    """Collects the violations of one promise, or the reason why it could not be judged."""

    def __init__(self, promise: str, title: str) -> None:
        self._promise = promise
        self._title = title
        self._shown: list[str] = []
        self._count = 0
        self._obstacles: list[str] = []

    def wrong(self, what: str) -> None:
        self._count += 1
        if len(self._shown) < _SHOWN:
            self._shown.append(what)

    def cannot_judge(self, why: str) -> None:
        self._obstacles.append(why)

    def verdict(self, examined: str) -> Verdict:
        """A violation counts even if other things could not be judged."""
        held = False if self._count else None if self._obstacles else True
        text = "; ".join([examined, *self._obstacles])
        return Verdict(self._promise, self._title, held, text, tuple(self._shown), self._count)


def counted(count: int, singular: str, plural: str = "") -> str:
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
