"""Two catalog processes over one PostgreSQL: one is active, the other takes over."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from catalog.decisions import Registration
from catalog.postgres import migrations
from catalog.postgres.address import Address
from catalog.settings import CatalogSettings
from catalog.stock_file import read_stocks
from common.health import is_serving
from common.rpc_client import open_channel
from proto import bourse_pb2, bourse_pb2_grpc
from stack.parts import ROOT
from stack.waiting import wait_for
from tests.support.postgres import PostgresServer, running_server

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

TIMEOUT_S = 20.0


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def filled(server: PostgresServer) -> PostgresServer:
    with migrations.changing(Address(server.url("postgres"))) as connection:
        stocks = read_stocks(CatalogSettings(_env_file=None).stocks_file)
        migrations.create(connection, stocks, Registration(0, 0))
    return server


class Catalog:
    """A process that serves from the server's database, or stands by."""

    def __init__(self, server: PostgresServer, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "catalog"],
                cwd=ROOT,
                env={
                    **os.environ,
                    "LISTEN_ADDRESS": "127.0.0.1:0",
                    "DATABASE_URL": server.url("postgres"),
                    "DATABASE_DURABILITY": "single",
                    "DATA_DIR": str(log.parent / "data"),
                },
                stderr=output,
            )
        found = wait_for(
            lambda: re.search(r"serving on port (\d+)", log.read_text()), TIMEOUT_S, log.read_text
        )
        self.address = f"127.0.0.1:{found[1]}"
        self._channel = open_channel(self.address)
        self._stub = bourse_pb2_grpc.CatalogServiceStub(self._channel)

    def fence(self, epoch: int) -> bool:
        request = bourse_pb2.FenceRequest(epoch=epoch, leader_id=1)
        return bool(self._stub.Fence(request, timeout=TIMEOUT_S).accepted)

    def trade(self, epoch: int, request_id: str) -> bourse_pb2.UpdateResponse:
        request = bourse_pb2.UpdateRequest(
            epoch=epoch, request_id=request_id, name="stock1", quantity=1
        )
        return self._stub.Update(request, timeout=TIMEOUT_S)

    def is_active(self) -> bool:
        try:
            self._stub.Lookup(bourse_pb2.LookupRequest(name="stock1"), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                return False
            raise AssertionError(self.log.read_text()) from error
        return True

    def wait_until_active(self) -> None:
        wait_for(self.is_active, TIMEOUT_S, self.log.read_text)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        self._channel.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def catalogs(filled: PostgresServer, tmp_path: Path) -> Iterator[list[Catalog]]:
    """The first one is active."""
    started: list[Catalog] = []
    try:
        for name in ("one", "two"):
            started.append(Catalog(filled, tmp_path / f"{name}.log"))
            started[0].wait_until_active()
        yield started
    finally:
        for each in started:
            each.close()


def test_one_serves_and_the_other_stands_by_alive(catalogs: list[Catalog]) -> None:
    first, second = catalogs
    assert first.fence(1)
    assert first.trade(1, "a").transaction_number == 1
    assert not second.is_active()
    with pytest.raises(grpc.RpcError, match="not the active one"):
        second.trade(1, "b")
    assert is_serving(first.address, TIMEOUT_S)
    assert is_serving(second.address, TIMEOUT_S)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_other_goes_on_where_the_active_one_ended(
    catalogs: list[Catalog], number: signal.Signals
) -> None:
    first, second = catalogs
    assert first.fence(1)
    answered = first.trade(1, "a")
    first.end(number)
    second.wait_until_active()
    repeated = second.trade(1, "a")
    assert repeated.replayed
    assert repeated.row == answered.row
    assert repeated.lease_ms > 0  # every stock counts as leased
    assert second.trade(1, "b").transaction_number == 2
    assert second.end(signal.SIGTERM) == 0
    assert "stopped, everything is on disk" in second.log.read_text()


def test_one_that_stood_still_serves_no_more(catalogs: list[Catalog]) -> None:
    first, second = catalogs
    assert first.fence(1)
    first.process.send_signal(signal.SIGSTOP)
    second.wait_until_active()
    assert second.trade(1, "a").transaction_number == 1
    first.process.send_signal(signal.SIGCONT)
    assert not first.is_active()
    with pytest.raises(grpc.RpcError, match="not the active one"):
        first.trade(1, "b")
    assert second.trade(1, "b").transaction_number == 2


def test_the_database_comes_back_and_trades_go_on(
    catalogs: list[Catalog], filled: PostgresServer
) -> None:
    assert catalogs[0].fence(1)
    answered = catalogs[0].trade(1, "a")
    filled.kill()
    wait_for(lambda: not catalogs[0].is_active(), TIMEOUT_S, catalogs[0].log.read_text)
    filled.start()
    active = wait_for(
        lambda: next((one for one in catalogs if one.is_active()), None),
        TIMEOUT_S,
        catalogs[0].log.read_text,
    )
    assert active.trade(1, "a").row == answered.row
    assert active.trade(1, "b").transaction_number == 2


def test_an_empty_database_is_never_taken_for_a_new_one(
    server: PostgresServer, tmp_path: Path
) -> None:
    catalog = Catalog(server, tmp_path / "log")
    try:
        wait_for(lambda: "python -m catalog init" in catalog.log.read_text(), TIMEOUT_S, "no word")
        assert not catalog.is_active()
        assert catalog.log.read_text().count("python -m catalog init") == 1
    finally:
        catalog.close()
