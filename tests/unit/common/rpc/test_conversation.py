"""Messages over a kept stream: it costs less than calls, and its errors mean the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.errors import (
    BourseError,
    Busy,
    Contradiction,
    Damaged,
    Internal,
    NotLeader,
    OutcomeUnknown,
    StaleEpoch,
    Unavailable,
    WrongPeer,
)
from common.replicas import ReplicaPeer
from common.rpc_client import Conversation
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.clock import Clock
from tests.support.replica_fakes import PATIENCE_S, Call, FakeReplica, answers, fails, serving
from tests.unit.common.rpc.rpc_services import Catalog, TwoAddresses, count_opened
from tests.unit.common.rpc.rpc_services import serving as serving_catalog

HASTY_S = 0.05


@pytest.fixture
def replica() -> FakeReplica:
    return FakeReplica(1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def peer(replica: FakeReplica, clock: Clock) -> Iterator[ReplicaPeer]:
    with serving(replica) as port, peer_at(f"127.0.0.1:{port}", clock) as peer:
        yield peer


@pytest.fixture
def conversation(peer: ReplicaPeer) -> Conversation:
    return conversation_with(peer)


@contextmanager
def peer_at(address: str, clock: Clock) -> Iterator[ReplicaPeer]:
    with closing(ReplicaPeer(1, address, clock)) as peer:
        yield peer


def conversation_with(peer: ReplicaPeer) -> Conversation:
    return peer.conversation("Trades", "TradeBatch")


def ask(conversation: Conversation, trades: int = 1, timeout_s: float = PATIENCE_S) -> int:
    """How many trades the answer is for."""
    message = bourse_pb2.TradeBatchRequest(
        trades=[bourse_pb2.TradeRequest()] * trades, timeout_ms=round(timeout_s * 1000)
    )
    return len(conversation.ask(message, timeout_s).outcomes)


def fail(
    conversation: Conversation, kind: type[BourseError], timeout_s: float = PATIENCE_S
) -> BourseError:
    with pytest.raises(kind) as raised:
        ask(conversation, timeout_s=timeout_s)
    assert type(raised.value) is kind
    return raised.value


def test_each_message_gets_its_answer_over_one_stream(
    replica: FakeReplica, conversation: Conversation
) -> None:
    assert [ask(conversation, trades) for trades in (1, 2, 3)] == [1, 2, 3]
    assert (replica.streams, len(replica.calls)) == (1, 3)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    "kind", [NotLeader, StaleEpoch, Contradiction, Damaged, Unavailable, OutcomeUnknown]
)
def test_a_refusal_is_the_one_that_a_call_would_have_got(
    replica: FakeReplica, conversation: Conversation, kind: type[BourseError], is_first: bool
) -> None:
    if not is_first:
        ask(conversation)
    replica.will("TradeBatch", fails(kind("and why")))
    assert fail(conversation, kind).message == "and why"
    assert ask(conversation, 2) == 2
    assert replica.streams == 2


def test_a_busy_server_gets_no_second_copy(
    replica: FakeReplica, conversation: Conversation
) -> None:
    ask(conversation)
    replica.will("TradeBatch", fails(Busy("too many trades at once")))
    assert fail(conversation, Busy).message == "too many trades at once"
    assert len(replica.calls) == 2


@pytest.mark.parametrize("act", [fails(ZeroDivisionError()), answers(bourse_pb2.Empty())])
def test_a_defect_of_the_server(replica: FakeReplica, conversation: Conversation, act: Any) -> None:
    replica.will("TradeBatch", act)
    with pytest.raises(BourseError):
        ask(conversation)
    assert ask(conversation) == 1


def test_a_stream_that_ends_without_an_answer(
    replica: FakeReplica, conversation: Conversation
) -> None:
    replica.will("TradeBatch", answers(None))
    fail(conversation, Unavailable)
    assert ask(conversation) == 1


def test_a_message_that_cannot_be_sent(conversation: Conversation) -> None:
    with pytest.raises(Internal):
        conversation.ask("no message", PATIENCE_S)
    assert ask(conversation) == 1


# ---------------------------------------------------------------- time


def test_a_late_answer_is_for_no_other_message(
    replica: FakeReplica, conversation: Conversation
) -> None:
    ask(conversation)
    replica.will("TradeBatch", replica.silent)
    fail(conversation, OutcomeUnknown, HASTY_S)
    replica.release()
    assert ask(conversation, 3) == 3
    assert replica.streams == 2


def test_the_server_learns_that_nobody_waits(
    replica: FakeReplica, conversation: Conversation
) -> None:
    replica.will("TradeBatch", replica.silent)
    fail(conversation, OutcomeUnknown, HASTY_S)
    (call,) = replica.calls
    wait_for(lambda: not call.is_active(), PATIENCE_S, "the stream was cancelled")


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_no_time_is_left(conversation: Conversation, timeout_s: float) -> None:
    fail(conversation, OutcomeUnknown, timeout_s)
    assert ask(conversation) == 1


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next() -> None:
    class Talkative(FakeReplica):
        def Trades(self, requests: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
            for answer in super().Trades(requests, context):
                yield answer
                yield answer

    talkative = Talkative(1)
    with serving(talkative) as port, peer_at(f"127.0.0.1:{port}", Clock()) as peer:
        conversation = conversation_with(peer)
        for trades in (1, 2):
            assert ask(conversation, trades) == trades
            stream = conversation._kept
            assert stream is not None
            wait_for(lambda s=stream: not s._answers.empty(), PATIENCE_S, "the second came")
        assert talkative.streams == 2


def test_answers_that_nobody_asked_for_do_not_pile_up() -> None:
    class Babbling(FakeReplica):
        def Trades(self, requests: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
            (answer,) = super().Trades(iter([next(requests)]), context)
            while context.is_active():
                yield answer

    babbling = Babbling(1)
    with serving(babbling) as port, peer_at(f"127.0.0.1:{port}", Clock()) as peer:
        conversation = conversation_with(peer)
        ask(conversation)
        (call,) = babbling.calls
        wait_for(lambda: not call.is_active(), PATIENCE_S, "the stream was cancelled")
        assert ask(conversation, 2) == 2


# ---------------------------------------------------------------- the server dies, or is another


def test_a_server_that_dies_in_the_middle(tmp_path: Path, clock: Clock) -> None:
    address = f"unix:{tmp_path}/1"
    with peer_at(address, clock) as peer, ThreadPoolExecutor(1) as executor:
        conversation = conversation_with(peer)
        with serving(dying := FakeReplica(1), address):
            ask(conversation)
            dying.will("TradeBatch", dying.silent)
            asking = executor.submit(fail, conversation, Unavailable)
            wait_for(lambda: len(dying.calls) == 2, PATIENCE_S, "the message is there")
        asking.result(PATIENCE_S)
        with serving(FakeReplica(1), address):
            wait_for(lambda: answers_again(conversation, clock), PATIENCE_S, "it is found again")


def answers_again(conversation: Conversation, clock: Clock) -> bool:
    clock.pass_by(0.1)
    try:
        return ask(conversation) == 1
    except Unavailable:
        return False


def test_a_stream_that_ended_between_two_messages_is_nobodys_error(
    tmp_path: Path, clock: Clock
) -> None:
    address = f"unix:{tmp_path}/1"
    with peer_at(address, clock) as peer:
        conversation = conversation_with(peer)
        with serving(FakeReplica(1), address):
            ask(conversation)
            stream = conversation._kept
            assert stream is not None
        wait_for(lambda: not stream._answers.empty(), PATIENCE_S, "it heard of the end")
        with serving(FakeReplica(1), address):
            assert ask(conversation) == 1


def test_an_answer_of_another_replica_is_not_believed(tmp_path: Path, clock: Clock) -> None:
    addresses, second = TwoAddresses(tmp_path), FakeReplica(2)
    with (
        serving(FakeReplica(1), addresses.first),
        serving(second, addresses.second),
        peer_at(addresses.first, clock) as peer,
    ):
        conversation = conversation_with(peer)
        addresses.swap()
        fail(conversation, WrongPeer)
        addresses.swap()
        assert ask(conversation) == 1
        assert len(second.calls) == 1


def test_a_stream_over_a_channel_that_was_replaced_is_not_kept(
    replica: FakeReplica, peer: ReplicaPeer, conversation: Conversation
) -> None:
    ask(conversation)
    (call,) = replica.calls
    peer._replace(peer._connection, now=1.0)
    assert call.is_active()
    assert ask(conversation) == 1
    assert replica.streams == 2
    wait_for(lambda: not call.is_active(), PATIENCE_S, "the old stream was cancelled")


@pytest.mark.parametrize(("kind", "patience_s"), [(OutcomeUnknown, 2.0), (Unavailable, 0.5)])
def test_a_channel_whose_streams_fail_is_replaced(
    replica: FakeReplica,
    conversation: Conversation,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    *,
    kind: type[BourseError],
    patience_s: float,
) -> None:
    opened = count_opened(monkeypatch)
    is_silent = kind is OutcomeUnknown
    replica.always("TradeBatch", replica.silent if is_silent else fails(Unavailable()))
    timeout_s = HASTY_S if is_silent else PATIENCE_S
    fail(conversation, kind, timeout_s)
    clock.pass_by(patience_s - 0.1)
    fail(conversation, kind, timeout_s)
    assert opened == []
    clock.pass_by(0.1)
    fail(conversation, kind, timeout_s)
    assert len(opened) == 1


def test_a_server_of_another_service_is_another_peer(clock: Clock) -> None:
    with serving_catalog(Catalog()) as port, peer_at(f"127.0.0.1:{port}", clock) as peer:
        fail(conversation_with(peer), WrongPeer)


# ---------------------------------------------------------------- no place for a stream


def test_without_a_place_for_a_stream_each_message_is_a_call_for_a_while(
    replica: FakeReplica, conversation: Conversation, clock: Clock
) -> None:
    replica.has_place = False
    for trades in (1, 2, 3):
        assert ask(conversation, trades) == trades
    assert (replica.streams, len(replica.calls)) == (1, 3)
    replica.has_place = True
    clock.pass_by(30.0)
    for _ in range(2):
        assert ask(conversation) == 1
    assert (replica.streams, len(replica.calls)) == (2, 5)


def test_the_call_instead_has_the_time_that_is_left(
    replica: FakeReplica, conversation: Conversation, clock: Clock
) -> None:
    timeouts_s: list[float] = []

    def refuse_late(_call: Call) -> Any:
        clock.pass_by(4.0)
        raise Busy

    def note(call: Call) -> Any:
        timeouts_s.append(call.timeout_s)
        return replica.usual(call)

    replica.will("TradeBatch", refuse_late, note)
    assert ask(conversation) == 1
    assert 0 < timeouts_s[0] <= PATIENCE_S - 4.0 + 0.1


# ---------------------------------------------------------------- the end


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name != "MainThread"]


def test_closing_ends_the_stream_and_its_threads(
    replica: FakeReplica,
    peer: ReplicaPeer,
    conversation: Conversation,
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer.call("IsAlive", bourse_pb2.Empty(), PATIENCE_S)
    before = set(threads())
    ask(conversation)
    (call,) = replica.calls_of("TradeBatch")
    of_the_stream = [one for one in threads() if one not in before]
    assert any(one.name == "read-Trades" for one in of_the_stream)
    conversation.close()
    wait_for(lambda: not call.is_active(), PATIENCE_S, "the server knows")
    ours = [one for one in of_the_stream if not one.name.startswith("rpc")]  # the server's stay
    wait_for(lambda: not any(one.is_alive() for one in ours), PATIENCE_S, lambda: str(ours))
    conversation.close()
    assert ask(conversation) == 1
    assert caplog.text == "", "it is no error for the server either"


def test_a_message_that_is_out_ends_when_the_peer_is_closed(
    replica: FakeReplica, peer: ReplicaPeer, conversation: Conversation
) -> None:
    replica.will("TradeBatch", replica.silent)
    with ThreadPoolExecutor(1) as executor:
        asking = executor.submit(fail, conversation, Unavailable)
        wait_for(lambda: len(replica.calls) == 1, PATIENCE_S, "the message is there")
        peer.close()
        asking.result(PATIENCE_S)
    assert "this side is stopping" in fail(conversation, Unavailable).message


def test_closing_the_peer_ends_the_threads_of_an_idle_stream(
    peer: ReplicaPeer, conversation: Conversation
) -> None:
    ask(conversation)
    stream = conversation._kept
    assert stream is not None
    peer.close()
    wait_for(lambda: not stream._answers.empty(), PATIENCE_S, "its reader has ended")
