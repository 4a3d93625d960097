"""A name server on loopback, whose answers a test changes as it goes."""

from __future__ import annotations

import socket
import struct
import threading

# Of the messages: names end with a zero byte, a question's type and class follow.
_HEADER_BYTES = 12
_TYPE_A = 1
_NO_SUCH_NAME = 3


class NameServer:
    """Knows one name. `silent` while it answers nothing at all."""

    def __init__(self) -> None:
        self.address: str | None = None  # an IPv4 address; None: there is no such name
        self.is_silent = False
        self.questions = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def target(self, port: int) -> str:
        """What a gRPC channel that asks this server is opened with."""
        return f"dns://127.0.0.1:{self._socket.getsockname()[1]}/peer.test:{port}"

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(512)
            if not question:
                return
            self.questions += 1
            if not self.is_silent:
                self._socket.sendto(self._answer(question), sender)

    def _answer(self, question: bytes) -> bytes:
        end = question.index(0, _HEADER_BYTES) + 5
        (kind,) = struct.unpack_from(">H", question, end - 4)
        address = self.address
        code = _NO_SUCH_NAME if address is None else 0
        has_record = address is not None and kind == _TYPE_A
        header = struct.pack(">2sHHHHH", question[:2], 0x8180 | code, 1, int(has_record), 0, 0)
        answer = header + question[_HEADER_BYTES:end]
        if not has_record or address is None:
            return answer
        # The name as in the question, at most a second old when it is used again.
        record = struct.pack(">HHHIH", 0xC000 | _HEADER_BYTES, _TYPE_A, 1, 1, 4)
        return answer + record + socket.inet_aton(address)
