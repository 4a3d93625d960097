"""Hundreds of clients that are slow to send, or do not read, do not stop the others."""

from __future__ import annotations

import http.client
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from stack.waiting import wait_for
from tests.e2e.stack import Stack

SLOW_CLIENTS = 300
MEASURED_S = 3
BOUND_S = 10  # in which a request must arrive
UNREAD_CLIENTS = 40  # more than all threads of one frontend
REQUESTS_UNREAD = 200

LINE = b"GET /stocks?stockname=" + b"x" * 100
HEADERS = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"x" * 100
BODY = (
    b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 200\r\n\r\n" + b"{" * 100
)
# How much comes at once, before the bytes that come one by one.
BEGINNINGS = [(LINE, 5), (HEADERS, 40), (BODY, len(BODY) - 99)]


def rate(stack: Stack) -> float:
    """Lookups of one client per second."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=12)
    count, until = 0, time.monotonic() + MEASURED_S
    while time.monotonic() < until:
        connection.request("GET", "/stocks?stockname=stock8")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        count += 1
    connection.close()
    return count / MEASURED_S


@contextmanager
def slow_clients(stack: Stack) -> Iterator[list[socket.socket]]:
    """A third is slow in the line, in the headers and in the body each."""
    stopping = threading.Event()
    with ExitStack() as opened:
        clients = [
            opened.enter_context(socket.create_connection(("127.0.0.1", stack.port), timeout=30))
            for _ in range(SLOW_CLIENTS)
        ]
        sending = threading.Thread(target=trickle, args=(clients, stopping))
        sending.start()
        try:
            yield clients
        finally:
            stopping.set()
            sending.join()


def trickle(clients: list[socket.socket], stopping: threading.Event) -> None:
    requests = [BEGINNINGS[index % 3] for index in range(len(clients))]
    for client, (text, begun) in zip(clients, requests, strict=True):
        client.sendall(text[:begun])
    for turn in range(60):
        if stopping.wait(1):
            return
        for client, (text, begun) in zip(clients, requests, strict=True):
            with suppress(OSError):  # the server has closed it, as it should
                client.send(text[begun + turn : begun + turn + 1])


@pytest.mark.slow
def test_slow_clients_stop_nobody_and_are_told(stack: Stack) -> None:
    stack.get("/stocks?stockname=stock8")
    usual = rate(stack)
    started_at = time.monotonic()
    with slow_clients(stack) as clients:
        time.sleep(1)
        beside = rate(stack)
        for client in clients:
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert answer.status == 408
            assert answer.headers["Connection"] == "close"
            assert json.loads(answer.read())["error"]["code"] == 408
        took_s = time.monotonic() - started_at
    # A slow one that took a thread would stop the others. These here take some of the processor.
    assert beside > usual / 5
    assert BOUND_S <= took_s < 2 * BOUND_S


# ------------------------------------------------------------ clients that do not read

GET = b"GET /hello?name=x HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 4000 + b"\r\n\r\n"
UNREAD_BOUND_S = 10


def ask_without_reading(stack: Stack) -> socket.socket:
    """A client that can be sent but a little."""
    client = socket.socket()
    # Segments as on a real network: for those of loopback the kernel would keep megabytes.
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(("127.0.0.1", stack.port))
    client.setblocking(False)
    return client


def ask_much(clients: list[socket.socket]) -> None:
    """From each client more requests, one behind the other, than the edge keeps answers for."""
    until_s = time.monotonic() + 8
    for _ in range(REQUESTS_UNREAD):
        for client in select.select([], clients, [], max(0.0, until_s - time.monotonic()))[1]:
            with suppress(OSError):
                client.send(GET)


@pytest.mark.slow
def test_clients_that_do_not_read_hold_nobody_up(stack: Stack) -> None:
    usual = rate(stack)
    with ExitStack() as opened:
        clients = [opened.enter_context(ask_without_reading(stack)) for _ in range(UNREAD_CLIENTS)]
        ask_much(clients)
        # What they asked for is served first. Their answers wait at the edge, and no thread does.
        wait_for(lambda: rate(stack) > usual / 2, 40, "others are served as usual")


# ------------------------------------------------------------ more than can be served

# Redis stands still, and each trade waits for the lease of its stock: so all threads are taken.
CROWD = 200


def trade_s(stack: Stack, found: list[tuple[int, float, dict[str, str]]]) -> None:
    began_s = time.monotonic()
    trade = {"name": "stock8", "quantity": 1, "type": "SELL"}
    status, headers, body = stack.request("POST", "/orders", trade, timeout_s=15)
    if status != 200:
        assert body["error"]["code"] == status
    found.append((status, time.monotonic() - began_s, headers))


@pytest.mark.slow
def test_more_than_can_be_served_is_answered_in_time() -> None:
    """A short queue at the edge, then 503: nobody waits for longer than every request may take."""
    stack = Stack({"WEB_THREADS": "4"})
    try:
        stack.up()
        found: list[tuple[int, float, dict[str, str]]] = []
        stack.get("/stocks?stockname=stock8")  # which takes a lease
        stack.pause("redis")
        crowd = [threading.Thread(target=trade_s, args=(stack, found)) for _ in range(CROWD)]
        for client in crowd:
            client.start()
        for client in crowd:
            client.join()
        stack.unpause("redis")
    finally:
        stack.down()
    assert len(found) == CROWD
    assert {status for status, _, _ in found} == {200, 503}
    assert max(took_s for _, took_s, _ in found) < 10
    assert all("retry-after" in headers for status, _, headers in found if status == 503)
