"""A peer takes answers from its own replica only; and several peers are asked at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from common import logs, rpc_client
from common.errors import BourseError, Busy, OutcomeUnknown, Unavailable, WrongPeer
from common.replicas import ReplicaPeer, ask_all
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.replica_fakes import (
    PATIENCE_S,
    Call,
    FakeReplica,
    Replicas,
    answers,
    fails,
    serving,
)
from tests.unit.common.rpc.rpc_services import TwoAddresses, count_opened

EMPTY = bourse_pb2.Empty()
NOBODY = "127.0.0.1:1"


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    replicas = Replicas()
    yield replicas
    replicas.close()


@pytest.fixture
def second() -> FakeReplica:
    return FakeReplica(2)


@pytest.fixture
def addresses(tmp_path: Path, second: FakeReplica) -> Iterator[TwoAddresses]:
    """Those of replicas 1 and 2."""
    addresses = TwoAddresses(tmp_path)
    with serving(FakeReplica(1), addresses.first), serving(second, addresses.second):
        yield addresses


@pytest.fixture
def peer(addresses: TwoAddresses) -> Iterator[ReplicaPeer]:
    peer = ReplicaPeer(1, addresses.first)
    yield peer
    peer.close()


def is_alive(peer: ReplicaPeer, timeout_s: float = PATIENCE_S) -> Any:
    return peer.call("IsAlive", EMPTY, timeout_s)


# ---------------------------------------------------------------- one peer


def test_an_answer_that_names_the_replica_is_believed(replicas: Replicas) -> None:
    replicas[2].last_number = 7
    assert is_alive(replicas.peers[2]).last_number == 7


def test_an_answer_of_another_replica_is_not_believed(
    addresses: TwoAddresses, peer: ReplicaPeer
) -> None:
    addresses.swap()
    with pytest.raises(Unavailable, match="answered by replica 2"):
        is_alive(peer)


def test_the_channel_made_anew_reaches_the_replica_where_it_is_now(
    addresses: TwoAddresses, second: FakeReplica, peer: ReplicaPeer
) -> None:
    addresses.swap()
    with pytest.raises(Unavailable):
        is_alive(peer)
    addresses.swap()
    assert is_alive(peer).replica_id == 1
    assert is_alive(peer).replica_id == 1
    assert len(second.seen("IsAlive")) == 1


def test_the_channel_made_anew_shares_no_connection_with_the_old_one(
    addresses: TwoAddresses, second: FakeReplica, peer: ReplicaPeer
) -> None:
    """Even while the old one is still open for a call in flight."""
    addresses.swap()
    second.will("Trade", second.silent)
    pending = peer.start("Trade", bourse_pb2.TradeRequest(), PATIENCE_S)
    with pytest.raises(Unavailable):
        is_alive(peer)
    addresses.swap()
    assert is_alive(peer).replica_id == 1
    second.release()
    with pytest.raises(Unavailable, match="answered by replica 2"):
        pending.answer()


def test_a_name_that_stays_wrong_is_tried_anew_at_a_bounded_pace(
    addresses: TwoAddresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids can be swapped in the settings, and then no new channel helps."""
    now = 0.0
    opened = count_opened(monkeypatch)
    with closing(ReplicaPeer(1, addresses.first, lambda: now)) as peer:
        addresses.swap()
        for _ in range(50):
            with pytest.raises(WrongPeer):
                is_alive(peer)
        assert len(opened) == 2  # another one at once, and no more
        addresses.swap()
        now += 0.5
        with pytest.raises(WrongPeer):
            is_alive(peer)
        assert is_alive(peer).replica_id == 1


def test_calls_in_flight_on_the_old_channel_end_by_themselves(
    addresses: TwoAddresses, second: FakeReplica, peer: ReplicaPeer
) -> None:
    """The wrong replica may hold a trade that it will execute: cancelling would help nobody."""
    addresses.swap()
    was_active: list[bool] = []

    def answer_late(call: Call) -> Any:
        answer = second.silent(call)
        was_active.append(call.is_active())
        return answer

    second.will("Trade", answer_late)
    pending = peer.start("Trade", bourse_pb2.TradeRequest(), PATIENCE_S)
    with pytest.raises(Unavailable):
        is_alive(peer)
    second.release()
    with pytest.raises(Unavailable, match="answered by replica 2"):
        pending.answer()
    assert was_active == [True]


