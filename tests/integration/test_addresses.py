"""Real processes that restart with each other's addresses."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from stack.waiting import wait_for
from tests.support.cluster import Cluster, running_cluster


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {"ENABLE_CACHE": "false"}
    with running_cluster(tmp_path_factory.mktemp("addresses"), settings) as cluster:
        yield cluster


def get(cluster: Cluster, path: str) -> int:
    """The status of the answer. The request is sent only once."""
    try:
        with urllib.request.urlopen(cluster.url + path, timeout=10) as answer:  # noqa: S310 - http
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def lookup(cluster: Cluster) -> int:
    return get(cluster, "/stocks?stockname=stock1")


def address_of(cluster: Cluster, name: str) -> str:
    return cluster.parts[name].environment["LISTEN_ADDRESS"]


@pytest.mark.slow
def test_a_replica_that_inherits_the_catalogs_address_is_taken_for_no_catalog(
    cluster: Cluster,
) -> None:
    assert lookup(cluster) == HTTPStatus.OK
    cluster.kill("catalog", "order-1")
    cluster.start("order-1", wait=False, LISTEN_ADDRESS=address_of(cluster, "catalog"))
    # A health check that names no service cannot see that this is a replica.
    wait_for(cluster.parts["catalog"].is_ready, 30, lambda: cluster.log("order-1"))
    for _ in range(2):
        assert lookup(cluster) == HTTPStatus.SERVICE_UNAVAILABLE
        assert get(cluster, "/readyz") == HTTPStatus.SERVICE_UNAVAILABLE
    cluster.kill("order-1")
    cluster.start("catalog")
    wait_for(lambda: lookup(cluster) == HTTPStatus.OK, 3, "a lookup is answered")
    assert get(cluster, "/readyz") == HTTPStatus.OK
