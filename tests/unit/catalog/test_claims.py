"""The catalog compares where a replica's log ends with its own journal, and says what differs."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from catalog.store import Store
from common.domain import EMPTY_DIGEST, Order
from common.errors import Contradiction
from proto import bourse_pb2
from tests.unit.catalog.calls import TIMEOUT_S, Client, assert_refused, serve
from tests.unit.catalog.support import buy

WRONG = bytes(range(32))


@pytest.fixture
def store(store: Store) -> Store:
    """It has five orders."""
    store.update(1, [buy(str(number)) for number in range(5)])
    return store


@pytest.fixture
def journal(store: Store) -> list[Order]:
    return store.journal(0)


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_beginning_of_the_journal_may_lead(
    store: Store, journal: list[Order], number: int
) -> None:
    digest = journal[number - 1].digest
    store.compare(number, digest)
    assert store.fence(2, 3, number, digest) == (True, (2, 3))


@pytest.mark.parametrize("digest", [b"", EMPTY_DIGEST])
def test_an_empty_log_claims_nothing(store: Store, digest: bytes) -> None:
    store.compare(0, digest)
    assert store.fence(2, 3, 0, digest).accepted


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (3, "up to order 3 that log has digest 000102.*, this journal has "),
        (6, "that log has order 6, this journal ends with 5"),
        (2**63 - 1, "that log has order 9223372036854775807, this journal ends with 5"),
        (-1, "that log has order -1"),
    ],
)
@pytest.mark.parametrize("epoch", [2, 7])
def test_a_contradiction_registers_nothing(store: Store, number: int, why: str, epoch: int) -> None:
    with pytest.raises(Contradiction, match=why):
        store.compare(number, WRONG)
    with pytest.raises(Contradiction, match=why):
        store.fence(epoch, 3, number, WRONG)
    assert store.registered() == (1, 2)
    assert store.update(1, [buy("later")])[0].number == 6


OTHER_CLUSTER = "0cc175b9-c0f1-46b6-831c-399e26977266"


def test_another_cluster_registers_and_decides_nothing(store: Store, journal: list[Order]) -> None:
    """Whatever the digests say."""
    why = f"the caller is of cluster {OTHER_CLUSTER}, this catalog of cluster {store.cluster_id}"
    digest = journal[2].digest
    for number in (0, 3):
        with pytest.raises(Contradiction, match=why):
            store.compare(number, digest, OTHER_CLUSTER)
        with pytest.raises(Contradiction, match=why):
            store.fence(2, 3, number, digest, OTHER_CLUSTER)
    with pytest.raises(Contradiction, match=why):
        store.update(1, [buy("a")], OTHER_CLUSTER)
    assert store.registered() == (1, 2)
    assert store.journal(0) == journal


def test_this_cluster_and_none_are_no_contradiction(store: Store, journal: list[Order]) -> None:
    for epoch, cluster_id in enumerate(("", store.cluster_id), start=2):
        store.compare(5, journal[-1].digest, cluster_id)
        assert store.fence(epoch, 3, 5, journal[-1].digest, cluster_id).accepted
        store.update(epoch, [buy("later")], cluster_id)


@pytest.fixture
def client(store: Store) -> Iterator[Client]:
    with serve(lambda: store) as client:
        yield client


def test_on_the_wire_it_is_an_error_of_its_own_and_a_critical_line(
    client: Client, journal: list[Order], caplog: pytest.LogCaptureFixture
) -> None:
    request = bourse_pb2.FenceRequest(epoch=2, leader_id=3, last_number=9, digest=WRONG)
    for _ in range(2):
        details = assert_refused(
            grpc.StatusCode.OUT_OF_RANGE, lambda: client._stub.Fence(request, timeout=TIMEOUT_S)
        )
        assert details == "that log has order 9, this journal ends with 5"
    (line,) = (record for record in caplog.records if record.levelname == "CRITICAL")
    assert "the log of replica 3 and this catalog do not belong together: " in line.getMessage()
    request.last_number, request.digest = 5, journal[-1].digest
    assert client._stub.Fence(request, timeout=TIMEOUT_S).accepted


def test_it_says_the_same_of_a_replica_once_until_it_is_mended(
    client: Client, journal: list[Order], caplog: pytest.LogCaptureFixture
) -> None:
    wrong = bourse_pb2.CompareRequest(replica_id=2, last_number=3, digest=WRONG)
    right = bourse_pb2.CompareRequest(replica_id=2, last_number=3, digest=journal[2].digest)

    def compare(request: bourse_pb2.CompareRequest) -> None:
        client._stub.Compare(request, timeout=TIMEOUT_S)

    for _ in range(3):
        assert_refused(grpc.StatusCode.OUT_OF_RANGE, lambda: compare(wrong))
    compare(right)
    assert_refused(grpc.StatusCode.OUT_OF_RANGE, lambda: compare(wrong))
    assert [record.levelname for record in caplog.records].count("CRITICAL") == 2


def test_every_answer_says_whose_catalog_it_is(
    client: Client, store: Store, journal: list[Order]
) -> None:
    stub, end = client._stub, journal[-1]
    buys = [bourse_pb2.TradeRequest(request_id="a", name="stock1", quantity=1)]
    answers = [
        stub.Fence(bourse_pb2.FenceRequest(epoch=2, leader_id=3), timeout=TIMEOUT_S),
        stub.Compare(bourse_pb2.CompareRequest(), timeout=TIMEOUT_S),
        stub.UpdateBatch(bourse_pb2.UpdateBatchRequest(epoch=2, trades=buys), timeout=TIMEOUT_S),
        client.update(2, "b"),
        client.lookup("stock1"),
        client.lookup("nosuch"),
        stub.ListStocks(bourse_pb2.Empty(), timeout=TIMEOUT_S),
        *client.journal(end.number),
    ]
    assert [answer.cluster_id for answer in answers] == [store.cluster_id] * 8


def test_a_request_for_another_catalog_is_refused_on_the_wire(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    stub = client._stub
    buys = [bourse_pb2.TradeRequest(request_id="a", name="stock1", quantity=1)]
    calls = [
        (stub.Fence, bourse_pb2.FenceRequest(epoch=2, leader_id=3)),
        (stub.Compare, bourse_pb2.CompareRequest(replica_id=3)),
        (stub.UpdateBatch, bourse_pb2.UpdateBatchRequest(epoch=1, trades=buys)),
        (stub.Update, bourse_pb2.UpdateRequest(epoch=1, request_id="b", name="stock1", quantity=1)),
    ]
    for call, request in calls:
        request.cluster_id = OTHER_CLUSTER
        assert_refused(
            grpc.StatusCode.OUT_OF_RANGE,
            lambda call=call, request=request: call(request, timeout=TIMEOUT_S),
        )
    (line,) = (record for record in caplog.records if record.levelname == "CRITICAL")
    assert OTHER_CLUSTER in line.getMessage()
    assert "OPERATIONS.md" in line.getMessage()