def test_answers_to_the_old_channel_leave_the_new_one_alone(
    addresses: TwoAddresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    opened = count_opened(monkeypatch)
    with closing(ReplicaPeer(1, addresses.first, lambda: now)) as peer:
        addresses.swap()
        late = [peer.start("IsAlive", EMPTY, PATIENCE_S) for _ in range(4)]
        for pending in late:
            with pytest.raises(Unavailable):
                pending.answer()
            now += 10
    assert len(opened) == 2


@pytest.mark.parametrize("error", [Busy("full"), OutcomeUnknown("who knows")])
def test_an_error_comes_back_as_itself(replicas: Replicas, error: BourseError) -> None:
    replicas[1].will("IsAlive", fails(error))
    with pytest.raises(type(error), match=error.message):
        is_alive(replicas.peers[1])


def test_a_silent_replica_leaves_the_outcome_unknown(replicas: Replicas) -> None:
    replicas[1].will("IsAlive", replicas[1].silent)
    with pytest.raises(OutcomeUnknown):
        is_alive(replicas.peers[1], timeout_s=0.1)


def test_a_replica_that_is_gone_is_unavailable_at_once(replicas: Replicas) -> None:
    is_alive(replicas.peers[1])
    replicas.kill(1)
    started = time.monotonic()
    with pytest.raises(Unavailable):
        is_alive(replicas.peers[1])
    assert time.monotonic() - started < PATIENCE_S / 2


def test_a_replica_that_comes_back_is_found_again(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/1"
    peer = ReplicaPeer(1, address)
    for _ in range(2):
        with serving(FakeReplica(1), address):
            wait_for(lambda: _answers(peer), PATIENCE_S, "connected again")
    peer.close()


def _answers(peer: ReplicaPeer) -> bool:
    try:
        return bool(is_alive(peer).replica_id == 1)
    except Unavailable:
        return False


def test_the_id_of_the_request_being_served_goes_with_the_call(replicas: Replicas) -> None:
    before = logs.request_id.set("key-1")
    is_alive(replicas.peers[1])
    logs.request_id.reset(before)
    (call,) = replicas[1].calls_of("IsAlive")
    assert call.metadata[rpc_client.REQUEST_ID_KEY] == "key-1"


# ---------------------------------------------------------------- streams


def test_a_stream_gives_its_items_and_ends_with_the_error_of_the_family(
    replicas: Replicas,
) -> None:
    def one_row_and_no_more(_call: Call) -> Iterator[Any]:
        yield bourse_pb2.OrderDBItem(number=1)
        raise Busy("too many streams at once")

    replicas[1].will("SyncOrderDB", one_row_and_no_more)
    stream = replicas.peers[1].stream("SyncOrderDB", bourse_pb2.SyncRequest(), PATIENCE_S)
    assert next(stream).number == 1
    with pytest.raises(Busy, match="too many streams"):
        next(stream)


def test_the_deadline_of_a_stream_is_for_all_of_it(replicas: Replicas) -> None:
    replicas[1].will("SyncOrderDB", replicas[1].silent)
    with pytest.raises(OutcomeUnknown):
        list(replicas.peers[1].stream("SyncOrderDB", bourse_pb2.SyncRequest(), 0.1))


# ---------------------------------------------------------------- closed channels


def test_a_closed_channel_is_unavailable(replicas: Replicas) -> None:
    replicas.peers[1].close()
    with pytest.raises(Unavailable):
        is_alive(replicas.peers[1])


def test_a_stream_of_a_closed_channel_is_unavailable(replicas: Replicas) -> None:
    replicas.peers[1].close()
    with pytest.raises(Unavailable):
        list(replicas.peers[1].stream("SyncOrderDB", bourse_pb2.SyncRequest(), PATIENCE_S))


def test_closing_ends_a_call_in_flight(replicas: Replicas) -> None:
    replicas[1].will("IsAlive", replicas[1].silent)
    with ThreadPoolExecutor(1) as executor:
        call = executor.submit(is_alive, replicas.peers[1])
        wait_for(lambda: replicas[1].seen("IsAlive"), PATIENCE_S, "the call arrived")
        replicas.peers[1].close()
        with pytest.raises(Unavailable):
            call.result(PATIENCE_S)


def test_one_closed_channel_does_not_keep_the_others_from_being_asked(replicas: Replicas) -> None:
    replicas.peers[2].close()
    asked = dict(ask(replicas))
    assert asked[1].replica_id == 1
    assert isinstance(asked[2], Unavailable)
    assert asked[3].replica_id == 3


# ---------------------------------------------------------------- asking all


def ask(replicas: Replicas, timeout_s: float = PATIENCE_S) -> Iterator[tuple[int, Any]]:
    for peer, answer in ask_all(replicas.peers.values(), "IsAlive", EMPTY, timeout_s):
        yield peer.replica_id, answer


def test_answers_come_as_they_are_given(replicas: Replicas) -> None:
    replicas[1].will("IsAlive", replicas[1].silent)
    arriving = ask(replicas)
    first_two = {next(arriving)[0], next(arriving)[0]}
    assert first_two == {2, 3}
    replicas[1].release()
    last_id, answer = next(arriving)
    assert (last_id, answer.replica_id) == (1, 1)
    assert list(arriving) == []


def test_every_peer_is_heard_of_once(replicas: Replicas) -> None:
    replicas[1].will("IsAlive", fails(Busy("full")))
    replicas.kill(2)
    replicas[3].will("IsAlive", answers(bourse_pb2.AliveResponse(replica_id=1)))
    asked = list(ask(replicas))
    kinds = {replica_id: type(answer) for replica_id, answer in asked}
    assert kinds == {1: Busy, 2: Unavailable, 3: WrongPeer}
    assert len(asked) == 3


def test_silent_peers_cost_one_timeout_together(replicas: Replicas) -> None:
    timeout_s = 3.0
    for replica_id in (1, 3):
        replicas[replica_id].will("IsAlive", replicas[replica_id].silent)
    started = time.monotonic()
    arriving = ask(replicas, timeout_s)
    assert next(arriving)[0] == 2
    late = list(arriving)
    assert time.monotonic() - started < 2 * timeout_s
    assert sorted(replica_id for replica_id, _ in late) == [1, 3]
    assert all(isinstance(answer, Unavailable | OutcomeUnknown) for _, answer in late)


def test_who_has_heard_enough_waits_no_longer(replicas: Replicas) -> None:
    for replica_id in (1, 3):
        replicas[replica_id].will("IsAlive", replicas[replica_id].silent)
    started = time.monotonic()
    for replica_id, _ in ask(replicas, timeout_s=PATIENCE_S):
        assert replica_id == 2
        break
    assert time.monotonic() - started < PATIENCE_S / 2


def test_nobody_to_ask() -> None:
    assert list(ask_all([], "IsAlive", EMPTY, PATIENCE_S)) == []


def test_an_address_where_nobody_listens(replicas: Replicas) -> None:
    peer = ReplicaPeer(4, NOBODY)
    ((_, answer),) = ask_all([peer], "IsAlive", EMPTY, PATIENCE_S)
    assert isinstance(answer, Unavailable)
    peer.close()
