"""A copy of the service in containers, under a project name of its own."""

from __future__ import annotations

import json
import os
import secrets
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from bench import settings
from bench.model import Model, image_names, with_shared_images
from stack.compose import run_compose
from stack.containers import Stack, StackError

ROOT = Path(__file__).resolve().parents[1]

_BUILD_TIMEOUT_S = 900
_UP_TIMEOUT_S = 300
_DOWN_TIMEOUT_S = 120
_HTTP_PORT = "26111"
_USER = 10001  # of the images


class Images:
    """The images of this working tree, for any number of projects; removed at the end."""

    def __init__(self, engine: docker.DockerClient, say: Callable[[str], None]) -> None:
        self._engine = engine
        self._say = say
        self.name = f"bourse-bench-{secrets.token_hex(3)}"

    @cached_property
    def base(self) -> Model:
        """The service as compose.yaml has it, with a port of loopback that the engine chooses.

        Raises:
            ComposeFailed: it cannot be read.
        """
        environment = settings.for_docker() | {"BOURSE_PORT": "127.0.0.1:0"}
        # A file `.env` is for the person who wrote it.
        words = ["-p", self.name, "--env-file", os.devnull, "config", "--format", "json"]
        printed = run_compose(words, ROOT, _DOWN_TIMEOUT_S, environment)
        return with_shared_images(json.loads(printed), self.name)

    @contextmanager
    def built(self) -> Iterator[Model]:
        """Yields the base, its images built. Raises ComposeFailed."""
        self._say("building the images")
        with _file(self.base) as path:
            try:
                words = ["-f", str(path), "-p", self.name, "build", "--quiet"]
                run_compose(words, ROOT, _BUILD_TIMEOUT_S, settings.for_docker())
                yield self.base
            finally:
                self._remove()

    def _remove(self) -> None:
        for name in sorted(image_names(self.base)):
            try:
                self._engine.images.remove(name, force=True)
            except docker.errors.ImageNotFound:
                continue  # it was never built
            except DockerException as error:
                self._say(f"the image {name} stays: {error}")


class Project:
    """One running copy.

    Args:
        model: what runs, of images that are built.
        tag: tells several of one run apart.
    """

    def __init__(
        self,
        engine: docker.DockerClient,
        images: Images,
        model: Model,
        say: Callable[[str], None],
        tag: str = "",
    ) -> None:
        self._engine = engine
        self.name = f"{images.name}{tag and f'-{tag}'}"
        self._model = _renamed(model, self.name)
        self._say = say
        self.stack = Stack(engine, self.name)

    @contextmanager
    def up(self, data: Path | None = None) -> Iterator[None]:
        """Healthy inside, and gone with its volumes outside.

        Args:
            data: what the volumes hold at first, laid out as `stack.fill` does it.

        Raises:
            ComposeFailed, StackError: it cannot be brought up.
        """
        with ExitStack() as closing:
            self._path = closing.enter_context(_file(self._model))
            closing.callback(self._down)
            self._say(f"starting {self.name}: {len(self._model['services'])} containers")
            self._compose("up", "--no-build", "--no-start")
            if data is not None:
                self._fill(data)
            self._compose("up", "--no-build", "--wait")
            yield

    def url(self, service: str) -> str:
        return f"http://{self._compose('port', service, _HTTP_PORT).strip()}"

    def memory_mib(self) -> dict[str, float]:
        """Of each service that runs, without pages of files that give way. Raises StackError."""
        found: dict[str, float] = {}
        for name in self._model["services"]:
            container = self.stack.container(name)
            if container.status != "running":
                continue
            try:
                said = container.stats(stream=False, one_shot=True)["memory_stats"]
            except DockerException as error:
                raise StackError(f"the memory of {name}: {error}") from error
            files = said["stats"].get("inactive_file", 0)
            found[name] = (said["usage"] - files) / 2**20
        return found

    def _fill(self, data: Path) -> None:
        for name in self._model["services"]:
            if (data / name).is_dir():
                try:
                    container = self.stack.container(name)
                    # A volume's files belong to the user of the image.
                    with tempfile.TemporaryFile() as packed:
                        _pack(data / name, packed)
                        container.put_archive("/data", packed)
                except DockerException as error:
                    raise StackError(f"filling the volume of {name}: {error}") from error

    def _down(self) -> None:
        self._say(f"removing {self.name}")
        words = ("down", "--volumes", "--remove-orphans", "--timeout", "1")
        self._compose(*words, timeout_s=_DOWN_TIMEOUT_S)

    def _compose(self, *words: str, timeout_s: float = _UP_TIMEOUT_S) -> str:
        options = ["-f", str(self._path), "-p", self.name]
        return run_compose([*options, *words], ROOT, timeout_s, settings.for_docker())


def _renamed(model: Model, new: str) -> Model:
    """Networks and volumes named after another project; the images keep their names."""
    changed = dict(model, name=new)
    for kind in ("networks", "volumes"):
        changed[kind] = {
            name: {**(one or {}), "name": f"{new}_{name}"} for name, one in model[kind].items()
        }
    return changed


@contextmanager
def _file(model: Mapping[str, Any]) -> Iterator[Path]:
    """JSON is YAML, too."""
    with tempfile.TemporaryDirectory(prefix="bourse-bench-") as directory:
        path = Path(directory) / "compose.json"
        path.write_text(json.dumps(model), "utf-8")
        yield path


def _pack(directory: Path, into: Any) -> None:
    def owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = _USER
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(fileobj=into, mode="w") as archive:
        archive.add(directory, arcname=".", filter=owned)
    into.seek(0)
