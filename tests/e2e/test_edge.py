"""What arrives at the edge, byte by byte: what reaches a frontend, and how the rest is told."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http import HTTPStatus
from pathlib import Path

import docker  # type: ignore[import-untyped]
import pytest

from client.api import BourseClient
from tests.e2e.inside import digests
from tests.e2e.stack import Stack, wait_for
from tests.support.ports import free_ports

TRADE = json.dumps({"name": "stock2", "quantity": 1, "type": "SELL"}).encode()
HOST = b"Host: bourse.example:26111\r\n"
CLOSE = b"Connection: close\r\n"
POST = b"POST /orders HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = b"GET /hello?name=x HTTP/1.1\r\n"
GET = HELLO + HOST + b"\r\n"
FRONTENDS = ("frontend-1", "frontend-2")
EACH = 8  # trades of one client
TOO_LONG = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_URI_TOO_LONG, 431)


def with_length(*headers: bytes, body: bytes = TRADE) -> bytes:
    return POST + b"".join(headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def exchange(stack: Stack, *pieces: bytes, timeout_s: float = 25) -> bytes:
    """All that comes until the edge closes."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=timeout_s) as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.02)
        return client.makefile("rb").read()


def first_answer(stack: Stack, request: bytes) -> bytes:
    """Whether or not the edge waits for the rest of the request."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=25) as client:
        with suppress(ConnectionError):  # it need not read all of a request that is too long
            client.sendall(request)
        answer = b""
        while not answer.endswith(b"}\n"):
            piece = client.recv(65536)
            if not piece:
                break
            answer += piece
        return answer


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    fields = (line.partition(":") for line in lines)
    return int(line.split()[1]), {name.lower(): value.strip() for name, _, value in fields}, body


def check_error(answer: bytes, *statuses: int) -> str:
    """Checks the form of an error, the edge's or the frontend's. Returns its message."""
    status, headers, body = parse(answer)
    assert status in statuses, answer
    assert headers["content-type"] == "application/json", answer
    assert headers["cache-control"] == "no-store"
    assert int(headers["content-length"]) == len(body)
    assert body.endswith(b"\n")
    [(name, error)] = json.loads(body).items()
    assert (name, error["code"]) == ("error", status)
    assert set(error) == {"code", "message"}
    return str(error["message"])


BAD = {
    "no HTTP": (b"GARBAGE\r\n\r\n", [400]),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100, [400]),
    "HTTP/2 without TLS": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
    "a method in small letters": (b"get / HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", [400]),
    "a header without a colon": (HELLO + HOST + b"bad\r\n\r\n", [400]),
    "a zero byte": (HELLO + HOST + b"X: a\0b\r\n\r\n", [400]),
    "a space in the URI": (b"GET /hello?name=x y HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    "a URI beyond ASCII": (b"GET /hello?name=\xff HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    "no Host": (HELLO + CLOSE + b"\r\n", [400]),
    "no Host, HTTP/1.0": (b"GET /hello?name=x HTTP/1.0\r\n\r\n", [400]),
    "an empty Host": (HELLO + b"Host:\r\n" + CLOSE + b"\r\n", [400]),
    "a Host with a space": (HELLO + b"Host: a b\r\n" + CLOSE + b"\r\n", [400]),
    "a Host with a path": (HELLO + b"Host: a/b\r\n" + CLOSE + b"\r\n", [400]),
    "a Host with a user": (HELLO + b"Host: a@b\r\n" + CLOSE + b"\r\n", [400]),
    "a Host with port 0": (HELLO + b"Host: a:0\r\n" + CLOSE + b"\r\n", [400]),
    "two Hosts": (HELLO + b"Host: a\r\nHost: b\r\n" + CLOSE + b"\r\n", [400]),
    "two keys": (with_length(CLOSE, b"Idempotency-Key: a\r\n", b"idempotency-key: b\r\n"), [400]),
    "a key twice": (with_length(CLOSE, b"Idempotency-Key: a\r\n" * 2), [400]),
    "an empty key": (with_length(CLOSE, b"Idempotency-Key:\r\n"), [400]),
    "a length that is a word": (POST + b"Content-Length: x\r\n\r\n", [400]),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", [400]),
    "a length of 5,000 digits": (
        POST + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\n",
        [400, 413],
    ),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", [400]),
    "a chunk without a length": (CHUNKED + b"zz\r\n", [400]),
    "a coding nobody knows": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", [400, 422, 501]),
    "an expectation nobody knows": (with_length(CLOSE, b"Expect: miracles\r\n"), [417]),
    "a long URI": (
        b"GET /hello?name=" + b"x" * 9000 + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n",
        TOO_LONG,
    ),
    "a long header": (HELLO + HOST + CLOSE + b"X: " + b"x" * 9000 + b"\r\n\r\n", TOO_LONG),
    "many headers": (HELLO + HOST + CLOSE + b"X: y\r\n" * 200 + b"\r\n", TOO_LONG),
    "a URI without an end": (b"GET /" + b"x" * 100_000, TOO_LONG),
    "a head without an end": (HELLO + b"X: " + b"x" * 100_000, TOO_LONG),
    "a long body": (with_length(CLOSE, body=b"[" * 16_385), [413]),
    "a very long body": (with_length(CLOSE, body=b"[" * 1_000_000), [413]),
    "a body that says it is long": (POST + b"Content-Length: 16385\r\n\r\n", [413]),
    "one that would not come": (
        POST + b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n",
        [413],
    ),
    "a long body in chunks": (CHUNKED + b"4e20\r\n" + b"[" * 20_000 + b"\r\n0\r\n\r\n", [413]),
    "chunks without an end": (CHUNKED + b"1000\r\n" + (b"[" * 4096 + b"\r\n1000\r\n") * 20, [413]),
    "an unknown path": (b"GET /nothing HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", [404]),
    "a method nobody knows": (b"BREW /orders HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", [405]),
    "an option of none": (b"OPTIONS * HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", [404]),
    "JSON that is none": (with_length(CLOSE, body=b"[" * 16_384), [400]),
}


def test_bad_requests_are_told_in_one_form_and_change_nothing(stack: Stack) -> None:
    before = digests(stack)
    for title, (request, statuses) in BAD.items():
        answer = first_answer(stack, request)
        try:
            check_error(answer, *statuses)
        except (AssertionError, ValueError, KeyError) as error:
            raise AssertionError(f"{title}: {answer!r}") from error
    assert digests(stack) == before


def test_a_bad_host_is_refused_whatever_the_cache_holds(stack: Stack) -> None:
    stack.get("/stocks?stockname=stock3")
    assert stack.get("/stocks?stockname=stock3")[1]["x-cache"] == "HIT"
    line = b"GET /stocks?stockname=stock3 HTTP/1.1\r\n"
    for host in (b"", b"Host: a/b\r\n", b"Host: ,\r\n"):
        check_error(exchange(stack, line + host + CLOSE + b"\r\n"), 400)


@pytest.mark.parametrize(
    "host", [b"a", b"A.example", b"127.0.0.1:1", b"[::1]", b"[::1]:26111", b"my_host:80"]
)
def test_a_good_host_is_served(stack: Stack, host: bytes) -> None:
    assert b" 200 " in exchange(stack, HELLO + b"Host: %b\r\n" % host + CLOSE + b"\r\n")


WHOLE = {
    "with a length": with_length(CLOSE),
    "in chunks": CHUNKED.replace(HOST, HOST + CLOSE)
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(TRADE), TRADE),
    "in tiny chunks": CHUNKED.replace(HOST, HOST + CLOSE)
    + b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in TRADE)
    + b"0\r\nX-Trailer: y\r\n\r\n",
    "with a length and in chunks": CHUNKED.replace(HOST, HOST + CLOSE + b"Content-Length: 3\r\n")
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(TRADE), TRADE),
    "beside lines of the greatest length": with_length(
        CLOSE, b"X: " + b"x" * 7000 + b"\r\n", body=TRADE + b" " * (16_384 - len(TRADE))
    ).replace(b"/orders", b"/orders?" + b"x" * 7500),
    "with a key of commas": with_length(CLOSE, b"Idempotency-Key: ,%d,\r\n" % time.time_ns()),
    "with a header that looks like a key": with_length(CLOSE, b"Idempotency_Key: x\r\n" * 2),
    "with a start of its own": with_length(CLOSE, b"X-Request-Start: t=1\r\n" * 2),
}


@pytest.mark.parametrize("request_bytes", WHOLE.values(), ids=WHOLE)
def test_a_trade_is_taken_however_it_is_written(stack: Stack, request_bytes: bytes) -> None:
    before = int(digests(stack)[0])
    status, headers, body = parse(exchange(stack, request_bytes))
    assert status == HTTPStatus.OK, body
    assert headers["connection"] == "close"
    assert json.loads(body) == {"data": {"transaction_number": before + 1}}
    assert int(digests(stack)[0]) == before + 1  # and nothing else was


def test_pieces_and_requests_behind_each_other_are_answered_in_order(stack: Stack) -> None:
    whole = with_length() + GET + CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(TRADE), TRADE)
    whole += GET.replace(HOST, HOST + CLOSE)
    answers = exchange(stack, *(whole[at : at + 50] for at in range(0, len(whole), 50)))
    assert answers.count(b"HTTP/1.1 200 ") == 4
    assert re.findall(rb"(Hello|transaction)", answers) == [b"transaction", b"Hello"] * 2


def test_who_expects_it_is_told_once_to_continue(stack: Stack) -> None:
    head = POST + CLOSE + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(TRADE)
    answer = exchange(stack, head, TRADE)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


@pytest.mark.parametrize("connection", [b"close", b"TE, close", b"Close , te"])
def test_a_client_that_wants_to_close_is_closed(stack: Stack, connection: bytes) -> None:
    began_s = time.monotonic()
    answer = exchange(
        stack, HELLO + HOST + b"Connection: " + connection + b"\r\nTE: trailers\r\n\r\n"
    )
    assert b" 200 " in answer
    assert time.monotonic() - began_s < 5


@pytest.mark.slow
def test_an_idle_connection_stays_open(stack: Stack) -> None:
    with socket.create_connection(("127.0.0.1", stack.port), timeout=25) as client:
        for pause_s in (0, 12):  # more than a request has to arrive
            time.sleep(pause_s)
            client.sendall(GET)
            assert b" 200 " in client.recv(9999)


# ------------------------------------------------------------ settings

WRONG = [
    ("RATE_LIMIT", "-1"),
    ("RATE_LIMIT", "many"),
    ("WEB_THREADS", "0"),
    ("WEB_CONCURRENCY", "1.5"),
    ("SHUTDOWN_GRACE_S", "0"),
    ("TLS_PEM_FILE", "/nowhere"),
    ("TLS_PEM_FILE", "/etc/passwd"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_stops_it_with_one_line(stack: Stack, name: str, value: str) -> None:
    code, said = stack.run_image("edge", {name: value})
    assert code != 0
    assert len(said.splitlines()) == 1, said
    assert f"{name}='{value}'" in said


def make_pem(path: Path) -> None:
    """A key and a certificate that it signed itself, as one file that everybody may read."""
    key, certificate = path.with_suffix(".key"), path.with_suffix(".crt")
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command = ["openssl", "req", *words, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    path.write_bytes(certificate.read_bytes() + key.read_bytes())
    path.chmod(0o644)


def curl(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["curl", "--silent", "--noproxy", "*", "--max-time", "12", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_other_edge_has_tls_and_a_limit(stack: Stack, tmp_path: Path) -> None:
    """Beside the one of the stack, on the same networks and with the same image."""
    make_pem(tmp_path / "edge.pem")
    port = free_ports(1)
    name = f"{stack.project}-another-edge"
    settings = ["--env", "RATE_LIMIT=5", "--env", "TLS_PEM_FILE=/edge.pem"]
    settings += ["--volume", f"{tmp_path / 'edge.pem'}:/edge.pem:ro"]
    published = ["--publish", f"127.0.0.1:{port}:26111"]
    stack.compose("run", "--detach", "--no-deps", "--name", name, *settings, *published, "edge")
    try:
        url = f"https://127.0.0.1:{port}/hello?name=x"
        wait_for(lambda: curl("--insecure", url).stdout == "Hello, x!", 20, "it serves")
        assert curl(url).returncode != 0  # nobody vouches for the certificate
        for version, option in (("2", "--http2"), ("1.1", "--http1.1")):
            time.sleep(1.1)
            said = curl("--insecure", option, "--write-out", " %{http_version}", url)
            assert said.stdout == f"Hello, x! {version}"
        time.sleep(1.1)
        answers = curl("--insecure", "--include", "--http1.1", *[url] * 7).stdout
        assert answers.count("Hello, x!") == 5
        assert answers.count('{"error":{"code":429,') == 2
        assert answers.lower().count("retry-after: ") == 2
        time.sleep(1.1)
        assert curl("--insecure", url).stdout == "Hello, x!"
    finally:
        with closing(docker.from_env()) as engine:
            engine.containers.get(name).remove(force=True)


def test_trades_go_to_one_frontend_while_they_are_few(stack: Stack) -> None:
    """There they share calls to the leader."""
    for few in (2, 16):
        assert sorted(trades_taken(stack, few)) == [0, few * EACH]
    assert min(trades_taken(stack, 50)) > 0


def trades_taken(stack: Stack, clients: int) -> list[int]:
    """How many trades each frontend serves, when so many clients send eight each."""
    before = [served(stack, name) for name in FRONTENDS]
    with ThreadPoolExecutor(clients) as pool:
        for answer in [pool.submit(trades, stack) for _ in range(clients)]:
            answer.result()
    return [served(stack, name) - old for name, old in zip(FRONTENDS, before, strict=True)]


def trades(stack: Stack) -> None:
    client = BourseClient(stack.url)
    for _ in range(EACH):
        assert client.trade("stock2", 1, "SELL").status == 200
    client.close()


def served(stack: Stack, frontend: str) -> int:
    return stack.container(frontend).logs().decode().count("POST /orders 200")
