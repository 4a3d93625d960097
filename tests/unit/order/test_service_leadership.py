"""Leadership over gRPC: promotion, news of other leaders, and the status of a replica."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from common.errors import OutcomeUnknown
from common.wire import order_to_item
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.unit.order.calls import (
    ROWS,
    Status,
    batch,
    leader_and_epoch,
    refusal,
)
from tests.unit.order.fakes import CLUSTER, TIMEOUT_S, refusing_rows
from tests.unit.order.replicas import STUCK_AFTER_S, RunningReplica, peer_of, running_replica

# ------------------------------------------------------------ leadership


def test_is_alive(replica: RunningReplica) -> None:
    assert replica.call("IsAlive") == bourse_pb2.AliveResponse(replica_id=1, last_number=10)


def test_who_knows_no_leader_says_so(replica: RunningReplica) -> None:
    assert leader_and_epoch(replica) == (0, 0)


def test_the_replica_that_is_named_leads(replica: RunningReplica) -> None:
    replica.catalog.rows += ROWS[10:12]
    replica.catalog.registered = (6, 2)
    answer = replica.call("SetLeader", bourse_pb2.SetLeaderRequest(leader_id=1, epoch=4))
    assert answer == bourse_pb2.SetLeaderResponse(replica_id=1, leader_id=1, epoch=7)
    assert replica.catalog.registered == (7, 1)
    assert leader_and_epoch(replica) == (1, 7)
    assert replica.log.rows(0) == ROWS[:12]
    again = replica.call("SetLeader", bourse_pb2.SetLeaderRequest(leader_id=1, epoch=9))
    assert again == answer


def test_the_others_hear_of_it(replica: RunningReplica) -> None:
    answer = replica.call("SetLeader", bourse_pb2.SetLeaderRequest(leader_id=3, epoch=4))
    assert answer == bourse_pb2.SetLeaderResponse(replica_id=1, leader_id=3, epoch=4)
    late = replica.call("SetLeader", bourse_pb2.SetLeaderRequest(leader_id=2, epoch=3))
    assert late == answer
    assert replica.catalog.asked == []


def test_a_candidate_that_cannot_lead_says_so(replica: RunningReplica) -> None:
    with refusing_rows(replica.log):
        refusal(lambda: replica.call("SyncOrderBatch", batch(ROWS[10])))
        replica.catalog.rows += ROWS[10:]
        request = bourse_pb2.SetLeaderRequest(leader_id=1, epoch=1)
        code, details = refusal(lambda: replica.call("SetLeader", request))
    assert code is Status.UNAVAILABLE
    assert "the log takes no rows" in details
    assert leader_and_epoch(replica) == (0, 0)


@pytest.mark.parametrize(
    ("leader_id", "epoch"),
    [(4, 1), (0, 1), (-1, 1), (2, -1), (2, 2**62 + 1), (1, -1), (1, 2**63 - 1)],
)
def test_news_of_what_cannot_be_is_refused(
    replica: RunningReplica, leader_id: int, epoch: int
) -> None:
    request = bourse_pb2.SetLeaderRequest(leader_id=leader_id, epoch=epoch)
    code, _ = refusal(lambda: replica.call("SetLeader", request))
    assert code is Status.INVALID_ARGUMENT
    assert leader_and_epoch(replica) == (0, 0)
    assert replica.catalog.asked == []


def test_rows_of_a_leader_that_cannot_be_are_refused(replica: RunningReplica) -> None:
    for leader_id, epoch in [(4, 1), (2, -1), (2, 2**63 - 1)]:
        request = batch(ROWS[10], leader_id=leader_id, epoch=epoch)
        code, _ = refusal(lambda one=request: replica.call("SyncOrderBatch", one))
        assert code is Status.INVALID_ARGUMENT
    assert replica.log.last_number == 10


def test_asking_who_leads_changes_nothing(leader: RunningReplica) -> None:
    """Only the watchdog deposes a replica that hangs. GetLeader just reads."""
    with leader.progress.of_work():
        leader.clock.now_s += STUCK_AFTER_S + 1
        assert leader_and_epoch(leader) == (1, 1)
        leader.watchdog.look()
        assert leader_and_epoch(leader) == (0, 1)


def test_a_replica_whose_disk_hangs_does_not_lead(leader: RunningReplica) -> None:
    request = bourse_pb2.SetLeaderRequest(leader_id=1, epoch=2)
    with leader.progress.of_work():
        leader.clock.now_s += STUCK_AFTER_S + 1
        leader.watchdog.look()
        code, details = refusal(lambda: leader.call("SetLeader", request))
    assert code is Status.UNAVAILABLE
    assert "nothing has moved" in details
    assert leader.catalog.asked == []


class GoneCaller:
    """The context of a call whose deadline passed before it got a thread."""

    def time_remaining(self) -> float:
        return 0.0


def test_nobody_leads_for_a_caller_that_has_gone_on(replica: RunningReplica) -> None:
    request = bourse_pb2.SetLeaderRequest(leader_id=1, epoch=1)
    with pytest.raises(OutcomeUnknown):
        replica.servicer.SetLeader(request, GoneCaller())  # type: ignore[arg-type]
    assert replica.catalog.asked == []
    assert leader_and_epoch(replica) == (0, 0)


# ------------------------------------------------------------ Status


def test_the_status_of_a_follower(replica: RunningReplica) -> None:
    replica.is_ready.clear()
    replica.call("SetLeader", bourse_pb2.SetLeaderRequest(leader_id=3, epoch=4))
    assert replica.call("Status") == bourse_pb2.StatusResponse(
        replica_id=1,
        role="follower",
        epoch=4,
        leader_id=3,
        last_number=10,
        digest=ROWS[9].digest,
        ready=False,
    )
    replica.ledger.join_cluster(CLUSTER)
    assert replica.call("Status").cluster_id == CLUSTER
    replica.is_ready.set()
    assert replica.call("Status").ready


def test_the_status_of_a_leader_names_who_is_in_sync(tmp_path: Path) -> None:
    with ExitStack() as stack:
        follower = stack.enter_context(running_replica(tmp_path / "follower", replica_id=3))
        peers = stack.enter_context(peer_of(follower))
        leader = stack.enter_context(running_replica(tmp_path / "leader", ROWS, peers=peers))
        leader.lead(epoch=4)
        leader.replicator.start(leader.loops)
        wait_for(lambda: list(leader.call("Status").in_sync) == [3], TIMEOUT_S, leader.node.view)
        status = leader.call("Status")
        assert (status.role, status.epoch, status.leader_id) == ("leader", 4, 1)
        leader.node.step(lambda machine: machine.step_down(4))
        assert list(leader.call("Status").in_sync) == []


def test_number_and_digest_of_a_status_are_of_one_moment(replica: RunningReplica) -> None:
    digests = {row.number: row.digest for row in ROWS}
    seen = set()
    for row in ROWS[10:]:
        appending = replica.stub.SyncOrderRequest.future(order_to_item(row), timeout=TIMEOUT_S)
        while not appending.done():
            status = replica.call("Status")
            assert status.digest == digests[status.last_number]
            seen.add(status.last_number)
        assert appending.result().last_number == row.number
    assert len(seen) > 1
