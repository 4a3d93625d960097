"""Processes that get SIGTERM: they answer the calls in flight, and always end with code 0."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from client.api import BourseClient
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.cluster import Cluster, running_cluster

TRADES = 8


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose leader waits for a paused catalog."""
    directory = tmp_path_factory.mktemp("patient")
    with running_cluster(directory, {"COMMIT_PATIENCE_S": "8"}) as cluster:
        yield cluster


@pytest.fixture
def cluster(patient: Cluster) -> Cluster:
    patient.heal()
    return patient


def a_trade() -> bourse_pb2.TradeRequest:
    return bourse_pb2.TradeRequest(
        request_id=str(uuid.uuid4()), name="stock3", type=bourse_pb2.BUY, quantity=1
    )


def test_a_leader_that_stops_answers_what_is_in_flight(cluster: Cluster) -> None:
    with BourseClient(cluster.url) as client:
        client.trade("stock3", 1, "BUY", str(uuid.uuid4()))  # makes the replicas elect a leader
    leader_id = cluster.leader_id()
    name = f"order-{leader_id}"
    before = len(cluster.journal())
    with cluster.replica(leader_id) as replica, ThreadPoolExecutor(TRADES) as pool:
        cluster.pause("catalog")
        requests = [a_trade() for _ in range(TRADES)]
        answers = [pool.submit(replica.call, "Trade", request) for request in requests]
        time.sleep(0.5)  # all have arrived: they are in a batch or wait for the next one
        cluster.signal(name, signal.SIGTERM)
        wait_for(lambda: "stopping" in cluster.log(name), 10, lambda: cluster.log(name))
        with cluster.replica(leader_id) as late, pytest.raises(grpc.RpcError) as refused:
            late.call("Trade", a_trade(), timeout_s=1.0)
        # On both, the frontend asks another replica.
        assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        cluster.resume("catalog")
        numbers = {
            request.request_id: answer.result().transaction_number
            for request, answer in zip(requests, answers, strict=True)
        }
    assert cluster.wait(name) == 0
    assert sorted(numbers.values()) == list(range(before + 1, before + 1 + TRADES))
    cluster.start(name)
    with BourseClient(cluster.url) as client:  # the next leader has all orders
        client.trade("stock3", 1, "BUY", str(uuid.uuid4()))
    cluster.check_promises(numbers)


@pytest.mark.parametrize(
    "name", ["catalog", "order-2", pytest.param("frontend", marks=pytest.mark.slow)]
)
def test_a_part_stops_cleanly_before_it_is_ready(cluster: Cluster, name: str) -> None:
    cluster.stop(name)
    for signals in ([signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]):
        before = len(cluster.log(name))
        cluster.start(name, wait=False)
        wait_for(lambda: cluster.catches(name, signal.SIGTERM), 30, lambda: cluster.log(name))
        for number in signals:
            cluster.signal(name, number)
        code = cluster.wait(name)
        said = cluster.log(name)[before:]
        assert code == 0, said
        for word in ("Traceback", "ERROR", "CRITICAL"):
            assert word not in said, said
