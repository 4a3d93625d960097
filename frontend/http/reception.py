"""When a request has arrived: its framing (RFC 9112, section 6), found without waiting for it.

This only says when to begin. What the bytes mean is for the server's own parser to say, which
sees no byte beyond those received: where the two disagree the request fails, alone.
"""

from __future__ import annotations

import re
from enum import Enum

# Line, headers and body of one request, as sent. What is longer is refused, not kept.
MAX_REQUEST_BYTES = 64 * 1024

_EMPTY_LINE = b"\r\n"
_END_OF_HEAD = b"\r\n\r\n"
# Blanks are stripped afterwards: a pattern that says where they may be has too many ways to match
# a long line of them, and would try them all.
_FRAMING = re.compile(
    rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:([^\r\n]*)(?=\r\n)", re.IGNORECASE
)
_LENGTH = re.compile(rb"[0-9]{1,9}")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?", re.DOTALL)


class Arrival(Enum):
    NOTHING = "nothing"
    PART = "part"
    WHOLE = "whole"  # and perhaps some of the next
    # Longer than is taken, or of a length that cannot be told. Where the next request begins
    # is unknown.
    ENDLESS = "endless"


class Reception:
    """The bytes that came in on one connection and that nobody has read yet.

    Goes on where it stopped, so that small pieces cost no more than large ones.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._reset()

    def _reset(self) -> None:
        self._searched = 0  # up to here there is no end of the head
        self._has_head = False
        self._is_chunked = False
        self._known_length = 0  # the request has these many bytes at least
        self.expects_continue = False

    def add(self, data: bytes) -> Arrival:
        """Takes what came, and tells how far the first request has come."""
        self._bytes += data
        if not self._has_head:
            self._skip_empty_lines()
        arrival = self._arrival()
        if arrival is Arrival.PART and self._exceeds_limit():
            return Arrival.ENDLESS
        return arrival

    def take(self) -> bytes:
        """Everything received; the next request begins anew."""
        taken = bytes(self._bytes)
        self._bytes.clear()
        self._reset()
        return taken

    @property
    def has_head(self) -> bool:
        return self._has_head

    @property
    def has_request_line(self) -> bool:
        return b"\r\n" in self._bytes

    def _exceeds_limit(self) -> bool:
        return max(len(self._bytes), self._known_length) > MAX_REQUEST_BYTES

    def _skip_empty_lines(self) -> None:
        """Some clients send one behind a body; it begins no request (RFC 9112, section 2.2)."""
        while self._bytes.startswith(_EMPTY_LINE):
            del self._bytes[: len(_EMPTY_LINE)]

    def _arrival(self) -> Arrival:
        if not self._bytes:
            return Arrival.NOTHING
        if not self._has_head:
            end = self._bytes.find(_END_OF_HEAD, self._searched)
            if end < 0:
                self._searched = max(0, len(self._bytes) - len(_END_OF_HEAD) + 1)
                return Arrival.PART
            self._has_head = True
            self._known_length = end + len(_END_OF_HEAD)
            if not self._read_framing(end):
                return Arrival.ENDLESS
        if self._is_chunked:
            return self._chunks_arrival()
        return Arrival.WHOLE if len(self._bytes) >= self._known_length else Arrival.PART

    def _read_framing(self, end_of_head: int) -> bool:
        """Whether the head says where the body ends."""
        framing: list[tuple[bytes, bytes]] = []
        for name, padded_value in _FRAMING.findall(self._bytes, 0, end_of_head + 2):
            value = padded_value.strip(b" \t").lower()
            if name.lower() == b"expect" and value == b"100-continue":
                self.expects_continue = self._is_http_1_1()
            else:
                framing.append((name.lower(), value))
        if not framing:
            return True
        name, value = framing[0]
        if len(framing) > 1 or name == b"expect":
            return False
        if name == b"transfer-encoding":
            self._is_chunked = True
            return value == b"chunked"
        if not _LENGTH.fullmatch(value):
            return False
        self._known_length += int(value)
        return True

    def _is_http_1_1(self) -> bool:
        """HTTP/1.0 does not know what to do with a 100."""
        return self._bytes.endswith(b" HTTP/1.1", 0, self._bytes.find(b"\r\n"))

    def _chunks_arrival(self) -> Arrival:
        """`_known_length` is where the line with the next chunk's size begins."""
        while (end := self._bytes.find(b"\r\n", self._known_length)) >= 0:
            size = _CHUNK_SIZE.fullmatch(self._bytes, self._known_length, end)
            if size is None:
                return Arrival.ENDLESS
            length = int(size[1], 16)
            if length == 0:  # then trailers may follow, and an empty line
                is_whole = self._bytes.find(_END_OF_HEAD, end) >= 0
                return Arrival.WHOLE if is_whole else Arrival.PART
            self._known_length = end + 2 + length + 2
        return Arrival.PART
