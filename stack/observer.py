"""Watches the replicas from inside their network, through a container of the injector's own."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
from docker.errors import DockerException, NotFound

from stack.containers import helper_labels
from stack.observations import Final, Observation, Row, restored_positions
from stack.parts import StackError

_SCRIPT = Path(__file__).with_name("observer_script.py")
# Often enough to see a leader that leads too early; a look takes a few milliseconds.
_INTERVAL_S = 0.1
# Older than this, it says nothing of now.
_FRESH_S = 2.0
_RESTART_PAUSE_S = 0.5


class Observer:
    """Inside `with`, each thing seen is written; `latest` is the newest.

    Args:
        write: takes each observation, from a thread of the observer.
    """

    def __init__(
        self, engine: docker.DockerClient, project: str, write: Callable[[Observation], None]
    ) -> None:
        self._engine = engine
        self._project = project
        self._write = write
        self._latest: Observation | None = None
        self._stopping = threading.Event()
        self._container: Any = None
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)

    def latest(self) -> Observation | None:
        """None if nothing was seen just now."""
        latest = self._latest
        age_ns = time.monotonic_ns() - latest.until_ns if latest else 0
        return latest if age_ns <= _FRESH_S * 1e9 else None

    def __enter__(self) -> Self:
        self._container = self._start("watch", f"{_INTERVAL_S:g}")
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        remove(self._container)
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            with suppress(DockerException, OSError):  # it is started again; a gap shows in the page
                for said in json_lines(self._container):
                    self._see(said)
            if self._stopping.wait(_RESTART_PAUSE_S):
                return
            with suppress(StackError):
                remove(self._container)
                self._container = self._start("watch", f"{_INTERVAL_S:g}")
                if self._stopping.is_set():  # the call that stops it may have missed this one
                    remove(self._container)

    def _see(self, said: dict[str, Any]) -> None:
        positions = restored_positions(said["replicas"])
        self._latest = Observation(said["at_ns"], said["until_ns"], positions)
        self._write(self._latest)

    def read(self, above: int = -1) -> Iterator[tuple[int, str] | Row | Final]:
        """Reads what is stored, when nobody trades and everything is healed.

        It yields where the replicas' logs end (number, digest), then the journal's rows above
        `above` (-1: none), then the rest. It waits up to half a minute for the replicas to agree.
        If they do not, it yields what they say.

        Raises:
            StackError: it cannot be read.
        """
        container = self._start("read", str(above))
        try:
            is_complete = False
            for said in json_lines(container):
                if "opening" in said:
                    yield said["opening"]["last_number"], said["opening"]["digest"]
                elif "row" in said:
                    yield Row(**said["row"])
                else:
                    final = said["final"]
                    yield Final(**{**final, "replicas": restored_positions(final["replicas"])})
                    is_complete = True
            if not is_complete:
                errors = container.logs(stdout=False, tail=1).decode("utf-8", "replace").strip()
                raise StackError(f"the catalog could not be read: {errors}")
        except DockerException as error:
            raise StackError(f"the catalog could not be read: {error}") from error
        finally:
            remove(container)

    @contextmanager
    def orphans(
        self, service: str, stock: str, keys: Sequence[str]
    ) -> Iterator[Callable[[], None]]:
        """Yields a function that sends that replica a sale of one share for each key.

        It connects before, so that the trades wait in the socket of a paused replica.

        Raises:
            StackError: the replica cannot be reached.
        """
        container = self._start("orphans", service, stock, *keys)
        try:
            if next(json_lines(container), None) is None:
                raise StackError(f"{service} cannot be reached from inside")
            yield lambda: container.kill("SIGUSR1")
        except DockerException as error:
            raise StackError(f"sending trades to {service}: {error}") from error
        finally:
            remove(container)

    def _start(self, *arguments: str) -> Any:
        """A container of the catalog's image, which has all that speaking gRPC takes."""
        try:
            [like, *_] = self._engine.containers.list(
                all=True,
                filters={
                    "label": [
                        f"com.docker.compose.project={self._project}",
                        "com.docker.compose.service=catalog",
                    ]
                },
            )
            return self._engine.containers.run(
                like.attrs["Image"],
                ["python", "-c", _SCRIPT.read_text("utf-8"), *arguments],
                name=f"{self._project}-faults-observer-{secrets.token_hex(3)}",
                labels=helper_labels(self._project),
                network=f"{self._project}_backend",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                mem_limit="256m",
                init=True,
                log_config={"type": "json-file", "config": {"max-size": "50m"}},
                detach=True,
            )
        except (DockerException, OSError, ValueError) as error:
            raise StackError(f"the observer cannot be started: {error}") from error


def json_lines(container: Any) -> Iterator[dict[str, Any]]:
    """What it says, one object a line, until it ends."""
    rest = b""
    for piece in container.logs(stderr=False, stream=True, follow=True):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (json.loads(line) for line in lines if line)


def remove(container: Any) -> None:
    """Nothing happens to one that is gone."""
    with suppress(NotFound):
        container.remove(force=True)
