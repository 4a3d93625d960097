"""Hundreds of clients that send a byte a second do not stop the others."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.e2e.stack import Stack

SLOW_CLIENTS = 300
MEASURED_S = 3
BOUND_S = 10  # in which a request must arrive

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
    assert beside > usual / 2
    assert BOUND_S <= took_s < 2 * BOUND_S
