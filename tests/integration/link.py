"""A network link that can be cut: a TCP forwarder on loopback, in a thread of its own."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import Enum
from typing import Any

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
        target_port: where the connections go on to.
    """

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self._target_port = target_port
        self._listener: asyncio.Server | None = None
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
        self._run(self._set(mode))

    def close(self) -> None:
        self.set(Mode.REFUSED)
        self._run(self._forget_the_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    async def _set(self, mode: Mode) -> None:
        _set_gate(self._requests_pass, is_open=mode in (Mode.OPEN, Mode.ONE_WAY))
        _set_gate(self._answers_pass, is_open=mode is Mode.OPEN)
        if mode is Mode.REFUSED:
            await self._refuse()
        elif self._listener is None:
            self._listener = await asyncio.start_server(self._accept, HOST, self.port)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)  # in which the sockets are closed

    async def _forget_the_rest(self) -> None:
        """Who came as the listener closed: its writer must not outlive the loop."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        del rest
        gc.collect()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if len(self._connections) <= _MAX_CONNECTIONS:
                await self._forward(reader, writer)
        except (asyncio.CancelledError, OSError):
            pass  # cut, or one of the two sides is gone: either way this connection ends
        finally:
            self._connections.discard(task)
            _reset(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._requests_pass.wait()
        from_target, to_target = await asyncio.open_connection(HOST, self._target_port)
        requests = asyncio.ensure_future(_pump(reader, to_target, self._requests_pass))
        answers = asyncio.ensure_future(_pump(from_target, writer, self._answers_pass))
        try:
            await asyncio.gather(requests, answers)
        finally:
            requests.cancel()
            answers.cancel()
            await asyncio.gather(requests, answers, return_exceptions=True)
            _reset(to_target)


def _set_gate(gate: asyncio.Event, *, is_open: bool) -> None:
    if is_open:
        gate.set()
    else:
        gate.clear()


async def _pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event
) -> None:
    """Passes on what comes, up to and with its end, while the gate is open."""
    data = b"?"
    while data:
        data = await source.read(_CHUNK_BYTES)
        await gate.wait()
        sink.write(data)
        await sink.drain()
    sink.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
