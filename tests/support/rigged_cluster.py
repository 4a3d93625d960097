"""A cluster whose processes die, stop or wait at a chosen instant, or lack a mechanism."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from stack.processes import Part
from stack.waiting import wait_for
from tests.support.cluster import Cluster
from tests.support.points import POINTS

_FIRED_WITHIN_S = 15.0
_DOES_NOT_FIT = "AttributeError"


class RiggedCluster(Cluster):
    """
    Args:
        without: the mechanism of `tests.support.mechanisms` that its services lack.
    """

    def __init__(
        self, directory: Path, settings: Mapping[str, str] | None = None, without: str = ""
    ) -> None:
        self._fuses = directory / "fuses"
        self._fuses.mkdir()
        rig = {"BOURSE_RIG_POINTS": str(self._fuses), "BOURSE_RIG_WITHOUT": without}
        super().__init__(directory, {**rig, **(settings or {})})
        for part in self.parts.values():
            if "-m" in part.command:
                self.parts[part.name] = rigged(part)

    def arm(self, point: str, action: str = "KILL") -> None:
        """The next to come to the point is killed (KILL), stopped (STOP) or kept there (HOLD)."""
        assert point in POINTS
        fuse = self._fuses / point
        if action == "HOLD":
            fuse.with_name(f"{point}.held").touch()
        draft = self._fuses / "draft"
        draft.write_text(action)
        draft.rename(fuse)

    def has_fired(self, point: str) -> bool:
        return not (self._fuses / point).exists()

    def wait_fired(self, point: str) -> None:
        wait_for(lambda: self.has_fired(point), _FIRED_WITHIN_S, f"somebody comes to {point!r}")

    def release(self, point: str) -> None:
        """Lets the thread go on that is held there."""
        (self._fuses / f"{point}.held").unlink()

    def crashed(self) -> list[str]:
        """The parts that died by themselves, none of which counts as running any more."""
        dead = [name for name, process in self._running.items() if process.poll() is not None]
        for name in dead:
            assert self._running.pop(name).returncode == -signal.SIGKILL, self.log(name)
        return dead

    def wait_crashed(self) -> str:
        """The one part that dies by itself."""
        (name,) = wait_for(self.crashed, _FIRED_WITHIN_S, "a part dies")
        return name

    def note_stopped(self, name: str) -> None:
        """A part that a point has stopped: `resume` lets it go on."""
        self._paused.add(name)

    def close(self) -> None:
        dead = [name for name, process in self._running.items() if process.poll() is not None]
        for name in dead:
            del self._running[name]
        super().close()
        # Else a test that takes a mechanism out could be red because the rig does not fit any more.
        for part in self.parts:
            assert _DOES_NOT_FIT not in self.log(part), self.log(part)


def rigged(part: Part) -> Part:
    """The part, started by `tests.support.rigged`, which reads the rig from its environment."""
    python, dash_m, module = part.command
    return replace(part, command=(python, dash_m, "tests.support.rigged", module))


@contextmanager
def rigged_cluster(
    directory: Path, settings: Mapping[str, str] | None = None, without: str = ""
) -> Iterator[RiggedCluster]:
    with ExitStack() as stack:
        cluster = RiggedCluster(directory, settings, without)
        stack.callback(cluster.close)
        cluster.start_all()
        yield cluster
