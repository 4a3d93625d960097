"""The real server process: what only gunicorn can get wrong."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from common.settings import load_settings
from frontend.http.connection import Connection
from frontend.http.server import HttpServer
from frontend.http.validation import MAX_BODY_BYTES
from frontend.settings import FrontendSettings
from tests.unit.frontend.http.fakes import build_fake_parts
from tests.unit.frontend.http.process import ROOT, ServerProcess

TRADE = json.dumps({"name": "stock1", "quantity": 10, "type": "BUY"}).encode()
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server") / "output")
    yield server
    server.stop()


@pytest.fixture
def connection(server: ServerProcess) -> Iterator[http.client.HTTPConnection]:
    connection = server.connect()
    yield connection
    connection.close()


Ask = Callable[..., tuple[http.client.HTTPResponse, bytes]]


@pytest.fixture
def ask(connection: http.client.HTTPConnection) -> Ask:
    def ask(method: str, path: str, **options: Any) -> tuple[http.client.HTTPResponse, bytes]:
        # The server may answer, and close, before it was sent the whole body.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, **options)
        answer = connection.getresponse()
        return answer, answer.read()

    return ask


def code_of(body: bytes) -> int:
    return int(json.loads(body)["error"]["code"])


def test_one_connection_serves_a_session(ask: Ask, connection: http.client.HTTPConnection) -> None:
    statuses = []
    sockets = set()
    for _ in range(20):
        for method, path, body in (
            ("GET", "/stocks?stockname=stock1", None),
            ("POST", "/orders", TRADE),
            ("GET", "/orders?order-number=0", None),
            ("PUT", "/orders", TRADE),
            ("POST", "/orders", b"{"),
            ("HEAD", "/hello?name=user", None),
        ):
            answer, _ = ask(method, path, body=body, headers=JSON)
            statuses.append(answer.status)
            sockets.add(connection.sock)
    assert statuses == [200, 200, 404, 405, 400, 200] * 20
    assert len(sockets) == 1
    assert None not in sockets


def sizes_sent(output: Path, **settings: str) -> tuple[int, list[int]]:
    """How long an answer is, and how many bytes of it each call to the kernel gave."""
    server = ServerProcess(output, TELL_WHAT_LEAVES="1", **settings)
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.sendall(
                b"GET /hello?name=user HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
            )
            answer = b"".join(iter(lambda: client.recv(65536), b""))
    finally:
        server.stop()
    assert answer.endswith(b"Hello, user!")
    return len(answer), [int(size) for size in re.findall(r"sending (\d+) bytes", server.output)]


def test_an_answer_leaves_whole(tmp_path: Path) -> None:
    length, sizes = sizes_sent(tmp_path / "output")
    assert sizes == [length]


def test_otherwise_its_head_leaves_before_its_body(tmp_path: Path) -> None:
    length, sizes = sizes_sent(tmp_path / "output", WITHOUT="whole answers")
    assert sizes == [length - len("Hello, user!"), len("Hello, user!")]


def test_what_a_client_sends_is_not_read_before_it_has_the_answer() -> None:
    one, other = socket.socketpair()
    with Connection(fileno=one.detach()) as ours, other:
        ours.sendall(b"an answer")
        other.sendall(b"a request")
        assert ours.recv(100) == b"a request"
        assert other.recv(100) == b"an answer"


@pytest.mark.parametrize("end", [Connection.close, lambda one: one.shutdown(socket.SHUT_WR)])
def test_a_connection_ends_behind_its_last_answer(end: Callable[[Connection], None]) -> None:
    one, other = socket.socketpair()
    with Connection(fileno=one.detach()) as ours, other:
        ours.sendall(b"an answer")
        end(ours)
        assert other.recv(100) == b"an answer"
        assert other.recv(100) == b""


def test_head_has_the_headers_of_get_and_no_body(ask: Ask) -> None:
    answer, body = ask("HEAD", "/hello?name=user")
    assert (answer.status, body) == (200, b"")
    assert answer.headers["Content-Length"] == "12"


def test_wrong_methods_name_the_right_ones(ask: Ask) -> None:
    answer, body = ask("DELETE", "/orders")
    assert answer.status == code_of(body) == 405
    assert "POST" in answer.headers["Allow"]


def chunks(size: int) -> Iterator[bytes]:
    body = TRADE.ljust(size)
    for start in range(0, size, 1000):
        yield body[start : start + 1000]


def test_a_chunked_body(ask: Ask) -> None:
    answer, _ = ask("POST", "/orders", body=chunks(MAX_BODY_BYTES), headers=JSON)
    assert answer.status == 200


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 10 * MAX_BODY_BYTES])
def test_a_chunked_body_that_is_too_long(ask: Ask, size: int) -> None:
    answer, body = ask("POST", "/orders", body=chunks(size), headers=JSON)
    assert answer.status == code_of(body) == 413


def test_a_long_query_meets_the_rules_of_the_application(ask: Ask) -> None:
    answer, body = ask("GET", "/orders?order-number=" + "9" * 8000)
    assert answer.status == code_of(body) == 404
    answer, body = ask("GET", "/stocks?stockname=" + "x" * 8000)
    assert answer.status == code_of(body) == 400


HEAD = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def answers_to(server: ServerProcess, request: bytes) -> bytes:
    """All that comes back before the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


