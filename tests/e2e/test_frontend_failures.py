"""Frontends that fail under clients without keys that never repeat: the edge sees to it."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stack.containers import Containers, connect
from stack.network import Network
from tests.e2e.inside import digests
from tests.e2e.stack import ROOT, Stack
from tests.support.edge import config_without

CLIENTS = 8
# Not `docker kill`, after which no restart policy brings it back.
CRASH = "for p in /proc/[0-9]*; do [ $(<$p/comm) = haproxy ] && kill -SEGV ${p#/proc/}; done"
TRADE = json.dumps({"name": "stock7", "quantity": 1, "type": "SELL"})
STOCKS = [f"stock{number}" for number in range(1, 11)]
HEADERS = {"Content-Type": "application/json"}


@dataclass
class Plain:
    """What clients saw that send no key and repeat nothing."""

    numbers: list[int] = field(default_factory=list)  # of acknowledged orders
    errors: list[str] = field(default_factory=list)  # any other answer, or none
    slowest_s: float = 0.0

    def run(self, stack: Stack, stopping: threading.Event) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=15)
        for name in itertools.cycle(STOCKS):  # more than the cache holds
            if stopping.is_set():
                break
            if (body := self._ask(connection, "POST", "/orders", TRADE)) is not None:
                self.numbers.append(json.loads(body)["data"]["transaction_number"])
            self._ask(connection, "GET", f"/stocks?stockname={name}")
        connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: str = ""
    ) -> bytes | None:
        """The body of a 200."""
        began_s = time.monotonic()
        try:
            connection.request(method, path, body, HEADERS)
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(repr(error))
            connection.close()
            return None
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
        if answer.status != 200:
            self.errors.append(f"{method} {path}: {answer.status} {said.decode()}")
            return None
        return said


@contextmanager
def plain_clients(stack: Stack) -> Iterator[Plain]:
    seen, stopping = Plain(), threading.Event()
    threads = [threading.Thread(target=seen.run, args=(stack, stopping)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def missing(stack: Stack, before: int, seen: Plain) -> set[int]:
    """Orders that were executed and that no client knows of."""
    last = int(digests(stack)[0])
    assert len(seen.numbers) == len(set(seen.numbers))
    return set(range(before + 1, last + 1)) - set(seen.numbers)


def kill(stack: Stack, frontend: str) -> None:
    stack.kill(frontend)
    time.sleep(2)
    stack.start(frontend)
    stack.wait_healthy(frontend)


def pause(stack: Stack, frontend: str) -> None:
    stack.pause(frontend)
    time.sleep(5)
    stack.unpause(frontend)
    stack.wait_healthy(frontend)


def stop(stack: Stack, frontend: str) -> None:
    stack.stop(frontend)
    stack.start(frontend)
    stack.wait_healthy(frontend)


def restart(stack: Stack, frontend: str) -> None:
    stack.container(frontend).restart()
    stack.wait_healthy(frontend)


def replace(stack: Stack, frontend: str) -> None:
    """The other one dies just when this one comes back: before the edge's next check of it."""
    other = "frontend-1" if frontend == "frontend-2" else "frontend-2"
    stack.pause(frontend)
    time.sleep(4)  # until it has failed its checks
    stack.kill(other)
    stack.unpause(frontend)
    time.sleep(2)
    stack.start(other)
    stack.wait_healthy(other)


def cut_from_catalog(stack: Stack, frontend: str) -> None:
    with closing(connect()) as engine:
        network = Network(engine, Containers(engine, stack.project))
        network.cut_from(frontend, "catalog")
        time.sleep(4)
        network.heal(frontend)


Disturb = Callable[[Stack, str], None]


def disturbed(stack: Stack, *disturbances: Disturb) -> tuple[Plain, set[int]]:
    """What clients saw while frontends were disturbed in turn, and the orders nobody knows of."""
    before = int(digests(stack)[0])
    with plain_clients(stack) as seen:
        for index, disturb in enumerate(disturbances):
            time.sleep(1)
            disturb(stack, f"frontend-{index % 2 + 1}")
        time.sleep(1)
    return seen, missing(stack, before, seen)


def nobody_notices(stack: Stack, *disturbances: Disturb) -> None:
    seen, unknown = disturbed(stack, *disturbances)
    assert seen.errors == []
    assert unknown == set()
    assert len(seen.numbers) > 100
    assert seen.slowest_s < 10


