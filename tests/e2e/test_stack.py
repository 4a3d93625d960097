"""The containers by themselves: what is in them, what they reach, how they start and stop."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from catalog.settings import CatalogSettings
from frontend.settings import FrontendSettings
from order.settings import OrderSettings
from stack.parts import ORDER_SERVICES, SERVICES
from stack.waiting import wait_for
from tests.e2e.stack import PYTHON_SERVICES, Stack

SETTINGS: dict[str, type[BaseSettings]] = {
    "frontend": FrontendSettings,
    "catalog": CatalogSettings,
    "order-1": OrderSettings,
    "order-3": OrderSettings,
}
# Where a container listens and keeps its data is the image's affair, which replica it is is
# compose.yaml's.
FIXED = {"HTTP_ADDRESS", "LISTEN_ADDRESS", "DATA_DIR", "ORDER_ID"}
SIDE_VOLUME = "/run/secrets/redis"
VOLUMES: dict[str, set[tuple[str, str]]] = {
    "edge": set(),
    "frontend": {("redis-frontend-secret", SIDE_VOLUME)},
    "catalog": {("catalog-data", "/data")},
    **{
        name: {(f"{name}-data", "/data"), ("redis-order-secret", SIDE_VOLUME)}
        for name in ORDER_SERVICES
    },
    "redis": {
        ("redis-frontend-secret", "/secrets/frontend"),
        ("redis-order-secret", "/secrets/order"),
    },
}


@pytest.fixture(scope="module")
def configured() -> Stack:
    """A project that is only looked at, with every setting set."""
    names = {field.upper() for kind in SETTINGS.values() for field in kind.model_fields}
    return Stack({name: f"set-{name}" for name in names - FIXED})


def services_of(stack: Stack) -> dict[str, dict[str, object]]:
    services: dict[str, dict[str, object]] = json.loads(
        stack.compose("config", "--format", "json")
    )["services"]
    return services


def test_compose_file_names_the_parts(configured: Stack) -> None:
    services = services_of(configured)
    assert set(services) == set(SERVICES)
    for service in services.values():
        assert "container_name" not in service
        assert service["healthcheck"]
        assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", SETTINGS)
def test_every_setting_reaches_its_service(configured: Stack, service: str) -> None:
    environment = services_of(configured)[service]["environment"]
    wanted = {name.upper() for name in SETTINGS[service].model_fields} - FIXED
    assert isinstance(environment, dict)
    assert {name: environment.get(name) for name in wanted} == {
        name: f"set-{name}" for name in wanted
    }


def test_defaults_are_the_services_own(stack: Stack) -> None:
    defaults = FrontendSettings.model_fields
    environment = services_of(stack)["frontend"]["environment"]
    assert isinstance(environment, dict)
    given = {name.lower(): value for name, value in environment.items() if value is not None}
    assert given == {
        "web_concurrency": "1",  # of each of two frontends
        "web_threads": str(defaults["web_threads"].default),
        "redis_url": "redis://frontend@redis:6379/0",
        "redis_password_file": f"{SIDE_VOLUME}/password",
    }


def test_only_the_edge_publishes_a_port(stack: Stack) -> None:
    published = {
        part: {port: hosts for port, hosts in stack.container(part).ports.items() if hosts}
        for part in stack.parts()
    }
    assert published.pop("edge") == {
        "26111/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]
    }
    assert not any(published.values())


def test_only_the_edge_leaves_the_inner_network(stack: Stack) -> None:
    assert stack.network("backend").attrs["Internal"]
    for part in stack.parts():
        networks = set(stack.container(part).attrs["NetworkSettings"]["Networks"])
        edge = {"edge"} if part == "edge" else set()
        assert networks == {f"{stack.project}_{name}" for name in {"backend", *edge}}


@pytest.mark.parametrize("service", PYTHON_SERVICES)
def test_stubs_import_from_the_working_directory(stack: Stack, service: str) -> None:
    stack.execute(service, "python", "-c", "from proto import bourse_pb2, bourse_pb2_grpc")


@pytest.mark.parametrize("service", PYTHON_SERVICES)
def test_image_holds_its_own_service_only(stack: Stack, service: str) -> None:
    found = set(stack.execute(service, "ls", "/app").split())
    assert found == {"common", "proto", service.rstrip("-123")}


UNCOMPILED = """
from importlib.util import cache_from_source
from pathlib import Path
for source in Path("/app").rglob("*.py"):
    if source.parent.name != "bin" and not Path(cache_from_source(source)).exists():
        print(source)
