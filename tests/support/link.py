"""A network link that can be cut: a TCP forwarder on loopback, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from enum import Enum

HOST = "127.0.0.1"

_MAX_CONNECTIONS = 500
_CHUNK_BYTES = 65_536
_TIMEOUT_S = 5.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of no time


class Mode(Enum):
    OPEN = "open"
    SILENT = "silent"  # connections stay open and nothing passes, either way
    ONE_WAY = "one-way"  # requests pass, answers do not
    REFUSED = "refused"  # every connection is reset, and new ones are refused


class Link:
    """Forwards connections to a port, as its mode has it.

    What a silent link holds back is not lost: as with TCP it arrives when the link is open
    again, even if the sender has given up long before.

    Args:
        port: where it listens; below the range of outgoing connections, or a client of a
            refusing link may end up connected to itself.
        target_port: where the connections go on to. New ones follow it when it is changed, as
            they follow a name that leads elsewhere.
    """

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self.target_port = target_port
        self._listener: socket.socket | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._requests_pass = asyncio.Event()
        self._answers_pass = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"link-{port}", daemon=True
        )
        self._thread.start()
        self.set(Mode.OPEN)

    def set(self, mode: Mode) -> None:
        """Returns once the link is in the mode."""
        asyncio.run_coroutine_threadsafe(self._set(mode), self._loop).result(_TIMEOUT_S)

    def close(self) -> None:
        self.set(Mode.REFUSED)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()

    async def _set(self, mode: Mode) -> None:
        _set_gate(self._requests_pass, is_open=mode in (Mode.OPEN, Mode.ONE_WAY))
        _set_gate(self._answers_pass, is_open=mode is Mode.OPEN)
        if mode is Mode.REFUSED:
            await self._refuse()
        elif self._listener is None:
            self._listener = socket.create_server((HOST, self.port), backlog=_MAX_CONNECTIONS)
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._accept, self._listener)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    # Sockets, not streams: those of a stream server belong to nobody for a moment after they
    # are accepted, and who stops the loop then leaves them open.
    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _address = listener.accept()
        except OSError:  # who came has gone again
            return
        task = self._loop.create_task(self._serve(_socket(client)))
        self._connections.add(task)

        def ended(_task: asyncio.Task[None]) -> None:
            self._connections.discard(task)
            _reset(client)

        # Not in the task itself: one that is cancelled before it began runs no line of it.
        task.add_done_callback(ended)

    async def _serve(self, client: socket.socket) -> None:
        with suppress(asyncio.CancelledError, OSError):  # cut, or one of the two sides is gone
            if len(self._connections) <= _MAX_CONNECTIONS:
                await self._forward(client)

    async def _forward(self, client: socket.socket) -> None:
        await self._requests_pass.wait()
        target = _socket(socket.socket())
        try:
            await self._loop.sock_connect(target, (HOST, self.target_port))
            requests = asyncio.ensure_future(self._pump(client, target, self._requests_pass))
            answers = asyncio.ensure_future(self._pump(target, client, self._answers_pass))
            try:
                await asyncio.gather(requests, answers)
            finally:
                requests.cancel()
                answers.cancel()
                await asyncio.gather(requests, answers, return_exceptions=True)
        finally:
            _reset(target)

    async def _pump(self, source: socket.socket, sink: socket.socket, gate: asyncio.Event) -> None:
        """Passes on what comes, up to and with its end, while the gate is open."""
        while data := await self._loop.sock_recv(source, _CHUNK_BYTES):
            await gate.wait()
            await self._loop.sock_sendall(sink, data)
        await gate.wait()
        sink.shutdown(socket.SHUT_WR)


def _set_gate(gate: asyncio.Event, *, is_open: bool) -> None:
    if is_open:
        gate.set()
    else:
        gate.clear()


def _socket(connection: socket.socket) -> socket.socket:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    connection.close()
