"""A copy of the service in containers, under a project name of its own."""

from __future__ import annotations

import json
import secrets
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from bench.copies.meter import Meter, container_stats
from bench.copies.model import Model, edge_of, image_names, with_shared_images
from stack import settings
from stack.compose import Compose
from stack.containers import Containers
from stack.parts import StackError

_USER = 10001  # of the images


class Images:
    """The images of this working tree, for any number of projects; removed at the end.

    Args:
        added: puts services beside those of compose.yaml, each with its `build`.
        files: what to read in place of compose.yaml.
    """

    def __init__(
        self,
        engine: docker.DockerClient,
        say: Callable[[str], None],
        added: Callable[[Model], Model] = lambda model: model,
        files: Sequence[Path] = (),
    ) -> None:
        self._engine = engine
        self._say = say
        self._added = added
        self._files = files
        self.name = f"bourse-bench-{secrets.token_hex(3)}"

    @cached_property
    def base(self) -> Model:
        """The service as the files have it, with a port of loopback that the engine chooses.

        Raises:
            ComposeFailed: it cannot be read.
        """
        environment = settings.for_docker() | {"BOURSE_PORT": "127.0.0.1:0"}
        compose = Compose(self.name, self._files, environment)
        printed = compose.run("config", "--format", "json")
        return with_shared_images(self._added(json.loads(printed)), self.name)

    @contextmanager
    def built(self) -> Iterator[Model]:
        """Yields the base, its images built. Raises ComposeFailed."""
        self._say("building the images")
        with _file(self.base) as path:
            try:
                _compose(self.name, path).build()
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
        self.containers = Containers(engine, self.name)

    @contextmanager
    def up(self, data: Path | None = None) -> Iterator[None]:
        """Healthy inside, and gone with its volumes outside.

        Args:
            data: what the volumes hold at first, laid out as `stack.fill` does it.

        Raises:
            ComposeFailed, StackError: it cannot be brought up.
        """
        with ExitStack() as closing:
            compose = _compose(self.name, closing.enter_context(_file(self._model)))
            closing.callback(compose.remove)
            closing.callback(self._say, f"removing {self.name}")
            self._say(f"starting {self.name}: {len(self._model['services'])} services")
            compose.run("up", "--no-build", "--no-start")
            if data is not None:
                self._fill(data)
            compose.run("up", "--no-build", "--wait")
            yield

    def url(self, frontend: str = "frontend") -> str:
        """Of the edge in front of it. Raises StackError."""
        return self.containers.urls(edge_of(frontend))[0]

    def direct_url(self, frontend: str) -> str:
        """Of one that is reached without an edge. Raises StackError."""
        return self.containers.urls(frontend)[0]

    def memory_mib(self) -> dict[str, float]:
        """Of all containers of each service that runs, without pages of files that give way.

        Raises:
            StackError: it cannot be read.
        """
        found: dict[str, float] = {}
        for name in self._model["services"]:
            running = [one for one in self.containers.containers(name) if one.status == "running"]
            if running:
                found[name] = sum(_memory_mib(one) for one in running)
        return found

    def meter(self, parts: Mapping[str, Sequence[str]]) -> Meter:
        """Of services, each with all its containers, told by part. Raises StackError."""
        return Meter(
            {
                part: [one for name in services for one in self.containers.containers(name)]
                for part, services in parts.items()
            }
        )

    def _fill(self, data: Path) -> None:
        for name in self._model["services"]:
            if (data / name).is_dir():
                try:
                    container = self.containers.container(name)
                    # A volume's files belong to the user of the image.
                    with tempfile.TemporaryFile() as packed:
                        _pack(data / name, packed)
                        container.put_archive("/data", packed)
                except DockerException as error:
                    raise StackError(f"filling the volume of {name}: {error}") from error


def _memory_mib(container: Any) -> float:
    said = container_stats(container)["memory_stats"]
    return float(said["usage"] - said["stats"].get("inactive_file", 0)) / 2**20


def _compose(project: str, path: Path) -> Compose:
    return Compose(project, [path], settings.for_docker())


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
