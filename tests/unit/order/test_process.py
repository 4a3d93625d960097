"""The process of a replica: it stops on a signal, and is alone on its log."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from order import __main__ as order_main
from order.log.log import OrderLog
from tests.support.mechanisms import taken_out
from tests.unit.order.fakes import make_rows

ROWS = make_rows(3)
UNCHANGED = {"version": 1, "incremental": True}


class Life:
    """A fake service that ends as soon as it has started."""

    begun_with: list[int]  # the last order in the log at each start
    in_each: list[Callable[[Life], None]]  # what happens after each start

    def __init__(self, _settings: object, log: OrderLog, _is_signalled: object) -> None:
        self.failed = False
        self.over = threading.Event()
        self.over.set()
        self._log = log
        self.begun_with.append(log.last_number)

    def start(self) -> None:
        self.in_each.pop(0)(self)

    def stop(self) -> bool:
        self._log.close()
        return True


def stop_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Life]]:
    """The services of a replica that has three rows in its log."""
    Life.begun_with, Life.in_each = [], []
    monkeypatch.setattr(order_main, "Service", Life)
    monkeypatch.setattr(order_main, "logging_config", lambda *_: UNCHANGED)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    monkeypatch.setenv("ORDER_ID", "1")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with closing(OrderLog(tmp_path / "orders.db")) as log:
        log.append(ROWS)
    yield Life
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_who_is_told_to_stop_while_it_verifies_its_log_stops_at_once(
    lives: type[Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = OrderLog._verify

    def be_told_and_verify(log: OrderLog, check: Callable[[], None]) -> tuple[int, bytes]:
        stop_this_process()
        return verify(log, check)

    monkeypatch.setattr(OrderLog, "_verify", be_told_and_verify)
    assert order_main.main() == 0
    assert lives.begun_with == []


def test_a_service_that_failed_is_an_error(lives: type[Life]) -> None:
    def fail(life: Life) -> None:
        life.failed = True

    lives.in_each += [fail]
    assert order_main.main() == 1


# ------------------------------------------------------------ one process for each log


def start_another(lives: type[Life]) -> tuple[int, int]:
    """Starts the replica while it runs already; the exit codes of the second and of the first."""
    codes: list[int] = []
    lives.in_each += [lambda _life: codes.append(order_main.main()), lambda _life: None]
    codes.append(order_main.main())
    second, first = codes
    return second, first


def test_a_second_process_on_a_log_does_not_start(
    lives: type[Life], caplog: pytest.LogCaptureFixture
) -> None:
    assert start_another(lives) == (1, 0)
    assert lives.begun_with == [3]
    assert "another replica has it open" in caplog.text


def test_without_the_lock_two_processes_have_one_log(lives: type[Life]) -> None:
    with taken_out("log lock"):
        assert start_another(lives) == (0, 0)
    assert lives.begun_with == [3, 3]
