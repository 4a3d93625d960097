"""What an operator does to a running service: restarts part after part, and stops it all."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stack.parts import ORDER_SERVICES, SERVICES
from stack.waiting import wait_for
from tests.e2e.inside import leader
from tests.e2e.promises import check_promises
from tests.e2e.small_disks import trade
from tests.e2e.stack import Stack
from tests.support.load import Load, let_pass

CLIENTS = 4
# What each says last.
CLOSING = {
    "edge": "stopped (cumulated conns",
    "frontend": "Shutting down: Master",
    "catalog": "stopped, everything is on disk",
    **dict.fromkeys(ORDER_SERVICES, "stopped, last number"),
    "redis": "bye bye",
}
# Much less than what a stopping service lets requests in flight finish (SHUTDOWN_GRACE_S): it
# is spent only if something does not end by itself.
QUICK_S = 8


def restart(stack: Stack, service: str) -> None:
    stack.compose("restart", service)
    stack.wait_healthy(service)


def test_redis_restarts_and_nobody_notices(stack: Stack) -> None:
    load = Load(stack.url, CLIENTS)
    with load.running():
        let_pass(load, 20)
        restart(stack, "redis")
        let_pass(load, 20)
    assert load.problems == []  # nor was there a stale quote
    assert load.traffic.server_errors == 0


@pytest.mark.slow
def test_the_catalog_restarts_and_trades_wait_for_it(stack: Stack) -> None:
    load = Load(stack.url, CLIENTS)
    with load.running():
        let_pass(load, 20)
        restart(stack, "catalog")
        let_pass(load, 20)
    assert load.problems == []  # after repeats under the same key, of 503s alone
    assert set(load.traffic.answers) <= {200, 404, 503}
    assert trade(stack)[0] == 200
    check_promises(stack, load.acknowledged)


# ------------------------------------------------------------ stopping

# A subscriber, a stream of the journal that nobody reads on, a watch of a service's health.
OPEN = "/dev/shm/open"  # noqa: S108 - the only place that a frontend can write to
STREAMS = f"""
import grpc, time
from grpc_health.v1 import health_pb2, health_pb2_grpc
from proto import bourse_pb2, bourse_pb2_grpc
order, catalog = (grpc.insecure_channel(name + ":50051") for name in ("order-2", "catalog"))
updates = bourse_pb2_grpc.OrderServiceStub(order).StreamDBUpdates(bourse_pb2.Empty())
journal = bourse_pb2_grpc.CatalogServiceStub(catalog).Journal(bourse_pb2.SyncRequest())
watches = [
    health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    for channel in (order, catalog)
]
for stream in (journal, *watches):
    next(stream)
open("{OPEN}", "w").close()
time.sleep(60)
"""


@contextmanager
def streams_and_idle_connections(stack: Stack) -> Iterator[None]:
    """Everything that could hold up a stop for as long as it likes."""
    frontend = stack.container("frontend")
    stack.execute("frontend", "rm", "-f", OPEN)
    frontend.exec_run(["python", "-c", STREAMS], detach=True)
    wait_for(lambda: frontend.exec_run(["test", "-e", OPEN]).exit_code == 0, 20, "streams")
    keep_alive = http.client.HTTPConnection("127.0.0.1", stack.port)
    keep_alive.request("GET", "/healthz")
    keep_alive.getresponse().read()
    silent = socket.create_connection(("127.0.0.1", stack.port))
    try:
        yield
    finally:
        silent.close()
        keep_alive.close()


@contextmanager
def careless_load(stack: Stack) -> Iterator[dict[str, int]]:
    """Clients that do not mind whether they are answered; what they got is key → number."""
    acknowledged: dict[str, int] = {}
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            key = str(uuid.uuid4())
            try:
                status, _, body = trade(stack, key)
            except (OSError, http.client.HTTPException):
                stopping.wait(0.05)
                continue
            if status == 200:
                acknowledged[key] = body["data"]["transaction_number"]

    threads = [threading.Thread(target=run) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def assert_stopped_in_good_order(stack: Stack, service: str, since_s: float) -> None:
    container = stack.container(service)
    said = container.logs(since=since_s).decode()
    assert container.attrs["State"]["ExitCode"] == 0, said
    for word in ("Traceback", "ERROR", "CRITICAL"):
        assert word not in said, f"{service}:\n{said}"
    assert CLOSING[service] in said.splitlines()[-1], f"{service}:\n{said}"


@pytest.mark.slow
def test_all_stop_in_good_order_under_load(stack: Stack) -> None:
    assert trade(stack)[0] == 200
    since_s = time.time()
    with careless_load(stack) as acknowledged, streams_and_idle_connections(stack):
        wait_for(lambda: len(acknowledged) > 50, 20, lambda: len(acknowledged))
        stack.compose("stop")
    for service in SERVICES:
        assert_stopped_in_good_order(stack, service, since_s)
    stack.compose("down")  # the volumes stay
    stack.up()
    assert trade(stack)[0] == 200
    check_promises(stack, acknowledged)


@pytest.mark.parametrize(
    "service",
    [
        pytest.param("frontend", marks=pytest.mark.slow),
        pytest.param("catalog", marks=pytest.mark.slow),
        "order-2",
    ],
)
def test_nobody_holds_up_a_stop(stack: Stack, service: str) -> None:
    since_s = time.time()
    with streams_and_idle_connections(stack):
        began_s = time.monotonic()
        assert stack.stop(service) == 0
        assert time.monotonic() - began_s < QUICK_S
    assert_stopped_in_good_order(stack, service, since_s)


# HAProxy has no handler for SIGINT. Compose turns Ctrl-C into a stop, which it has.
@pytest.mark.slow
@pytest.mark.parametrize("service", [one for one in SERVICES if one != "edge"])
def test_ctrl_c_is_a_stop(stack: Stack, service: str) -> None:
    since_s = time.time()
    container = stack.container(service)
    container.kill("SIGINT")
    container.wait()
    assert_stopped_in_good_order(stack, service, since_s)


@pytest.mark.slow
def test_a_new_container_takes_over_the_volume(stack: Stack) -> None:
    """As an upgrade does it, one service at a time."""
    assert trade(stack)[0] == 200
    service = leader(stack)
    before = stack.container(service).id
    recreate = ["up", "--detach", "--wait", "--no-deps", "--build", "--force-recreate"]
    stack.compose(*recreate, service)
    assert stack.container(service).id != before
    assert trade(stack)[0] == 200
    check_promises(stack, {})