def test_nobody_notices_a_frontend_that_fails(stack: Stack) -> None:
    nobody_notices(stack, kill, pause)


@pytest.mark.slow
def test_nobody_notices_one_that_is_stopped_or_cut_off_or_back_just_in_time(stack: Stack) -> None:
    nobody_notices(stack, stop, restart, replace, cut_from_catalog)
    restart(stack, "frontend-1")  # the engine calls it unhealthy: it was paused


@pytest.mark.slow
def test_frontends_are_added_and_taken_away_behind_the_edge(stack: Stack) -> None:
    started = stack.container("edge").attrs["State"]["StartedAt"]
    before = int(digests(stack)[0])
    with plain_clients(stack) as seen:
        for frontends in (3, 1, 2):
            stack.compose("up", "--wait", "--no-recreate", "--scale", f"frontend={frontends}")
            time.sleep(1)
        served = "Server frontends/frontend-3"
        assert served in stack.container("edge").logs().decode()
    assert (seen.errors, missing(stack, before, seen)) == ([], set())
    assert stack.container("edge").attrs["State"]["StartedAt"] == started


@pytest.mark.slow
def test_the_edge_is_healthy_as_long_as_a_frontend_lives(stack: Stack) -> None:
    for name, is_healthy in (("frontend-1", True), ("frontend-2", False)):
        stack.kill(name)
        assert stack.passes_its_check("edge") is is_healthy
    for name in ("frontend-1", "frontend-2"):
        stack.start(name)
        stack.wait_healthy(name)
        assert stack.passes_its_check("edge")


@pytest.mark.slow
def test_while_no_frontend_lives_the_answer_is_503(stack: Stack) -> None:
    """The requests in flight when the last one dies are answered, too.

    Hardly ever, one is left without an answer: when its last attempt is at a frontend that is about
    to come back, and does not connect.
    """
    rounds = ("frontend-1", "frontend-2")
    with plain_clients(stack) as seen:
        for last in rounds:
            first = "frontend-2" if last == "frontend-1" else "frontend-1"
            stack.stop(first)
            time.sleep(1)
            stack.kill(last)  # with requests in its hands
            time.sleep(4)
            for name in (first, last):
                stack.start(name)
                stack.wait_healthy(name)
    assert [error for error in seen.errors if ": 503 {" in error]
    without_answer = [error for error in seen.errors if ": 503 {" not in error]
    assert len(without_answer) <= 1, without_answer


@pytest.mark.slow
def test_when_all_frontends_are_silent_the_answer_comes_in_time(stack: Stack) -> None:
    """They accept connections, so each attempt waits. The edge begins none that ends too late."""
    names = ("frontend-1", "frontend-2")
    with plain_clients(stack) as seen:
        time.sleep(1)
        for name in names:
            stack.pause(name)
        time.sleep(12)
        for name in names:
            stack.unpause(name)
        time.sleep(1)
    assert seen.errors
    assert [error for error in seen.errors if ": 503 {" not in error] == []
    assert seen.slowest_s < 10


def test_the_edge_comes_back_when_it_crashes(stack: Stack) -> None:
    """What it held breaks off; a second later it serves again, by its restart policy."""
    with plain_clients(stack) as seen:
        time.sleep(1)
        stack.container("edge").exec_run(["bash", "-c", CRASH])
        crashed_s = time.monotonic()
        while not stack.is_ready():
            assert time.monotonic() - crashed_s < 10
            time.sleep(0.05)
        assert time.monotonic() - crashed_s < 3
        served = len(seen.numbers)
        time.sleep(1)
        assert len(seen.numbers) > served
    assert seen.errors  # in flight when it crashed, and refused until it was back


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "disturbances"),
    [
        ("another frontend's answer", (cut_from_catalog,)),
        ("the unchecked frontends", (replace, replace)),
    ],
)
def test_the_mechanism_is_needed(
    mechanism: str, disturbances: tuple[Disturb, ...], tmp_path: Path
) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(config_without(mechanism), "utf-8")
    override = ROOT / "tests" / "e2e" / "edge_config.yaml"
    stack = Stack({"EDGE_CONFIG": str(config)}, overrides=[override])
    try:
        stack.up()
        seen, _ = disturbed(stack, *disturbances)
    finally:
        stack.down()
    assert seen.errors