@pytest.mark.parametrize(
    "request_bytes",
    [
        CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"2\r\n{}x\r\n0\r\n\r\n",
        CHUNKED + b"2\r\n{}\r\n0\r\nno trailer\r\n\r\n",
        HEAD + b"\r\n",
        HEAD + b"Content-Length: 100\r\n\r\n" + TRADE,
    ],
    ids=["chunk size", "chunk end", "trailer", "no body", "short body"],
)
def test_a_broken_body_is_answered_by_the_application(
    server: ServerProcess, request_bytes: bytes
) -> None:
    head, _, rest = answers_to(server, request_bytes).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"X-Request-Id: " in head
    assert rest.startswith(b'{"error":{"code":400,"message":"')


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nExpect: miracles\r\n\r\n", 417),
        (HEAD + b"Transfer-Encoding: magic\r\n\r\n", 501),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\n{}", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno header\r\n\r\n", 400),
    ],
)
def test_what_is_no_http_is_refused_by_gunicorn_itself(
    server: ServerProcess, request_bytes: bytes, code: int
) -> None:
    answers = answers_to(server, request_bytes)
    assert answers.startswith(b"HTTP/1.1 %d " % code)
    assert answers.count(b"HTTP/1.1 ") == 1


def test_connections_are_kept_for_a_session_and_workers_for_ever() -> None:
    config = HttpServer(load_settings(FrontendSettings, "frontend"), build_fake_parts).cfg
    assert config.worker_class_str == "gthread"
    assert config.keepalive >= 75
    assert config.max_requests == 0


def test_a_request_is_logged_once(server: ServerProcess, ask: Ask) -> None:
    ask("GET", "/hello?name=logged-once", headers={"User-Agent": "logged-once"})
    answer, _ = ask("GET", "/once")
    identifier = answer.headers["X-Request-Id"]
    (line,) = server.wait_for(rf".*{identifier}.*")
    assert "GET /once 404" in line
    assert "logged-once" not in server.output


def test_a_killed_worker_is_replaced(server: ServerProcess, ask: Ask) -> None:
    workers = server.wait_for(r"Booting worker with pid: (\d+)")
    os.kill(int(workers[-1]), signal.SIGKILL)
    server.wait_for(r"Booting worker with pid: (\d+)", count=len(workers) + 1)
    assert ask("GET", "/healthz")[0].status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_worker_told_to_stop_at_its_fork_ends(number: int) -> None:
    script = f"""
import os, signal
from common.settings import load_settings
from frontend.http.connection import Connection
from frontend.http.server import HttpServer
from frontend.settings import FrontendSettings

# The first thing that the new process does.
os.register_at_fork(after_in_child=lambda: signal.raise_signal({number}))
# As the master's handler: with it alone the worker would go on.
signal.signal({number}, lambda *_: None)
HttpServer(load_settings(FrontendSettings, "frontend"), lambda *_: None).cfg.on_starting(None)
worker = os.fork()
if worker == 0:
    os._exit(1)
assert os.waitpid(worker, 0)[1] == 0, "it goes on"
assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), "the master is deaf"
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_stopping_finishes_what_is_in_flight(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "output")
    slow = json.dumps({"name": "slow", "quantity": 1, "type": "BUY"}).encode()
    statuses: list[int] = []

    def trade() -> None:
        connection = server.connect()
        connection.request("POST", "/orders", body=slow, headers=JSON)
        statuses.append(connection.getresponse().status)
        connection.close()

    client = threading.Thread(target=trade)
    client.start()
    server.wait_for("deciding slowly")
    assert server.stop() == 0
    client.join()
    assert statuses == [200]
    assert server.output.index("deciding slowly") < server.output.index("parts closed")
