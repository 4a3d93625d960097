"""The health check of the gRPC services."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from common.health import is_serving
from stack.parts import CATALOG_SERVICE


@pytest.fixture
def servicer() -> health.HealthServicer:
    return health.HealthServicer()


@pytest.fixture
def address(servicer: health.HealthServicer) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_it_says_what_the_service_says(address: str, servicer: health.HealthServicer) -> None:
    assert is_serving(address)
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert not is_serving(address)


def test_a_service_can_be_asked_for_by_its_name(
    address: str, servicer: health.HealthServicer
) -> None:
    """A catalog that stands by is alive, and does not serve."""
    servicer.set(CATALOG_SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
    assert is_serving(address)
    assert not is_serving(address, service=CATALOG_SERVICE)
    assert not is_serving(address, service="no such service")
    servicer.set(CATALOG_SERVICE, health_pb2.HealthCheckResponse.SERVING)
    assert is_serving(address, service=CATALOG_SERVICE)


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_no_proxy_is_asked(address: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's client hands its proxy to every container."""
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert is_serving(address)


def test_nothing_there_is_not_serving() -> None:
    assert not is_serving("127.0.0.1:9", timeout_s=0.5)
