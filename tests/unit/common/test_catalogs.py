"""Several catalogs used as one: which one is asked, which is believed, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import grpc
import pytest

from common.catalogs import CatalogPeer, Catalogs, Cluster, open_catalog
from common.errors import (
    BourseError,
    Busy,
    Contradiction,
    Internal,
    NotActive,
    OutcomeUnknown,
    StaleEpoch,
    Unavailable,
    WrongPeer,
)
from common.pulls import read_rows
from common.rpc_client import Peer
from common.rpc_server import RpcServer
from proto import bourse_pb2, bourse_pb2_grpc
from tests.support.clock import Clock
from tests.support.mechanisms import taken_out

CATALOG = "bourse.v1.CatalogService"
OURS = "b1946ac9-2f5c-4b58-9d0e-6a3f1c0e7d11"
THEIRS = "0cc175b9-c0f1-46b6-831c-399e26977266"
PATIENCE_S = 10.0
HASTY_S = 0.1
ROW = bourse_pb2.OrderDBItem(number=1, name="stock1", quantity=1)


class Catalog(bourse_pb2_grpc.CatalogServiceServicer):
    """Answers every method, or fails with `error`; is silent while `may_answer` is clear."""

    def __init__(self) -> None:
        self.cluster_id = OURS
        self.error: BourseError | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked: list[str] = []
        self.streams = 0

    def Lookup(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        self._act(request.name)
        return bourse_pb2.LookupResponse(name=request.name, cluster_id=self.cluster_id)

    def Updates(self, requests: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        self.streams += 1
        for request in requests:
            self._act(f"batch of epoch {request.epoch}")
            yield bourse_pb2.UpdateBatchResponse(cluster_id=self.cluster_id)

    def Journal(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        yield bourse_pb2.OrderBatch(rows=[ROW], cluster_id=self.cluster_id)
        self._act(f"journal after {request.last_number}")

    def _act(self, what: str) -> None:
        self.asked.append(what)
        self.may_answer.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error


class World:
    """Two catalogs with a server each, and the client of both."""

    def __init__(self) -> None:
        self.both = Catalog(), Catalog()
        self.first, self.second = self.both
        self._servers = [
            RpcServer("127.0.0.1:0", threads=4, queue_limit=4) for _catalog in self.both
        ]
        addresses = []
        for catalog, server in zip(self.both, self._servers, strict=True):
            bourse_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server.grpc_server)
            addresses.append(f"127.0.0.1:{server.start([CATALOG])}")
            server.set_serving(True)
        self.client = open_catalog(addresses)
        self.updates = self.client.conversation("Updates", "UpdateBatch")

    def kill(self, number: int) -> None:
        self._servers[number].stop(0)

    def stand_by(self, number: int) -> None:
        """Alive, but not active."""
        self._servers[number].set_active(False)
        self.both[number].error = NotActive()

    def lookup(self, name: str = "stock1", timeout_s: float = PATIENCE_S) -> Any:
        return self.client.call("Lookup", bourse_pb2.LookupRequest(name=name), timeout_s)

    def send(self, epoch: int = 1, timeout_s: float = PATIENCE_S) -> Any:
        return self.updates.ask(bourse_pb2.UpdateBatchRequest(epoch=epoch), timeout_s)

    def read_journal(self) -> int:
        return len(read_rows(self.client, "Journal", 0, 10, PATIENCE_S).orders)

    def asked(self) -> list[int]:
        """How many times each of them was asked something."""
        return [len(catalog.asked) for catalog in self.both]

    def close(self) -> None:
        self.client.close()
        for catalog, server in zip(self.both, self._servers, strict=True):
            catalog.may_answer.set()
            server.stop(0)


@pytest.fixture
def world() -> Iterator[World]:
    with closing(World()) as world:
        yield world


def fails_with(world: World, number: int, error: BourseError) -> None:
    world.both[number].error = error


def test_one_address_is_an_ordinary_peer() -> None:
    with closing(open_catalog(["127.0.0.1:1"])) as catalog:
        assert type(catalog) is Peer
        assert repr(catalog) == "the catalog"


# ---------------------------------------------------------------- calls


def test_it_stays_with_the_one_that_answers(world: World) -> None:
    for _ in range(3):
        world.lookup()
    assert world.asked() == [3, 0]
    world.stand_by(0)
    for _ in range(3):
        world.lookup()
    assert world.asked() == [4, 3]


@pytest.mark.parametrize("error", [NotActive(), Unavailable("starting")])
def test_a_call_goes_on_to_the_next_by_itself(world: World, error: BourseError) -> None:
    fails_with(world, 0, error)
    assert world.lookup("stock7").name == "stock7"
    assert world.asked() == [1, 1]
    assert world.read_journal() == 1
    assert world.asked() == [1, 2]


def test_a_dead_one_is_left_for_the_next(world: World) -> None:
    world.lookup()
    world.kill(0)
    world.lookup()
    assert world.read_journal() == 1
    assert world.asked() == [1, 2]


def test_after_the_last_comes_the_first(world: World) -> None:
    world.stand_by(0)
    world.lookup()
    world.both[0].error = None
    world.stand_by(1)
    world.lookup()
    assert world.asked() == [2, 2]


def test_a_silent_one_costs_one_attempt(world: World) -> None:
    world.first.may_answer.clear()
    with pytest.raises(OutcomeUnknown):
        world.lookup(timeout_s=HASTY_S)
    world.lookup()
    assert world.asked() == [1, 1]


@pytest.mark.parametrize("error", [Busy(), Internal(), StaleEpoch(), Contradiction()])
def test_what_another_would_say_too_is_the_answer(world: World, error: BourseError) -> None:
    fails_with(world, 0, error)
    for _ in range(2):
        with pytest.raises(type(error)):
            world.lookup()
    assert world.asked() == [2, 0]


@pytest.mark.parametrize("standing_by", [0, 1])
def test_that_one_stands_by_says_more_than_that_the_other_is_dead(
    world: World, standing_by: int
) -> None:
    world.stand_by(standing_by)
    world.kill(1 - standing_by)
    for _ in range(3):
        with pytest.raises(NotActive):
            world.lookup()


def test_a_stream_that_breaks_is_read_anew_from_the_next(world: World) -> None:
    fails_with(world, 0, Unavailable("broken off"))
    assert world.read_journal() == 1  # and not the rows of both
    assert world.asked() == [1, 1]


def test_late_news_of_the_one_before_change_nothing(world: World) -> None:
    """Two calls failed at the first catalog; the second to notice must not skip the next one."""
    catalogs = world.client
    assert isinstance(catalogs, Catalogs)
    first = catalogs.preferred
    second = next(peer for peer in catalogs._peers if peer is not first)

    def fail() -> None:
        raise Unavailable

    for _ in range(2):
        with pytest.raises(Unavailable):
            catalogs.ask(first, fail)
        assert catalogs.preferred is second


def test_without_going_on_the_silent_one_is_asked_for_ever(world: World) -> None:
    world.first.may_answer.clear()
    with taken_out("go on to the next"):
        for _ in range(3):
            with pytest.raises(OutcomeUnknown):
                world.lookup(timeout_s=HASTY_S)
    assert world.asked() == [3, 0]


# ---------------------------------------------------------------- how long


class TimedPeer(CatalogPeer):
    """A catalog whose calls take their time and then fail; it keeps their time limits."""

    def __init__(self, clock: Clock, takes_s: float) -> None:
        super().__init__("127.0.0.1:1", Cluster(), clock)
        self.limits: list[float] = []
        self._time = clock
        self._takes_s = takes_s

    def stream(self, _method: str, _request: Any, timeout_s: float) -> Iterator[Any]:
        yield self.call("", None, timeout_s)

    def call(self, _method: str, _request: Any, timeout_s: float) -> Any:
        self.limits.append(timeout_s)
        self._time.pass_by(min(self._takes_s, timeout_s))
        raise OutcomeUnknown if self._takes_s >= timeout_s else Unavailable

    def is_serving(self, _service: str, timeout_s: float) -> bool:
        self.limits.append(timeout_s)
        return False


@contextmanager
def timed(clock: Clock, *takes_s: float) -> Iterator[tuple[Catalogs, list[TimedPeer]]]:
    with ExitStack() as opened:
        peers = [opened.enter_context(closing(TimedPeer(clock, one))) for one in takes_s]
        yield Catalogs(peers, clock), peers


def test_a_silent_one_leaves_time_for_the_others() -> None:
    clock = Clock(50.0)
    with timed(clock, 0.25, 9.0, 9.0) as (catalogs, peers):
        with pytest.raises(OutcomeUnknown):
            catalogs.call("Lookup", bourse_pb2.LookupRequest(), 1.0)
        assert [peer.limits for peer in peers] == [[0.5], [0.5], [0.25]]
        assert clock.now_s == 51.0


def test_when_the_time_is_over_nobody_else_is_asked() -> None:
    with timed(Clock(), 9.0, 0.1) as (catalogs, peers):
        with pytest.raises(OutcomeUnknown):
            catalogs.call("Compare", bourse_pb2.CompareRequest(), 0.25)
        assert [peer.limits for peer in peers] == [[0.25], []]
        with pytest.raises(OutcomeUnknown):
            catalogs.call("Compare", bourse_pb2.CompareRequest(), 0.25)
        assert peers[0].limits == [0.25, pytest.approx(0.15)]
        assert peers[1].limits == [0.25]


@pytest.mark.parametrize(
    ("timeout_s", "limits"), [(5.0, [2.5, 2.5]), (1.5, [1.0, 0.5]), (1.0, [1.0])]
)
def test_a_stream_may_take_longer(timeout_s: float, limits: list[float]) -> None:
    with timed(Clock(), 9.0, 9.0) as (catalogs, peers):
        with pytest.raises(OutcomeUnknown):
            read_rows(catalogs, "Journal", 0, 10, timeout_s)
        assert [limit for peer in peers for limit in peer.limits] == limits


def test_a_question_for_health_is_shared_out() -> None:
    with timed(Clock(), 0.0, 0.0) as (catalogs, peers):
        assert not catalogs.is_serving(CATALOG, 1.0)
        assert [peer.limits for peer in peers] == [[0.5], [0.5]]


# ---------------------------------------------------------------- conversations


def test_a_message_goes_to_one_catalog_only(world: World) -> None:
    """Its sender must know of a copy whose outcome is unknown, so it sends the next one itself."""
    world.send(1)
    world.stand_by(0)
    with pytest.raises(NotActive):
        world.send(2)
    world.send(2)
    world.send(3)
    assert world.first.asked == ["batch of epoch 1", "batch of epoch 2"]
    assert world.second.asked == ["batch of epoch 2", "batch of epoch 3"]
    assert (world.first.streams, world.second.streams) == (1, 1)


@pytest.mark.parametrize("is_silent", [True, False])
def test_after_silence_or_a_broken_stream_the_next_message_goes_to_the_next(
    world: World, is_silent: bool
) -> None:
    world.send(1)
    if is_silent:
        world.first.may_answer.clear()
        with pytest.raises(OutcomeUnknown):
            world.send(2, HASTY_S)
    else:
        world.kill(0)
        with pytest.raises(Unavailable):
            world.send(2)
    world.send(2)
    assert world.second.asked == ["batch of epoch 2"]


def test_what_others_prefer_does_not_lead_a_conversation_back(world: World) -> None:
    """Others find that the second stands by, and prefer the first again, which is silent."""
    world.first.may_answer.clear()
    world.stand_by(1)
    catalogs = world.client
    assert isinstance(catalogs, Catalogs)
    for expected in (OutcomeUnknown, NotActive, OutcomeUnknown, NotActive):
        catalogs._preferred = catalogs._peers[0]
        with pytest.raises(expected):
            world.send(timeout_s=HASTY_S)
        if expected is NotActive:
            time.sleep(5 * HASTY_S)  # longer than the silence was
            with pytest.raises(NotActive):
                world.send()


def test_one_that_stands_by_is_asked_for_as_long_as_the_silent_one_was(world: World) -> None:
    """It may take over at any moment. So the silent one is not asked again after each try."""
    world.first.may_answer.clear()
    world.stand_by(1)
    with pytest.raises(OutcomeUnknown):
        world.send(timeout_s=PATIENCE_S / 5)
    for _ in range(3):
        with pytest.raises(NotActive):
            world.send()
    world.both[1].error = None
    world.send()
    assert world.asked() == [1, 4]


@pytest.mark.parametrize("error", [StaleEpoch(), Contradiction(), Internal()])
def test_after_a_refusal_the_next_message_goes_to_the_same(
    world: World, error: BourseError
) -> None:
    fails_with(world, 0, error)
    for _ in range(2):
        with pytest.raises(type(error)):
            world.send()
    assert world.asked() == [2, 0]


def test_calls_and_messages_learn_from_each_other(world: World) -> None:
    world.send(1)
    world.stand_by(0)
    world.lookup()
    world.send(2)
    assert world.second.asked == ["stock1", "batch of epoch 2"]


# ---------------------------------------------------------------- health


def test_some_catalog_must_be_active(world: World) -> None:
    def is_serving() -> bool:
        return world.client.is_serving(CATALOG, PATIENCE_S)

    assert is_serving()
    world.stand_by(0)
    assert is_serving()
    world.kill(1)
    assert not is_serving()  # though one is alive


# ---------------------------------------------------------------- the cluster

Read = Callable[[World], object]
READS: dict[str, Read] = {
    "a call": World.lookup,
    "a stream": World.read_journal,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_catalog_of_another_cluster_is_not_believed(world: World, read: Read) -> None:
    world.lookup()
    world.second.cluster_id = THEIRS
    world.kill(0)
    with pytest.raises(Unavailable):
        read(world)
    assert world.second.asked
    world.second.cluster_id = OURS
    read(world)


def test_nor_is_its_answer_to_a_batch(world: World) -> None:
    world.send()
    world.second.cluster_id = THEIRS
    world.stand_by(0)
    with pytest.raises(NotActive):
        world.send()
    with pytest.raises(WrongPeer, match=f"of cluster {THEIRS}, and the first answer was of {OURS}"):
        world.send()


def test_the_right_one_behind_a_stranger_is_found(world: World) -> None:
    world.lookup()
    world.first.cluster_id = THEIRS  # its address is another one's now
    assert world.lookup().cluster_id == OURS


def test_without_looking_at_the_cluster_a_stranger_is_believed(world: World) -> None:
    world.lookup()
    world.first.cluster_id = THEIRS
    with taken_out("one cluster only"):
        assert world.lookup().cluster_id == THEIRS


def test_a_catalog_that_names_no_cluster_is_believed(world: World) -> None:
    world.lookup()
    world.first.cluster_id = ""
    world.lookup()
    assert world.asked() == [2, 0]