"""


@pytest.mark.parametrize("service", PYTHON_SERVICES)
def test_code_is_compiled_in_the_image(stack: Stack, service: str) -> None:
    assert stack.execute(service, "python", "-c", UNCOMPILED) == ""


def test_stores_keep_their_data_on_volumes(stack: Stack) -> None:
    for service in SERVICES:
        mounts = [m for m in stack.container(service).attrs["Mounts"] if m["Type"] == "volume"]
        found = {(mount["Name"], mount["Destination"]) for mount in mounts}
        assert found == {(f"{stack.project}_{name}", path) for name, path in VOLUMES[service]}


def test_redis_keeps_nothing_and_evicts_nothing(stack: Stack) -> None:
    for name, value in {"save": "", "appendonly": "no", "maxmemory": "0"}.items():
        answer = stack.execute("redis", "redis-cli", "config", "get", name)
        assert answer.split() == [name, *value.split()]


@pytest.mark.parametrize(
    ("service", "variable", "value"),
    [
        ("catalog", "CATALOG_THREADPOOL_SIZE", "x"),
        ("order-1", "ORDER_REPLICAS", "1=order-1"),
        ("frontend", "CACHE_SIZE", "0"),
    ],
)
def test_wrong_setting_stops_a_service_with_one_line(
    stack: Stack, service: str, variable: str, value: str
) -> None:
    code, said = stack.run_image(service, {"ORDER_ID": "1", variable: value})
    assert code != 0
    assert len(said.splitlines()) == 1
    assert variable in said
    assert value in said


@pytest.mark.slow
def test_parts_stop_gracefully_and_come_back(stack: Stack) -> None:
    """In the order in which `docker compose stop` takes them: SIGTERM reaches each process."""
    stack.compose("stop")
    codes = {part: stack.container(part).attrs["State"]["ExitCode"] for part in stack.parts()}
    assert codes == dict.fromkeys(stack.parts(), 0)
    stack.up()
    assert stack.get("/readyz")[0] == 200


def test_what_a_command_prints_is_not_lost_on_a_slow_machine(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there before this process reads the engine's answer."""
    getresponse = http.client.HTTPConnection.getresponse

    def late(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        time.sleep(0.3)
        return getresponse(connection)

    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", late)
    assert stack.execute("catalog", "echo", "here") == "here"


@pytest.mark.slow
def test_stack_is_healed_whatever_was_done_to_it(stack: Stack) -> None:
    stack.pause("order-1")
    stack.cut_off("order-2")
    stack.kill("order-3")
    stack.wipe("order-3")
    stack.cut_off("catalog")
    stack.kill("redis")
    assert stack.get("/readyz")[0] == 503
    stack.heal()
    trade = {"name": "stock1", "quantity": 1, "type": "SELL"}
    # Readiness is of one worker; another may still have to find out that the catalog has moved.
    wait_for(lambda: stack.request("POST", "/orders", trade)[0] == 200, 30, "a trade is done")


# A replica that stops at once, whatever is tried, and no Redis at all.
BROKEN = """
services:
  order-3: { environment: { ORDER_ID: none } }
  redis: { command: ["false"] }
"""


@pytest.mark.slow
def test_broken_parts_keep_nobody_from_starting(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    stack.compose("stop")
    files = ["-f", "compose.yaml", "-f", str(tmp_path / "broken.yaml")]
    stack.compose(*files, "up", "--detach")
    try:
        wait_for(stack.is_ready, 60, "the frontend is ready")
        trade = {"name": "stock2", "quantity": 1, "type": "SELL"}
        assert stack.request("POST", "/orders", trade)[0] == 200
        assert stack.get("/stocks?stockname=stock2")[0] == 200
        assert stack.health("order-3") != "healthy"
    finally:
        stack.up()  # whose containers are those of compose.yaml again
