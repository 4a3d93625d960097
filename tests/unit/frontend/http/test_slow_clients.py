"""Clients that send slowly, do not read or do not close keep no thread of the real server."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from frontend.http.http_worker import _ARRIVAL_TIMEOUT_S, _UNREAD_TIMEOUT_S
from frontend.http.server import _IDLE_CONNECTIONS
from tests.unit.frontend.http.process import ServerProcess

THREADS = 2
MANY = 10 * THREADS
TRADE = json.dumps({"name": "stock1", "quantity": 10, "type": "BUY"}).encode()
GET = b"GET /hello?name=x HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
WITH_LENGTH = POST + b"Content-Length: %d\r\n" % len(TRADE)
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(TRADE), TRADE)

Connect = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    output = tmp_path_factory.mktemp("server") / "output"
    server = ServerProcess(output, WEB_THREADS=str(THREADS))
    yield server
    server.stop()


@pytest.fixture
def connect(server: ServerProcess) -> Iterator[Connect]:
    with ExitStack() as opened:

        def connect() -> socket.socket:
            client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            return opened.enter_context(client)

        yield connect


def answer_on(client: socket.socket) -> http.client.HTTPResponse:
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer


def is_served(server: ServerProcess) -> bool:
    connection = server.connect()
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    connection.close()
    return answer.status == 200


BEGINNINGS = {
    "nothing": b"",
    "request line": b"GET /hea",
    "headers": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ",
    "body": WITH_LENGTH + b"\r\n{",
    "chunk": CHUNKED[:-20],
    "told to continue": WITH_LENGTH + b"Expect: 100-continue\r\n\r\n",
}


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_unfinished_requests_keep_no_thread(
    server: ServerProcess, connect: Connect, beginning: bytes
) -> None:
    for _ in range(MANY):
        connect().sendall(beginning)
    assert is_served(server)


@pytest.mark.parametrize("whole", [GET, WITH_LENGTH + b"\r\n" + TRADE, CHUNKED])
def test_a_request_in_many_pieces_is_answered(connect: Connect, whole: bytes) -> None:
    client = connect()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in whole:
        client.sendall(bytes([byte]))
    assert answer_on(client).status == 200


def test_requests_in_one_piece_are_answered_in_order(connect: Connect) -> None:
    client = connect()
    client.sendall(CHUNKED + GET + WITH_LENGTH + b"\r\n" + TRADE + GET[:10])
    client.sendall(GET[10:])
    client.shutdown(socket.SHUT_WR)
    answers = client.makefile("rb").read()
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert re.findall(rb"(Hello|transaction)", answers) == [b"transaction", b"Hello"] * 2


def test_an_empty_line_behind_a_request_is_not_the_next(connect: Connect) -> None:
    client = connect()
    client.sendall(WITH_LENGTH + b"\r\n" + TRADE + b"\r\n")
    assert answer_on(client).read()
    client.sendall(b"\r\n" + WITH_LENGTH + b"Expect: 100-continue\r\n\r\n")
    assert client.recv(13, socket.MSG_PEEK | socket.MSG_WAITALL) == b"HTTP/1.1 100 "
    client.sendall(TRADE)
    assert answer_on(client).status == 200


def test_who_expects_it_is_told_once_to_continue(connect: Connect) -> None:
    client = connect()
    client.sendall(WITH_LENGTH + b"Expect: 100-continue\r\n\r\n")
    told = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client.recv(len(told), socket.MSG_WAITALL) == told
    client.sendall(TRADE)
    assert client.recv(13, socket.MSG_WAITALL) == b"HTTP/1.1 200 "


def test_who_would_send_too_much_is_not_told_to_continue(connect: Connect) -> None:
    client = connect()
    client.sendall(POST + b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
    assert client.recv(13, socket.MSG_WAITALL) == b"HTTP/1.1 413 "


@pytest.mark.parametrize(
    ("beginning", "status"), [(b"GET /", 414), (b"GET / HTTP/1.1\r\nX: ", 431)]
)
def test_a_head_without_an_end_is_refused(connect: Connect, beginning: bytes, status: int) -> None:
    client = connect()
    client.sendall(beginning + b"x" * 100_000)
    answer = answer_on(client)
    assert (answer.status, answer.headers["Connection"]) == (status, "close")
    assert json.loads(answer.read())["error"]["code"] == status


def test_clients_that_do_not_close_keep_nobody_waiting(
    server: ServerProcess, connect: Connect
) -> None:
    """gunicorn itself would wait 2 s for each of them, and serve nobody meanwhile."""
    started_at = time.monotonic()
    clients = [connect() for _ in range(MANY)]
    for client in clients:
        client.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    for client in clients:
        assert answer_on(client).status == 200
    assert is_served(server)
    assert time.monotonic() - started_at < MANY * 2 / 4


def ask_without_reading(server: ServerProcess) -> socket.socket:
    """A client that the server can send but a little."""
    client = socket.socket()
    # Segments as on a real network: for those of loopback the kernel would keep megabytes.
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(("127.0.0.1", server.port))
    client.setblocking(False)
    return client


def send_until_it_is_stuck(clients: list[socket.socket]) -> None:
    """Long requests: the server is to have many to answer, not many to come."""
    request = GET[:-2] + b"X: " + b"x" * 4000 + b"\r\n\r\n"
    while writable := select.select([], clients, [], 1)[1]:
        for client in writable:
            client.send(request)


def test_unread_answers_keep_no_thread(server: ServerProcess) -> None:
    with ExitStack() as opened:
        clients = [opened.enter_context(ask_without_reading(server)) for _ in range(2 * THREADS)]
        send_until_it_is_stuck(clients)
        started_at = time.monotonic()
        assert is_served(server)
        assert time.monotonic() - started_at < _UNREAD_TIMEOUT_S / 2


def test_idle_connections_do_not_lock_out_new_ones(server: ServerProcess, connect: Connect) -> None:
    clients = [connect() for _ in range(_IDLE_CONNECTIONS + THREADS + 50)]
    assert is_served(server)
    clients[-1].sendall(GET)
    assert answer_on(clients[-1]).status == 200
    assert clients[0].recv(1) == b""  # the longest idle one had to go


def test_connections_that_became_idle_do_not_lock_out_new_ones(
    server: ServerProcess, connect: Connect
) -> None:
    """None of them was idle when the last one came."""
    clients = []
    for _ in range(_IDLE_CONNECTIONS + THREADS):
        clients.append(connect())
        clients[-1].sendall(BEGINNINGS["told to continue"])
        assert clients[-1].recv(25, socket.MSG_WAITALL).endswith(b"100 Continue\r\n\r\n")
    for client in clients:
        client.sendall(TRADE)
        assert answer_on(client).status == 200
    assert is_served(server)


def test_a_worker_without_files_for_more_connections_lives_on(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "output", WEB_THREADS=str(THREADS))
    (worker,) = map(int, server.wait_for(r"Booting worker with pid: (\d+)"))
    assert is_served(server)
    files = len(os.listdir(f"/proc/{worker}/fd")) + 10
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (files, files))
    with ExitStack() as opened:
        for _ in range(3 * files):
            opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        assert is_served(server)
    assert server.stop() == 0
    assert server.output.count("Booting worker") == 1


def test_an_unfinished_request_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "output", WEB_THREADS=str(THREADS))
    assert is_served(server)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(GET[:10])
        assert is_served(server)  # so the other one has been accepted
        started_at = time.monotonic()
        server.process.terminate()
        assert answer_on(client).status == 408
    assert server.process.wait(30) == 0
    assert time.monotonic() - started_at < _ARRIVAL_TIMEOUT_S
