"""What the two compose files together say of every container, as `docker compose` reads them."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest

from stack.compose import Compose
from stack.parts import (
    ETCD_SERVICES,
    HA_SERVICES,
    ONE_SHOTS,
    ORDER_SERVICES,
    POSTGRES_SERVICES,
    ROOT,
    SERVICES,
)
from stack.settings import for_docker

# `docker compose config` asks no engine, but is not there without one.
pytestmark = pytest.mark.containers

ALL = (*SERVICES, *HA_SERVICES, *ONE_SHOTS)
CATALOGS = ("catalog", "catalog-2")
FILES = (ROOT / "compose.yaml", ROOT / "compose.ha.yaml")
every_service = pytest.mark.parametrize("service", ALL)


@cache
def configured() -> dict[str, Any]:
    said = Compose("bourse", FILES, for_docker()).run("config", "--format", "json")
    config: dict[str, Any] = json.loads(said)
    return config


def of(service: str) -> dict[str, Any]:
    found: dict[str, Any] = configured()["services"][service]
    return found


def networks_of(service: str) -> set[str]:
    return set(of(service).get("networks") or ())


def volumes_of(service: str) -> dict[str, dict[str, Any]]:
    return {volume["target"]: volume for volume in of(service).get("volumes", ())}


def test_there_is_nothing_else() -> None:
    assert set(configured()["services"]) == set(ALL)


@every_service
def test_it_runs_as_nobody_special(service: str) -> None:
    found = of(service)
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["init"] is True
    assert not {"cap_add", "privileged", "user", "pid", "ipc", "devices"} & set(found)


@every_service
def test_what_it_takes_has_an_end(service: str) -> None:
    found = of(service)
    assert 0 < int(found["mem_limit"]) == int(found["memswap_limit"]) <= 512 * 2**20
    assert 0 < found["pids_limit"] <= 1024
    assert 0 < int(found["shm_size"]) <= 16 * 2**20
    assert set(found["logging"]["options"]) == {"max-size", "max-file"}
    assert all("size=" in one for one in found.get("tmpfs", ()))
    for volume in volumes_of(service).values():
        assert volume["type"] != "tmpfs" or int(volume["tmpfs"]["size"]) > 0


@every_service
def test_it_starts_again_and_says_how_it_is(service: str) -> None:
    found = of(service)
    if service in ONE_SHOTS:
        assert found["restart"] == "no"
        assert found["healthcheck"] == {"disable": True}
    else:
        assert found["restart"] == "unless-stopped"
        assert {"start_interval", "start_period", "test"} <= set(found["healthcheck"])
    assert found["stop_grace_period"] == "20s"


@every_service
def test_only_the_edge_is_reached_from_outside(service: str) -> None:
    assert bool(of(service).get("ports")) == (service == "edge")
    outside = {name for name in networks_of(service) if not is_inner(name)}
    assert outside == ({"edge"} if service == "edge" else set())
    kinds = {volume["type"] for volume in volumes_of(service).values()}
    assert ("bind" in kinds) == (service == "edge")


def is_inner(name: str) -> bool:
    return configured()["networks"][name].get("internal") is True


def test_both_inner_networks_have_no_address_of_this_machine() -> None:
    inner = [found for name, found in configured()["networks"].items() if is_inner(name)]
    assert len(inner) == 2
    for found in inner:
        assert found["driver_opts"] == {"com.docker.network.bridge.inhibit_ipv4": "true"}


def test_nobody_but_the_catalogs_reaches_the_database() -> None:
    """etcd has no passwords."""
    reaching = {service for service in ALL if "database" in networks_of(service)}
    assert reaching == {*CATALOGS, *POSTGRES_SERVICES, *ETCD_SERVICES, "database-init"}
    for service in (*POSTGRES_SERVICES, *ETCD_SERVICES):
        assert networks_of(service) == {"database"}


def test_the_catalogs_differ_only_in_their_disks() -> None:
    first, second = of("catalog"), of("catalog-2")
    assert {name for name in first if first[name] != second[name]} == {"volumes"}
    assert set(first) == set(second)
    assert networks_of("catalog") == {"backend", "database"}
    assert volumes_of("catalog")["/data"]["source"] == "catalog-data"
    assert volumes_of("catalog-2")["/data"]["type"] == "tmpfs"
    secrets = [volumes_of(name)["/run/passwords"] for name in CATALOGS]
    assert secrets[0] == secrets[1]


def test_clients_know_both_catalogs() -> None:
    for service in ("frontend", *ORDER_SERVICES):
        addresses = of(service)["environment"]["CATALOG_ADDRESS"].split(",")
        assert addresses == [f"{name}:50051" for name in CATALOGS]


@every_service
def test_no_environment_has_a_password(service: str) -> None:
    for name, value in (of(service).get("environment") or {}).items():
        assert "PASSWORD" not in name or name.endswith("_FILE")
        assert not re.search("://[^/@]*:[^/@]*@", str(value))


def test_each_side_mounts_only_its_own_passwords() -> None:
    mounted: dict[str, dict[str, bool]] = {"postgres-secret": {}, "catalog-secret": {}}
    for service in ALL:
        for volume in volumes_of(service).values():
            if volume.get("source") in mounted:
                mounted[volume["source"]][service] = volume.get("read_only", False)
    assert mounted == {
        "postgres-secret": {**dict.fromkeys(POSTGRES_SERVICES, True), "database-passwords": False},
        "catalog-secret": {
            **dict.fromkeys(CATALOGS, True),
            "database-passwords": False,
            "database-init": False,
        },
    }


@pytest.mark.parametrize("service", [*POSTGRES_SERVICES, *ETCD_SERVICES])
def test_nodes_have_volumes_of_their_own(service: str) -> None:
    assert volumes_of(service)["/data"]["source"] == f"{service}-data"


def test_limits_can_be_set() -> None:
    sizes = {"POSTGRES_MEMORY": "11m", "ETCD_MEMORY": "12m", "STORE_MEMORY": "13m"}
    pids = {"POSTGRES_PIDS": "21", "ETCD_PIDS": "22", "STORE_PIDS": "23"}
    compose = Compose("bourse", FILES, {**for_docker(), **sizes, **pids})
    services = json.loads(compose.run("config", "--format", "json"))["services"]
    for names, memory, count in (
        (POSTGRES_SERVICES, 11, 21),
        (ETCD_SERVICES, 12, 22),
        (CATALOGS, 13, 23),
    ):
        for name in names:
            assert int(services[name]["mem_limit"]) == memory * 2**20
            assert int(services[name]["memswap_limit"]) == memory * 2**20
            assert services[name]["pids_limit"] == count
