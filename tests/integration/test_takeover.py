"""Another catalog takes over from the active one: clients wait, and nobody gets an error.

Their clients repeat nothing.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from http import HTTPStatus

import pytest

from client.api import Answer, BourseClient, RetryPolicy
from stack.waiting import wait_for
from tests.support.cluster import Cluster
from tests.support.threads import working
from tests.support.two_catalogs import Doors, two_catalogs

STOCKS = [f"stock{number}" for number in range(1, 11)]  # more than the cache holds
NO_ORDER = 1_000_000
WAIT_S = 3.0  # beyond the takeover itself

Act = Callable[[BourseClient, str], Answer]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Doors]]:
    cluster = Cluster(tmp_path_factory.mktemp("takeover"))
    try:
        with two_catalogs(cluster) as doors:
            cluster.start_all()
            yield cluster, doors
    finally:
        cluster.close()


@pytest.fixture
def cluster(shared: tuple[Cluster, Doors]) -> Cluster:
    """All its parts run, and one of them leads."""
    cluster, doors = shared
    doors.heal()
    cluster.heal()
    with BourseClient(cluster.url) as client:
        assert client.trade(STOCKS[0], 1, "BUY", str(uuid.uuid4())).status == HTTPStatus.OK
    return cluster


@pytest.fixture
def doors(shared: tuple[Cluster, Doors]) -> Doors:
    return shared[1]


class Clients:
    """Trade with and without a key, look up quotes and orders, and repeat nothing."""

    def __init__(self, url: str) -> None:
        self.acknowledged: dict[str, int] = {}  # request id -> order number
        self.keyless: list[int] = []  # order numbers
        self.problems: list[str] = []
        self.slowest_s = 0.0
        self.answers = 0
        self._url = url
        self._changing = threading.Lock()
        self._stopping = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        acts: list[tuple[Act, HTTPStatus]] = [
            (self._trade, HTTPStatus.OK),
            (self._trade_without_a_key, HTTPStatus.OK),
            (self._look_up, HTTPStatus.OK),
            (self._look_for_an_order, HTTPStatus.NOT_FOUND),
        ]
        works = [partial(self._run, act, right, seed) for seed, (act, right) in enumerate(acts * 2)]
        with working(works, self._stopping):
            yield

    def let_pass(self, answers: int) -> None:
        wanted = self.answers + answers
        wait_for(lambda: self.answers >= wanted, 30, lambda: f"{self.answers} of {wanted}")

    def _run(self, act: Act, right: HTTPStatus, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        with BourseClient(self._url, retry=RetryPolicy(attempts=1)) as client:
            while not self._stopping.is_set():
                began_at = time.monotonic()
                try:
                    answer = act(client, chance.choice(STOCKS))
                    problem = "" if answer.status == right else f"{answer}"
                except Exception as error:  # the thread must not end in silence
                    problem = f"{type(error).__name__}: {error}"
                with self._changing:
                    self.answers += 1
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began_at)
                    self.problems += [f"{act.__name__}: {problem}"] if problem else []

    def _trade(self, client: BourseClient, stock: str) -> Answer:
        key = str(uuid.uuid4())
        answer = client.trade(stock, 1, "BUY", key)
        if answer.status == HTTPStatus.OK:
            self.acknowledged[key] = int(answer.data["transaction_number"])
        return answer

    def _trade_without_a_key(self, client: BourseClient, stock: str) -> Answer:
        answer = client.trade(stock, 1, "SELL")
        if answer.status == HTTPStatus.OK:
            self.keyless.append(int(answer.data["transaction_number"]))
        return answer

    def _look_up(self, client: BourseClient, stock: str) -> Answer:
        return client.lookup(stock)

    def _look_for_an_order(self, client: BourseClient, _stock: str) -> Answer:
        """That no trade has got this number, only the catalog's journal can say."""
        return client.order(NO_ORDER)

    def check(self, cluster: Cluster, takeover_s: float) -> None:
        assert self.problems == []
        assert self.slowest_s < takeover_s + WAIT_S
        assert len(self.keyless) == len(set(self.keyless))
        journal = cluster.check_promises(self.acknowledged)
        assert set(self.keyless) <= {row.number for row in journal}


def kill(doors: Doors) -> None:
    doors.active.kill()


def pause(doors: Doors) -> None:
    doors.active.pause()


@pytest.mark.parametrize("fault", [kill, pause])
@pytest.mark.parametrize("takeover_s", [1.5, 3.0])
def test_a_takeover_costs_time_and_no_error(
    cluster: Cluster, doors: Doors, fault: Callable[[Doors], None], takeover_s: float
) -> None:
    leader = cluster.leader_id()
    led = cluster.status(leader)
    clients = Clients(cluster.url)
    with clients.running():
        clients.let_pass(50)
        fault(doors)
        time.sleep(takeover_s)
        doors.take_over()
        clients.let_pass(100)
        doors.standby.come_back()
        clients.let_pass(50)
    print(f"\n{fault.__name__}, active after {takeover_s} s: slowest {clients.slowest_s:.2f} s")
    clients.check(cluster, takeover_s)
    leads = cluster.status(leader)
    assert led is not None
    assert leads is not None
    assert (leads.role, leads.epoch) == ("leader", led.epoch), "it stepped down for a takeover"


def test_a_machine_is_lost_with_the_active_catalog_and_the_leader(
    cluster: Cluster, doors: Doors
) -> None:
    takeover_s = 2.0
    clients = Clients(cluster.url)
    with clients.running():
        clients.let_pass(50)
        leader = f"order-{cluster.leader_id()}"
        kill(doors)
        cluster.kill(leader)
        time.sleep(takeover_s)
        doors.take_over()
        clients.let_pass(100)
    doors.standby.come_back()
    cluster.start(leader)
    print(f"\nleader and catalog lost: slowest {clients.slowest_s:.2f} s")
    clients.check(cluster, takeover_s)


def test_readiness_is_that_some_catalog_is_active(cluster: Cluster, doors: Doors) -> None:
    ready = HTTPStatus.OK, {"data": {"status": "ready"}}
    assert readiness(cluster) == ready
    doors.active.kill()
    doors.active.come_back()  # both are alive, and neither is active
    status, body = readiness(cluster)
    assert status == HTTPStatus.SERVICE_UNAVAILABLE
    assert "the catalog does not answer" in str(body)
    doors.take_over()
    assert readiness(cluster) == ready


def readiness(cluster: Cluster) -> tuple[int, object]:
    connection = http.client.HTTPConnection(cluster.url.removeprefix("http://"), timeout=10)
    with closing(connection):
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
