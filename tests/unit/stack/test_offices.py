"""Who holds an office: what the containers say, put together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stack.offices import ACTIVE, PRIMARY, STANDBY, STANDBY_CATALOG, Offices
from stack.parts import CATALOGS, POSTGRES_SERVICES, SERVICES

WHOLE = {"postgres-1": "replica", "postgres-2": "leader", "postgres-3": "sync_standby"}


def cluster(roles: dict[str, str], timeline: int = 1) -> str:
    """As Patroni says it, after the head of an HTTP answer."""
    members = [
        {
            "name": name,
            "role": role,
            "state": "running" if role == "leader" else "streaming",
            "timeline": timeline,
        }
        for name, role in roles.items()
    ]
    return "HTTP/1.0 200 OK\r\nServer: x\r\n\r\n" + json.dumps({"members": members})


class FakeContainers:
    """A replicated stack: which containers run, and what each says."""

    def __init__(self) -> None:
        self.running = {*SERVICES, *CATALOGS, *POSTGRES_SERVICES}
        self.there = set(self.running)
        self.active = {"catalog-2"}
        self.nodes = dict.fromkeys(POSTGRES_SERVICES, cluster(WHOLE))
        self.asked: list[str] = []

    def containers(self, service: str) -> list[str]:
        return [service] if service in self.there else []

    def running_services(self) -> set[str]:
        return self.running

    def attempt(self, service: str, *command: str) -> tuple[int, str]:
        self.asked.append(service)
        if service in CATALOGS:
            assert command[-1] == "bourse.v1.CatalogService"
            return (0 if service in self.active else 1), ""
        said = self.nodes[service]
        return (0, said) if said else (124, "")


@pytest.fixture
def containers() -> FakeContainers:
    return FakeContainers()


@pytest.fixture
def offices(containers: Any) -> Offices:
    return Offices(containers)


def test_each_office_has_its_holder(offices: Offices) -> None:
    assert offices.holders() == {
        ACTIVE: "catalog-2",
        STANDBY_CATALOG: "catalog",
        PRIMARY: "postgres-2",
        STANDBY: "postgres-3",
    }
    assert offices.primary() == "postgres-2"
    assert offices.database_is_whole()


def test_a_stack_with_one_catalog_has_no_offices(
    containers: FakeContainers, offices: Offices
) -> None:
    containers.running = containers.there = set(SERVICES)
    assert offices.holders() == {}
    assert containers.asked == []


def test_who_does_not_run_is_not_asked(containers: FakeContainers, offices: Offices) -> None:
    containers.running -= {"catalog", "postgres-1"}
    holders = offices.holders()
    assert (holders[ACTIVE], holders[STANDBY_CATALOG]) == ("catalog-2", "catalog")
    assert holders[PRIMARY] == "postgres-2"
    assert not {"catalog", "postgres-1"} & set(containers.asked)


@pytest.mark.parametrize("active", [set[str](), set(CATALOGS)])
def test_during_a_takeover_no_catalog_is_called_active(
    containers: FakeContainers, offices: Offices, active: set[str]
) -> None:
    containers.active = active
    assert set(offices.holders()) == {PRIMARY, STANDBY}


def test_a_node_that_was_cut_off_is_not_believed(
    containers: FakeContainers, offices: Offices
) -> None:
    """It still tells of the primary before, which it may be itself."""
    later = cluster({"postgres-3": "leader", "postgres-1": "sync_standby"}, timeline=2)
    containers.nodes |= {"postgres-1": later, "postgres-3": later}
    assert (offices.primary(), offices.holders()[STANDBY]) == ("postgres-3", "postgres-1")
    assert not offices.database_is_whole()


@pytest.mark.parametrize(
    "said", ["", "HTTP/1.0 503 x\r\n\r\n", cluster({"postgres-1": "replica"}), cluster({})]
)
def test_without_a_primary_nobody_holds_an_office_of_the_database(
    containers: FakeContainers, offices: Offices, said: str
) -> None:
    containers.nodes = dict.fromkeys(POSTGRES_SERVICES, said)
    assert offices.primary() is None
    assert set(offices.holders()) == {ACTIVE, STANDBY_CATALOG}
    assert not offices.database_is_whole()


def test_a_node_that_does_not_stream_leaves_the_database_incomplete(
    containers: FakeContainers, offices: Offices
) -> None:
    said = cluster(WHOLE).replace("streaming", "starting", 1)
    containers.nodes = dict.fromkeys(POSTGRES_SERVICES, said)
    assert not offices.database_is_whole()
    assert offices.members()["postgres-1"] == "replica starting"
