"""The sockets of clients: what is sent together, and what the kernel is not told again."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from frontend.http.connections import ClientSocket, OneSegment


class Client(socket.socket):
    """Counts what it is made to send."""

    sent: list[bytes]

    def sendall(self, data: bytes, *_flags: int) -> None:  # type: ignore[override]
        self.sent.append(data)


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as client:
        client.sent = []
        yield client


def test_head_and_body_go_together_and_the_rest_as_it_comes(client: Client) -> None:
    answer = OneSegment(client)
    answer.sendall(b"head ")
    assert client.sent == []
    for part in (b"body", b"more", b"end"):
        answer.sendall(part)
    answer.flush()
    assert client.sent == [b"head body", b"more", b"end"]


def test_a_head_without_a_body_goes_at_the_end(client: Client) -> None:
    answer = OneSegment(client)
    answer.sendall(b"head")
    answer.flush()
    answer.flush()
    assert client.sent == [b"head"]


def test_nothing_is_sent_of_no_answer(client: Client) -> None:
    OneSegment(client).flush()
    assert client.sent == []


def test_whatever_else_is_done_with_the_socket_comes_after_the_head(client: Client) -> None:
    answer = OneSegment(client)
    answer.sendall(b"head")
    assert answer.fileno() == client.fileno()
    assert client.sent == [b"head"]


def test_a_client_is_told_to_block_only_when_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    ours, theirs = socket.socketpair()
    with theirs, ClientSocket.of(ours) as client:
        monkeypatch.setattr(socket.socket, "setblocking", lambda _self, flag: told.append(flag))
        client.setblocking(True)
        assert told == []
        client.setblocking(False)
        assert told == [False]
        client.sendall(b"taken over")
        assert theirs.recv(100) == b"taken over"
        assert ours.fileno() == -1
