"""The rival that `make bench` measures does what it is measured for: each trade once, and kept."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import docker  # type: ignore[import-untyped]
import pytest

from bench.copies.model import Contents, Model, with_plain, with_rare_probes
from bench.copies.project import Images, Project
from client.api import INSUFFICIENT_VOLUME, ORDER_NOT_FOUND, STOCK_NOT_FOUND, BourseClient
from client.api.messages import Answer
from stack.waiting import wait_for

pytestmark = [pytest.mark.slow]

CONTENTS = Contents(orders=30, stocks=3, volume=1_000)
SERVICES = ("edge-plain", "plain", "postgres")


def alone(model: Model) -> Model:
    whole = with_plain(model, CONTENTS)
    return {**whole, "services": {name: whole["services"][name] for name in SERVICES}}


@pytest.fixture(scope="module")
def rival() -> Iterator[Project]:
    engine = docker.from_env()
    images = Images(engine, print, alone)
    with images.built() as base:
        project = Project(engine, images, with_rare_probes(base), print)
        with project.up():
            yield project
    engine.close()


@pytest.fixture
def client(rival: Project) -> Iterator[BourseClient]:
    with BourseClient(rival.url("plain")) as client:
        yield client


def quantity(client: BourseClient, stock: str = "stock1") -> int:
    return client.lookup(stock).quote().quantity


def test_it_begins_with_what_it_was_given(client: BourseClient) -> None:
    quote = client.lookup("stock3").quote()
    assert (quote.price, quote.quantity) == (Decimal("25.78"), 1_000)
    assert client.lookup("stock4").error_message == STOCK_NOT_FOUND
    order = client.order(30).order()
    assert order.name == "stock1"
    assert order.type in ("BUY", "SELL")
    assert client.order(10**6).error_message == ORDER_NOT_FOUND


def test_a_trade_with_its_key_is_done_once(client: BourseClient) -> None:
    before = quantity(client)
    first = client.trade("stock1", 10, "BUY", "once")
    again = client.trade("stock1", 10, "BUY", "once")
    assert first.order_number() == again.order_number() > CONTENTS.orders
    assert first.headers["Idempotency-Replayed"] is None
    assert again.headers["Idempotency-Replayed"] == "true"
    assert quantity(client) == before - 10
    assert client.order(first.order_number()).order().quantity == 10
    other = client.trade("stock1", 11, "BUY", "once")
    assert other.status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert quantity(client) == before - 10


def test_one_key_at_once_is_one_trade(rival: Project, client: BourseClient) -> None:
    before = quantity(client)

    def trade(_number: int) -> int:
        with BourseClient(rival.url("plain")) as own:
            return own.trade("stock1", 1, "SELL", "at once").order_number()

    with ThreadPoolExecutor(16) as threads:
        numbers = set(threads.map(trade, range(48)))
    assert len(numbers) == 1
    assert quantity(client) == before + 1


def test_a_refused_trade_changes_nothing(client: BourseClient) -> None:
    before = quantity(client, "stock2")
    assert client.trade("stock2", before + 1, "BUY", "many").error_message == INSUFFICIENT_VOLUME
    assert client.trade("tulips", 1, "BUY", "no such").error_message == STOCK_NOT_FOUND
    assert client.trade("stock2", 0, "BUY", "none").status == HTTPStatus.BAD_REQUEST
    assert quantity(client, "stock2") == before
    # As nothing was stored, the key is free.
    assert client.trade("stock2", 1, "BUY", "many").status == HTTPStatus.OK


def test_an_acknowledged_trade_survives_a_kill_of_the_database(
    rival: Project, client: BourseClient
) -> None:
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert _asked(rival, f"SHOW {setting}") == "on"
    number = client.trade("stock3", 7, "SELL", "kept").order_number()
    rival.containers.kill("postgres")
    rival.containers.start("postgres")
    wait_for(lambda: client.order(number).status == HTTPStatus.OK, 30, "the order is there")

    def repeated() -> Answer | None:
        """None while the thread that serves it still has a connection from before the kill."""
        answer = client.trade("stock3", 7, "SELL", "kept")
        return answer if answer.status == HTTPStatus.OK else None

    assert wait_for(repeated, 30, "every thread has a new connection").order_number() == number
    assert client.order(number).order().quantity == 7


@pytest.mark.parametrize("service", ["plain", "postgres"])
def test_it_has_no_more_rights_than_the_service(rival: Project, service: str) -> None:
    config: dict[str, Any] = rival.containers.container(service).attrs["HostConfig"]
    assert config["ReadonlyRootfs"]
    assert config["CapDrop"] == ["ALL"]
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert config["Memory"] == config["MemorySwap"] == 512 * 2**20
    assert rival.containers.execute(service, "id", "-u") != "0"


def _asked(rival: Project, query: str) -> str:
    command = ("psql", "-h", "/tmp", "-U", "plain", "-d", "postgres", "-Atc", query)  # noqa: S108
    return rival.containers.execute("postgres", *command)
