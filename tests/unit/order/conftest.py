"""An order replica to call over gRPC: a follower, or a leader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.order.calls import ROWS
from tests.unit.order.replicas import RunningReplica, running_replica


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[RunningReplica]:
    """Replica 1, a follower with ten rows."""
    with running_replica(tmp_path, ROWS[:10]) as replica:
        yield replica


@pytest.fixture
def leader(replica: RunningReplica) -> RunningReplica:
    """The same replica, which leads epoch 1."""
    replica.lead()
    replica.start_pipeline()
    return replica
