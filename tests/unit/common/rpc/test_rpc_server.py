"""A server keeps within its bounds, and stops in time though streams are open."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from common import rpc_server
from common.errors import Busy, Unavailable
from common.replicas import ReplicaPeer
from common.rpc_client import Conversation
from common.rpc_server import Slots
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.replica_fakes import PATIENCE_S, SERVICE, Call, FakeReplica, serving


def test_who_finds_none_free_is_refused() -> None:
    slots = Slots(2, "too many streams at once")
    with ExitStack() as held:
        held.enter_context(slots.taken())
        held.enter_context(slots.taken())
        with pytest.raises(Busy, match="too many streams at once"), slots.taken():
            pass
    with slots.taken(), slots.taken():
        pass


def test_an_error_gives_the_place_back() -> None:
    slots = Slots(1, "full")
    for _ in range(2):
        with pytest.raises(KeyError), slots.taken():
            raise KeyError


# ---------------------------------------------------------------- health


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize("active", [True, False])
def test_alive_and_active_are_said_apart(alive: bool, active: bool) -> None:
    server = rpc_server.RpcServer("127.0.0.1:0", threads=4, queue_limit=4)
    port = server.start([SERVICE])
    try:
        with closing(ReplicaPeer(1, f"127.0.0.1:{port}")) as peer:
            for serving_all in (True, False):
                server.set_serving(serving_all)
                assert _said(peer) == (serving_all, serving_all)
            server.set_alive(alive)
            server.set_active(active)
            assert _said(peer) == (alive, active)
    finally:
        server.stop(0)


def _said(peer: ReplicaPeer) -> tuple[bool, bool]:
    """Whether the process, and whether its service, is said to serve."""
    return peer.is_serving("", PATIENCE_S), peer.is_serving(SERVICE, PATIENCE_S)


# ---------------------------------------------------------------- stopping


class World:
    """A server, peers of it and their conversations with it."""

    def __init__(self, resources: ExitStack) -> None:
        self.replica = FakeReplica(1)
        self._peers = resources.enter_context(ExitStack())
        self.server = resources.enter_context(ExitStack())
        self._port = self.server.enter_context(serving(self.replica, grace_s=PATIENCE_S))

    def conversation(self) -> Conversation:
        peer = self._peers.enter_context(closing(ReplicaPeer(1, f"127.0.0.1:{self._port}")))
        return peer.conversation("Trades", "TradeBatch")


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as resources:
        yield World(resources)


def ask(conversation: Conversation) -> Any:
    return conversation.ask(bourse_pb2.TradeBatchRequest(), PATIENCE_S)


def test_idle_streams_do_not_delay_a_stop(world: World) -> None:
    for _ in range(3):
        ask(world.conversation())
    started = time.monotonic()
    world.server.close()
    assert time.monotonic() - started < rpc_server._STREAM_GRACE_S / 2


def test_a_message_that_is_out_is_answered_before_the_server_stops(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_server, "_STREAM_GRACE_S", 0.05)
    may_answer = threading.Event()

    def answer_late(call: Call) -> Any:
        assert may_answer.wait(PATIENCE_S)
        return world.replica.usual(call)

    world.replica.will("TradeBatch", answer_late)
    conversation = world.conversation()
    with ThreadPoolExecutor(2) as executor:
        asking = executor.submit(ask, conversation)
        wait_for(lambda: world.replica.calls, PATIENCE_S, "the message is there")
        stopping = executor.submit(world.server.close)
        with pytest.raises(TimeoutError):
            stopping.result(0.3)  # longer than it waits for streams of answers
        may_answer.set()
        assert asking.result(PATIENCE_S).replica_id == 1
        stopping.result(PATIENCE_S)
    with pytest.raises(Unavailable):
        ask(conversation)
    assert len(world.replica.calls) == 1
