"""A replica that is promoted, with a fake catalog and a clock that a test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.domain import Order
from common.errors import Unavailable
from order.leadership.promotion import Promotion
from order.leadership.replica import Role
from order.leadership.watchdog import Progress, Watchdog
from tests.support.clock import Clock
from tests.unit.order.fakes import (
    TIMEOUT_S,
    FakeCatalog,
    FakeIdentity,
    Parts,
    make_rows,
    open_parts,
)

PATIENCE_S = 1.0
STUCK_AFTER_S = 2.5
REST_S = 2.0
JOURNAL = make_rows(7)


@dataclass
class World:
    """Replica 1 has the first two of seven rows of the journal. Epoch 4 is registered.

    The whole promotion runs in the thread of the first caller.
    """

    parts: Parts
    catalog: FakeCatalog
    clock: Clock = field(default_factory=Clock)
    published: list[Order] = field(default_factory=list)
    halted: list[str] = field(default_factory=list)
    identity: FakeIdentity = field(default_factory=FakeIdentity)

    def __post_init__(self) -> None:
        self.node = self.parts.node
        self.progress = Progress(self.clock)
        self.promotion = self.make_promotion(lambda work: work(), TIMEOUT_S)
        self.watchdog = Watchdog(self.progress, self.promotion.give_up, STUCK_AFTER_S)

    def make_promotion(
        self, spawn: Callable[[Callable[[], None]], object], fence_timeout_s: float
    ) -> Promotion:
        return Promotion(
            self.node,
            self.catalog,
            self.parts.ledger,
            self.published.extend,
            self.identity.contradicted,
            progress=self.progress,
            fence_timeout_s=fence_timeout_s,
            patience_s=PATIENCE_S,
            halt=self.halted.append,
            clock=self.clock,
            pause=self.clock.pause,
            spawn=spawn,
        )

    def state(self) -> tuple[Role, int, int]:
        view = self.node.view()
        return view.role, view.epoch, view.leader_id

    def asked_epochs(self) -> list[int]:
        return [epoch for epoch, _leader_id, _timeout_s in self.catalog.asked]

    def assert_rests(self, why: str) -> None:
        """Checks that it refuses to lead for a short time, and gives the reason."""
        asked = len(self.catalog.asked)
        with pytest.raises(Unavailable, match=f"resting: .*{why}"):
            self.promotion.lead(6)
        assert len(self.catalog.asked) == asked


@contextmanager
def open_world(directory: Path) -> Iterator[World]:
    with open_parts(directory, JOURNAL[:2]) as parts:
        catalog = FakeCatalog(JOURNAL)
        catalog.registered = (4, 3)
        yield World(parts, catalog)


def deposed(world: World) -> None:
    world.node.step(lambda replica: replica.hear_of(2, 6))
