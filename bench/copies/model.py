"""The compose file as data, as `docker compose config` prints it, and the changes for a copy.

Added services are copies of existing ones, so they have the same image, limits and networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

Model = dict[str, Any]

_FLOORS = Path(__file__).with_name("floors")
_RIVAL = "bench/copies/rival"
_PORT = 50051
_HTTP_PORT = 26111


class Contents(NamedTuple):
    """What the rival's database holds at first."""

    orders: int
    stocks: int
    volume: int  # of each stock


def with_shared_images(model: Model, prefix: str) -> Model:
    """One image for all services of one Dockerfile, under a name that several projects can use."""
    changed = deepcopy(model)
    built: set[str] = set()
    for service in changed["services"].values():
        kind = Path(service["build"]["dockerfile"]).suffix[1:]
        service["image"] = f"{prefix}-{kind}"
        service["pull_policy"] = "never"
        if kind in built:
            del service["build"]
        built.add(kind)
    return changed


def image_names(model: Model) -> set[str]:
    return {str(service["image"]) for service in model["services"].values()}


def with_settings(model: Model, service: str, settings: Mapping[str, str]) -> Model:
    """Those of a frontend are its edge's too, as far as the edge knows them."""
    changed = deepcopy(model)
    services = changed["services"]
    services[service]["environment"].update(settings)
    edge = services.get(edge_of(service), {"environment": {}})["environment"]
    edge.update({name: value for name, value in settings.items() if name in edge})
    return changed


def with_frontend(model: Model, name: str, settings: Mapping[str, str]) -> Model:
    """Another frontend of the same service, set otherwise, behind an edge of its own."""
    changed = deepcopy(model)
    services = changed["services"]
    services[name] = _copy(model, "frontend")
    edge = services[edge_of(name)] = _copy(model, "edge")
    edge["environment"]["FRONTEND_ADDRESS"] = f"{name}:{_HTTP_PORT}"
    edge["depends_on"] = {name: edge["depends_on"]["frontend"]}
    return with_settings(changed, name, settings)


def with_direct_frontend(model: Model, name: str) -> Model:
    """Another frontend without an edge: one container with as many workers as all of the others."""
    changed = deepcopy(model)
    edge = model["services"]["edge"]
    direct = changed["services"][name] = _copy(model, "frontend")
    direct["ports"], direct["networks"] = deepcopy(edge["ports"]), deepcopy(edge["networks"])
    workers = int(direct["environment"]["WEB_CONCURRENCY"]) * direct["deploy"]["replicas"]
    direct["environment"]["WEB_CONCURRENCY"] = str(workers)
    direct["deploy"] = {**direct["deploy"], "replicas": 1}
    return changed


def with_port(model: Model, port: int) -> Model:
    """The edge on this port of loopback: one that the engine chose would change at a restart."""
    changed = deepcopy(model)
    [published] = changed["services"]["edge"]["ports"]
    published["published"] = str(port)
    return changed


def with_one_container(model: Model, service: str) -> Model:
    changed = deepcopy(model)
    changed["services"][service]["deploy"]["replicas"] = 1
    return changed


def edge_of(frontend: str) -> str:
    """`edge` for `frontend`, `edge-uncached` for `frontend-uncached`, `edge-floor-hop`."""
    return "edge" if frontend == "frontend" else f"edge-{frontend.removeprefix('frontend-')}"


def with_replicas(model: Model, count: int) -> Model:
    """So many order replicas, `order-1` and on."""
    changed = deepcopy(model)
    services, frontend = changed["services"], changed["services"]["frontend"]
    for number in range(4, count + 1):
        replica = services[f"order-{number}"] = _copy(model, "order-3")
        replica["environment"]["ORDER_ID"] = str(number)
        for volume in replica["volumes"]:
            if volume["target"] == "/data":
                volume["source"] = f"order-{number}-data"
        changed["volumes"][f"order-{number}-data"] = {}
        frontend["depends_on"][f"order-{number}"] = dict(frontend["depends_on"]["order-3"])
    addresses = [f"{number}=order-{number}:{_PORT}" for number in range(1, count + 1)]
    for service in services.values():
        if "ORDER_REPLICAS" in service.get("environment", {}):
            service["environment"]["ORDER_REPLICAS"] = ",".join(addresses)
    return changed


def with_floors(model: Model) -> Model:
    """Beside the service, each behind an edge: `floor-hello`, and `floor-hop`.

    The hop calls `floor-peer`.
    """
    changed = model
    for name in ("floor-hello", "floor-hop"):
        changed = with_frontend(changed, name, {})
    services = changed["services"]
    web = (_FLOORS / "web.py").read_text("utf-8")
    for name, *words in (("hello",), ("hop", f"floor-peer:{_PORT}")):
        floor = services[f"floor-{name}"]
        floor["command"] = _escaped("python", "-c", web, name, *words)
        floor["depends_on"] = {}
    peer = services["floor-peer"] = _copy(model, "order-1")
    peer["command"] = _escaped("python", "-c", (_FLOORS / "nothing.py").read_text("utf-8"))
    peer["depends_on"] = {}
    peer["volumes"] = []
    del peer["healthcheck"]  # the hop's own check calls it
    return changed


def with_plain(model: Model, contents: Contents) -> Model:
    """Beside the service, its rival behind an edge: `plain`, and its database `postgres`.

    Both have images of their own. So this comes before `with_shared_images`.
    """
    changed = with_frontend(model, "plain", {})
    services = changed["services"]
    plain = services["plain"]
    web = plain["environment"]
    plain["build"] = _built(plain, "plain")
    plain["environment"] = {
        "WEB_CONCURRENCY": web["WEB_CONCURRENCY"],
        "GUNICORN_CMD_ARGS": f"--threads {web['WEB_THREADS']}",
        "PGHOST": "postgres",
        "PGUSER": "plain",
        "PGDATABASE": "postgres",
    }
    plain["volumes"] = []
    plain["depends_on"] = {"postgres": {"condition": "service_healthy", "required": True}}
    postgres = services["postgres"] = _copy(model, "catalog")
    postgres["build"] = _built(postgres, "postgres")
    postgres["environment"] = {name.upper(): str(n) for name, n in contents._asdict().items()}
    postgres["volumes"] = [{"type": "volume", "source": "postgres-data", "target": "/data"}]
    # It has its counters there. This is what Docker gives by default.
    postgres["shm_size"] = str(64 * 2**20)
    check = ["CMD", "pg_isready", "--quiet", "--host", "127.0.0.1"]
    postgres["healthcheck"] = {**postgres["healthcheck"], "test": check}
    changed["volumes"]["postgres-data"] = {}
    return changed


def with_rare_probes(model: Model) -> Model:
    """Containers check themselves only until they are healthy.

    Each check is a process in the container. Its time would count as time of the requests.
    """
    changed = deepcopy(model)
    for service in changed["services"].values():
        if not service.get("healthcheck", {"disable": True}).get("disable"):
            # The checks of the start are frequent in this time, and longer than it nobody waits.
            service["healthcheck"].update(start_period="10m", interval="24h")
    return changed


def _built(service: Model, kind: str) -> Model:
    return {**service["build"], "dockerfile": f"{_RIVAL}/Dockerfile.{kind}"}


def _copy(model: Model, service: str) -> Model:
    """To run the image of the original; it is built once, where they share it."""
    copied: Model = deepcopy(model["services"][service])
    if "image" in copied:
        copied.pop("build", None)
    return copied


def _escaped(*words: str) -> list[str]:
    """As compose reads them: without variables in them."""
    return [word.replace("$", "$$") for word in words]
