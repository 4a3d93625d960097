"""What the measuring tools change in the compose file, and what they leave as it is."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from bench.copies.model import (
    Contents,
    image_names,
    with_direct_frontend,
    with_floors,
    with_frontend,
    with_one_container,
    with_plain,
    with_rare_probes,
    with_replicas,
    with_settings,
    with_shared_images,
)
from stack import settings
from stack.parts import ROOT

CONTENTS = Contents(orders=30, stocks=20, volume=10)
LIMITS = {"mem_limit": "1", "pids_limit": 9, "networks": {"backend": None, "edge": None}}


def order(number: int) -> dict[str, Any]:
    return {
        **LIMITS,
        "build": {"context": "/", "dockerfile": "Dockerfile.order"},
        "environment": {"ORDER_ID": str(number), "ORDER_REPLICAS": None},
        "healthcheck": {"test": ["CMD", "true"]},
        "depends_on": {"catalog": {}},
        "volumes": [
            {"type": "volume", "source": f"order-{number}-data", "target": "/data"},
            {"type": "volume", "source": "secret", "target": "/run/secrets/redis"},
        ],
    }


@pytest.fixture
def composed() -> dict[str, Any]:
    services: dict[str, Any] = {f"order-{number}": order(number) for number in (1, 2, 3)}
    services["frontend"] = {
        **LIMITS,
        "build": {"context": "/", "dockerfile": "Dockerfile.frontend"},
        "environment": {"WEB_CONCURRENCY": "2", "WEB_THREADS": "7", "ORDER_REPLICAS": None},
        "ports": [{"host_ip": "127.0.0.1", "published": "0", "target": 26111}],
        "healthcheck": {"test": ["CMD", "true"]},
        "depends_on": {f"order-{number}": {"condition": "x"} for number in (1, 2, 3)},
    }
    services["frontend"]["deploy"] = {"replicas": 2}
    del services["frontend"]["ports"]
    services["frontend"]["networks"] = {"backend": None}
    services["edge"] = {
        **LIMITS,
        "build": {"context": "/", "dockerfile": "Dockerfile.edge"},
        "environment": {"WEB_CONCURRENCY": "2", "RATE_LIMIT": None},
        "ports": [{"host_ip": "127.0.0.1", "published": "0", "target": 26111}],
        "depends_on": {"frontend": {"condition": "x"}},
    }
    services["catalog"] = {
        **LIMITS,
        "build": {"context": "/", "dockerfile": "Dockerfile.catalog"},
        "environment": {},
        "healthcheck": {"test": ["CMD", "true"], "timeout": "5s"},
    }
    volumes = {f"order-{number}-data": {"name": f"x_order-{number}-data"} for number in (1, 2, 3)}
    return {"services": services, "volumes": volumes}


@pytest.fixture
def base(composed: dict[str, Any]) -> dict[str, Any]:
    return with_shared_images(composed, "tag")


def test_services_of_one_dockerfile_share_an_image_that_is_built_once(base: dict[str, Any]) -> None:
    services = base["services"]
    assert image_names(base) == {"tag-order", "tag-frontend", "tag-catalog", "tag-edge"}
    assert sum("build" in service for service in services.values()) == 4
    assert {service["pull_policy"] for service in services.values()} == {"never"}


def test_the_model_that_was_given_stays_as_it_is(
    composed: dict[str, Any], base: dict[str, Any]
) -> None:
    before = deepcopy(composed)
    with_plain(composed, CONTENTS)
    assert composed == before
    before = deepcopy(base)
    with_rare_probes(base)
    with_settings(base, "frontend", {"CACHE_SIZE": "9"})
    with_frontend(base, "another", {"CACHE_SIZE": "9"})
    with_direct_frontend(base, "direct")
    with_one_container(base, "frontend")
    with_replicas(base, 5)
    with_floors(base)
    assert base == before


def test_another_frontend_differs_in_its_settings_only(base: dict[str, Any]) -> None:
    services = with_frontend(base, "another", {"ENABLE_CACHE": "false"})["services"]
    another = services["another"]
    assert another["environment"] == {
        **services["frontend"]["environment"],
        "ENABLE_CACHE": "false",
    }
    assert {**another, "environment": 0} == {
        **{name: value for name, value in services["frontend"].items() if name != "build"},
        "environment": 0,
    }


def test_each_frontend_has_an_edge_of_its_own(base: dict[str, Any]) -> None:
    settings = {"WEB_CONCURRENCY": "4", "CACHE_SIZE": "9"}
    services = with_frontend(base, "frontend-uncached", settings)["services"]
    edge = services["edge-uncached"]
    assert edge["environment"] == {
        "WEB_CONCURRENCY": "4",  # which says how many requests a frontend takes at once
        "RATE_LIMIT": None,
        "FRONTEND_ADDRESS": "frontend-uncached:26111",
    }
    assert edge["depends_on"] == {"frontend-uncached": {"condition": "x"}}
    assert edge["ports"] == services["edge"]["ports"]
    assert "FRONTEND_ADDRESS" not in services["edge"]["environment"]


def test_a_direct_frontend_has_the_workers_of_all_behind_the_edge(base: dict[str, Any]) -> None:
    direct = with_direct_frontend(base, "frontend-direct")["services"]["frontend-direct"]
    assert direct["environment"]["WEB_CONCURRENCY"] == "4"
    assert direct["deploy"]["replicas"] == 1
    edge = base["services"]["edge"]
    assert (direct["ports"], direct["networks"]) == (edge["ports"], edge["networks"])


def test_floors_run_under_the_limits_and_settings_of_the_frontend(base: dict[str, Any]) -> None:
    services = with_floors(base)["services"]
    for name in ("floor-hello", "floor-hop"):
        for shared in (*LIMITS, "image", "environment", "deploy", "healthcheck"):
            assert services[name][shared] == services["frontend"][shared]
        assert not services[name]["depends_on"]
        assert "build" not in services[name]
        edge = services[f"edge-{name}"]["environment"]
        assert edge["FRONTEND_ADDRESS"] == f"{name}:26111"
    assert services["floor-hello"]["command"][-1] == "hello"
    assert services["floor-hop"]["command"][-2:] == ["hop", "floor-peer:50051"]
    peer = services["floor-peer"]
    assert (peer["image"], peer["volumes"]) == ("tag-order", [])
    assert {name: peer[name] for name in LIMITS} == LIMITS
    for name in ("floor-hello", "floor-hop", "floor-peer"):
        text = " ".join(services[name]["command"])
        assert "$" not in text.replace("$$", ""), "compose would put a variable there"


def test_the_rival_runs_under_the_same_limits_behind_an_edge(composed: dict[str, Any]) -> None:
    model = with_shared_images(with_plain(composed, CONTENTS), "tag")
    services = model["services"]
    plain, postgres = services["plain"], services["postgres"]
    for shared in (*LIMITS, "deploy", "healthcheck"):
        assert plain[shared] == services["frontend"][shared]
    # As many workers and threads as a frontend, and the database in place of all else.
    assert plain["environment"]["WEB_CONCURRENCY"] == "2"
    assert plain["environment"]["GUNICORN_CMD_ARGS"] == "--threads 7"
    assert plain["environment"]["PGHOST"] == "postgres"
    assert plain["depends_on"].keys() == {"postgres"}
    edge = services["edge-plain"]
    assert edge["environment"]["FRONTEND_ADDRESS"] == "plain:26111"
    assert edge["image"] == services["edge"]["image"]
    assert {name: postgres[name] for name in LIMITS} == LIMITS
    assert postgres["environment"] == {"ORDERS": "30", "STOCKS": "20", "VOLUME": "10"}
    assert [volume["source"] for volume in postgres["volumes"]] == ["postgres-data"]
    assert "postgres-data" in model["volumes"]


def test_the_images_of_the_rival_are_built_once_from_files_that_exist(
    composed: dict[str, Any],
) -> None:
    model = with_shared_images(with_plain(composed, CONTENTS), "tag")
    services = with_rare_probes(with_floors(model))["services"]
    built = [one["build"]["dockerfile"] for one in services.values() if "build" in one]
    assert len(built) == len(set(built)) == 6
    assert services["plain"]["image"] == "tag-plain"
    assert services["postgres"]["image"] == "tag-postgres"
    for name in built:
        assert (ROOT / name).is_file()
    for service in ("plain", "postgres"):
        dockerfile = ROOT / services[service]["build"]["dockerfile"]
        assert dockerfile.with_name(f"{dockerfile.name}.dockerignore").is_file()


def test_healthy_containers_are_left_alone_while_they_are_measured(base: dict[str, Any]) -> None:
    services = with_rare_probes(base)["services"]
    checks = [one["healthcheck"] for one in services.values() if "healthcheck" in one]
    assert len(checks) == 5
    assert {check["interval"] for check in checks} == {"24h"}
    assert services["catalog"]["healthcheck"]["timeout"] == "5s"


def test_a_service_that_checks_nothing_is_left_as_it_is(base: dict[str, Any]) -> None:
    base["services"]["database-init"] = {"healthcheck": {"disable": True}}
    services = with_rare_probes(base)["services"]
    assert services["database-init"] == base["services"]["database-init"]


@pytest.mark.parametrize("count", [3, 5])
def test_replicas_know_each_other_and_have_volumes_of_their_own(
    base: dict[str, Any], count: int
) -> None:
    model = with_replicas(base, count)
    services = model["services"]
    replicas = [services[f"order-{number}"] for number in range(1, count + 1)]
    known = ",".join(f"{number}=order-{number}:50051" for number in range(1, count + 1))
    for asking in (*replicas, services["frontend"]):
        assert asking["environment"]["ORDER_REPLICAS"] == known
    assert [one["environment"]["ORDER_ID"] for one in replicas] == [
        str(number) for number in range(1, count + 1)
    ]
    data = [one["volumes"][0]["source"] for one in replicas]
    assert len(set(data)) == count
    assert set(data) <= model["volumes"].keys()
    assert len([name for name in services if name.startswith("order-")]) == count
    assert set(services["frontend"]["depends_on"]) == {f"order-{n}" for n in range(1, count + 1)}


def test_what_a_shell_sets_for_the_service_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_SIZE", "9")
    monkeypatch.setenv("DOCKER_HOST", "unix:///somewhere")
    taken = settings.for_docker()
    assert "CACHE_SIZE" not in taken
    assert taken["DOCKER_HOST"] == "unix:///somewhere"
    assert "PATH" in taken
