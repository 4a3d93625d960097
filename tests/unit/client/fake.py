"""A small Bourse on a real socket, which misbehaves when told to."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

# Done to the next request that it is meant for, instead of or after answering it.
Mischief = Callable[["Handler"], None]


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    key: str | None
    body: bytes
    connection: int  # counted from 1 as they are opened


@dataclass
class Reply:
    status: int
    body: Any  # JSON, or str for text
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        body = {"error": {"code": status, "message": message}}
        self.reply = Reply(status, body, {k.replace("_", "-"): v for k, v in headers.items()})


class FakeBourse(ThreadingHTTPServer):
    """Keeps the promises of the HTTP interface, in memory."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.RLock()
        self.connection_closed = threading.Condition()
        self.stocks = {f"stock{number}": 100 for number in range(1, 11)}
        self.orders: list[dict[str, Any]] = []
        self.decisions: dict[str, tuple[Any, Reply]] = {}
        self.cached: set[str] = set()
        self.received: list[Received] = []
        self.connection_numbers: dict[Any, int] = {}  # by socket
        self.closed: set[int] = set()  # connections
        self.closing = threading.Event()
        self.mischief: deque[tuple[str, Mischief]] = deque()
        self.before_reply: Callable[[Received, Reply], None] = lambda _received, _reply: None
        self._thread = threading.Thread(target=self.serve_forever, args=(0.005,), daemon=True)

    @property
    def connections(self) -> int:
        return len(self.connection_numbers)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def misbehave(self, request: str, *mischief: Mischief) -> None:
        """To the next requests whose method and path start so, one each."""
        self.mischief.extend((request, one) for one in mischief)

    def keys(self) -> list[str | None]:
        """Of the trades, as often as they arrived."""
        return [received.key for received in self.received if received.method == "POST"]

    def wait_until_closed(self, connection: int) -> None:
        with self.connection_closed:
            assert self.connection_closed.wait_for(lambda: connection in self.closed, timeout=10)

    def __enter__(self) -> FakeBourse:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.connection_closed:
            self.closed.add(self.connection_numbers[request])
            self.connection_closed.notify_all()

    def handle_error(self, *_arguments: object) -> None:
        """Connections that break are what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeBourse

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.connection_number = self.server.connections + 1
            self.server.connection_numbers[self.connection] = self.connection_number

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self.headers.get("Idempotency-Key")
        self.received = Received(self.command, self.path, key, body, self.connection_number)
        with self.server.lock:
            self.server.received.append(self.received)
            mischief = self._take_mischief()
        if mischief is not None:
            mischief(self)
        else:
            self.reply(self.answer())

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - as http.server looks for them

    def answer(self) -> Reply:
        """Does what was asked."""
        received = self.received
        with self.server.lock:
            try:
                reply = self._route(received)
            except Refusal as refusal:
                reply = refusal.reply
            self.server.before_reply(received, reply)
        return reply

    def reply(self, reply: Reply, *, cut_by: int = 0) -> None:
        """`cut_by` bytes fewer than Content-Length are sent."""
        is_text = isinstance(reply.body, str)
        body = (reply.body if is_text else json.dumps(reply.body)).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) - cut_by])

    def hang_up(self) -> None:
        self.close_connection = True

    def reset(self) -> None:
        """The other side sees the connection reset, not ended."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Closed before the server comes to shut it down, which would end it politely.
        self.connection.close()
        self.close_connection = True

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_arguments: object) -> None:
        pass

    def _take_mischief(self) -> Mischief | None:
        waiting = self.server.mischief
        if waiting and f"{self.command} {self.path}".startswith(waiting[0][0]):
            return waiting.popleft()[1]
        return None

    def _route(self, received: Received) -> Reply:
        parts = urlsplit(received.path)
        routes: dict[str, dict[str, Callable[[], Reply]]] = {
            "/hello": {"GET": lambda: Reply(200, f"Hello, {self._query('name')}!")},
            "/healthz": {"GET": lambda: Reply(200, "alive")},
            "/readyz": {"GET": lambda: Reply(200, "ready")},
            "/stocks": {"GET": self._lookup},
            "/orders": {"GET": self._order, "POST": lambda: self._trade(received)},
        }
        if parts.path not in routes:
            raise Refusal(404, "no such path")
        methods = routes[parts.path]
        if received.method not in methods:
            raise Refusal(405, "wrong method", Allow=", ".join(methods))
        return methods[received.method]()

    def _query(self, name: str) -> str:
        values = parse_qs(urlsplit(self.path).query).get(name, [""])
        if not 1 <= len(values[0]) <= 64:
            raise Refusal(400, f"{name} is missing or too long")
        return values[0]

    def _lookup(self) -> Reply:
        name = self._query("stockname")
        if name not in self.server.stocks:
            raise Refusal(404, "stock not found")
        hit = name in self.server.cached
        self.server.cached.add(name)
        data = {"name": name, "price": 25.78, "quantity": self.server.stocks[name]}
        return Reply(200, {"data": data}, {"X-Cache": "HIT" if hit else "MISS"})

    def _order(self) -> Reply:
        text = self._query("order-number")
        if not re.fullmatch(r"-?\d+", text):
            raise Refusal(400, "order-number is no integer")
        number = int(text)
        if not 1 <= number <= len(self.server.orders):
            raise Refusal(404, "order not found")
        return Reply(200, {"data": dict(self.server.orders[number - 1])})

    def _trade(self, received: Received) -> Reply:
        key = received.key
        trade = self._parse_trade(received)
        if key is None:
            return self._execute(trade)
        key = key.strip('"')
        if not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
            raise Refusal(400, "Idempotency-Key is malformed")
        if key in self.server.decisions:
            first, reply = self.server.decisions[key]
            if first != trade:
                raise Refusal(422, "another trade under that key")
            return Reply(
                reply.status, reply.body, {**reply.headers, "Idempotency-Replayed": "true"}
            )
        try:
            reply = self._execute(trade)
        except Refusal as refusal:
            reply = refusal.reply
        self.server.decisions[key] = (trade, reply)
        return reply

    def _parse_trade(self, received: Received) -> dict[str, Any]:
        if len(received.body) > 16 * 1024:
            raise Refusal(413, "too large")
        if self.headers.get_content_type() != "application/json":
            raise Refusal(415, "not JSON")
        try:
            trade = json.loads(received.body)
        except ValueError as error:
            raise Refusal(400, "malformed JSON") from error
        if not isinstance(trade, dict):
            raise Refusal(400, "not an object")
        name, quantity, type = trade.get("name"), trade.get("quantity"), trade.get("type")
        if not (isinstance(name, str) and 1 <= len(name) <= 64 and name.isprintable()):
            raise Refusal(400, "name is wrong")
        if not (isinstance(quantity, int) and not isinstance(quantity, bool)):
            raise Refusal(400, "quantity is no integer")
        if not 1 <= quantity <= 1_000_000_000:
            raise Refusal(400, "quantity is out of range")
        if type not in ("BUY", "SELL"):
            raise Refusal(400, "type is neither BUY nor SELL")
        return trade

    def _execute(self, trade: dict[str, Any]) -> Reply:
        name, quantity = trade["name"], trade["quantity"]
        if name not in self.server.stocks:
            raise Refusal(404, "stock not found")
        change = -quantity if trade["type"] == "BUY" else quantity
        if self.server.stocks[name] + change < 0:
            raise Refusal(404, "Trading not permitted due to insufficient volume")
        self.server.stocks[name] += change
        self.server.cached.discard(name)
        number = len(self.server.orders) + 1
        self.server.orders.append({"number": number, **trade})
        location = {"Location": f"/orders?order-number={number}"}
        return Reply(200, {"data": {"transaction_number": number}}, location)


def unavailable(handler: Handler) -> None:
    """A 503 in place of an answer; nothing is done."""
    body = {"error": {"code": 503, "message": "no leader"}}
    handler.reply(Reply(503, body, {"Retry-After": "1"}))


def lost_answer(handler: Handler) -> None:
    """The request is executed, and the connection ends without a word."""
    handler.answer()
    handler.hang_up()


def reset(handler: Handler) -> None:
    """The request is executed, and the connection reset."""
    handler.answer()
    handler.reset()


def half_an_answer(handler: Handler) -> None:
    handler.reply(handler.answer(), cut_by=5)
    handler.hang_up()


def last_answer(handler: Handler) -> None:
    """The right answer. Then the server closes the idle connection without a word."""
    handler.reply(handler.answer())
    handler.hang_up()


def garbage(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    handler.hang_up()


def silence(handler: Handler) -> None:
    """No answer for as long as the server lives."""
    handler.server.closing.wait(timeout=10)
    handler.hang_up()
