"""The containers of a project, by an engine that fails now and then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError  # type: ignore[import-untyped]

from stack.containers import Containers
from stack.parts import HA_SERVICES, ONE_SHOTS, SERVICES, StackError

FREEZE = "OCI runtime pause failed: unable to freeze: unknown"


class Engine:
    """Has one container, which is also its list of containers."""

    def __init__(self, *failures: str) -> None:
        self.containers = self
        self.labels = {"com.docker.compose.container-number": "1"}
        self.failures = list(failures)
        self.status = "running"

    def list(self, **_filters: Any) -> list[Engine]:
        return [self]

    def pause(self) -> None:
        if self.failures:
            raise APIError(self.failures.pop())
        self.status = "paused"


def test_a_container_that_the_kernel_does_not_freeze_at_once_is_paused() -> None:
    engine = Engine(FREEZE, FREEZE)
    Containers(engine, "bourse").pause("order-1")  # type: ignore[arg-type]
    assert engine.status == "paused"


@pytest.mark.parametrize("failures", [[FREEZE] * 3, ["no such container"]])
def test_a_container_that_cannot_be_paused_is_said(failures: list[str]) -> None:
    engine = Engine(*failures)
    with pytest.raises(StackError, match=failures[0]):
        Containers(engine, "bourse").pause("order-1")  # type: ignore[arg-type]
    assert engine.failures == []


class Project:
    """An engine with the containers of one project, and its networks."""

    def __init__(self, services: Sequence[str]) -> None:
        self.containers = self
        self.networks = self
        self._services = services

    def list(self, filters: Mapping[str, Sequence[str]], **_options: Any) -> list[Any]:
        of_service = "com.docker.compose.service="
        named = [label for label in filters["label"] if label.startswith(of_service)]
        return [
            _Part(name) for name in self._services if not named or f"{of_service}{name}" in named
        ]

    def get(self, name: str) -> Any:
        subnet = {"bourse_backend": "172.18.0.0/16", "bourse_database": "172.19.0.0/16"}[name]
        return SimpleNamespace(attrs={"IPAM": {"Config": [{"Subnet": subnet}]}})


class _Part:
    def __init__(self, service: str) -> None:
        networks = {
            "postgres-1": ["bourse_database"],
            "catalog-2": ["bourse_backend", "bourse_database"],
            "edge": ["bourse_backend", "bourse_edge"],
        }.get(service, ["bourse_backend"])
        self.labels = {"com.docker.compose.service": service}
        self.attrs = {"NetworkSettings": {"Networks": {name: {} for name in networks}}}


def of(services: Sequence[str]) -> Containers:
    return Containers(Project(services), "bourse")  # type: ignore[arg-type]


def test_what_belongs_to_a_stack_is_told_by_its_containers() -> None:
    assert of(SERVICES).services() == SERVICES
    assert of([]).services() == SERVICES
    replicated = (*SERVICES, *HA_SERVICES)
    # Those that do their work and end are no parts. One of the others may be missing.
    assert of([*ONE_SHOTS, *replicated]).services() == replicated
    assert of([*SERVICES, "postgres-3"]).services() == replicated


def test_the_parts_of_a_replicated_stack() -> None:
    parts = of([*SERVICES, *HA_SERVICES, *ONE_SHOTS]).parts()
    assert set(parts) == {"frontend-1", *SERVICES, *HA_SERVICES} - {"frontend"}


@pytest.mark.parametrize(
    ("service", "subnets"),
    [
        ("order-1", ["172.18.0.0/16"]),
        ("edge", ["172.18.0.0/16"]),  # the clients still reach it
        ("postgres-1", ["172.19.0.0/16"]),
        ("catalog-2", ["172.18.0.0/16", "172.19.0.0/16"]),
    ],
)
def test_a_part_is_cut_off_from_each_inner_network_that_it_is_on(
    service: str, subnets: list[str]
) -> None:
    assert of([*SERVICES, *HA_SERVICES]).subnets(service) == subnets
