"""The pipeline while its replica is deposed, or is still promoting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import NotLeader, OutcomeUnknown, Unavailable
from order.leadership.replica import Role
from tests.unit.order.fakes import lead, lost, meanwhile, outcome
from tests.unit.order.trading.pipeline_world import EPOCH, World, open_world, summary


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


def test_decisions_hold_though_the_epoch_was_lost_meanwhile(world: World) -> None:
    def another_leads() -> None:
        world.node.step(lambda replica: replica.hear_of(2, EPOCH + 1))

    world.catalog.update_script.append(meanwhile(another_leads))
    first, second = world.ask("a"), world.ask("b", "c", "d")
    world.run()
    assert summary(outcome(first[0])) == (1, 3)
    assert [summary(outcome(pending)) for pending in second] == [(1, 4), (1, 5), NotLeader]
    assert world.log.rows(0) == world.catalog.rows
    assert (world.node.view().leader_id, world.role) == (2, Role.FOLLOWER)


def test_a_batch_of_an_old_epoch_does_not_end_the_new_one(world: World) -> None:
    """The leader is deposed during a batch, and elected again before that batch is refused."""

    def lose_and_win() -> None:
        world.node.step(lambda replica: replica.hear_of(2, EPOCH + 1))
        world.catalog.registered = (EPOCH + 2, 1)
        lead(world.node, EPOCH + 2)
        world.clock.during_pause = lambda: None

    world.catalog.update_script.append(lost(Unavailable()))
    world.clock.during_pause = lose_and_win
    pendings = world.ask(*"abc")
    world.queue.close()
    world.pipeline.run()
    assert {type(outcome(pending)) for pending in pendings} == {OutcomeUnknown}
    assert (world.role, world.node.view().epoch) == (Role.LEADER, EPOCH + 2)
    assert world.node.step(lambda replica: replica.open_batch()) == EPOCH + 2


@pytest.mark.parametrize("leads_in_the_end", [True, False])
def test_trades_wait_while_the_replica_is_promoting(world: World, leads_in_the_end: bool) -> None:
    world.node.step(lambda replica: replica.step_down(EPOCH))
    world.node.step(lambda replica: replica.stand(EPOCH))
    world.node.step(lambda replica: replica.fence_accepted(EPOCH))
    (pending,) = world.ask("a")
    world.queue.close()
    is_waiting = threading.Event()
    wait_while_promoting = world.node.wait_while_promoting

    def watched(timeout_s: float) -> Any:
        is_waiting.set()
        return wait_while_promoting(timeout_s)

    world.node.wait_while_promoting = watched  # type: ignore[method-assign]
    thread = threading.Thread(target=world.pipeline.run, daemon=True)
    thread.start()
    assert is_waiting.wait(10)
    assert not pending.outcome.done()
    assert world.catalog.sent == []
    if leads_in_the_end:
        world.node.step(lambda replica: replica.caught_up(EPOCH))
    else:
        world.node.step(lambda replica: replica.step_down(EPOCH))
    thread.join(timeout=10)
    assert summary(outcome(pending)) == ((1, 3) if leads_in_the_end else NotLeader)


def test_trades_wait_for_a_promotion_that_begins_while_the_pipeline_is_idle(world: World) -> None:
    world.node.step(lambda replica: replica.step_down(EPOCH))
    is_idle, is_waiting = threading.Event(), threading.Event()
    wait, wait_while_promoting = world.queue.wait, world.node.wait_while_promoting

    def watched_wait(timeout_s: float) -> bool:
        is_idle.set()
        return wait(timeout_s)

    def watched_wait_while_promoting(timeout_s: float) -> Any:
        is_waiting.set()
        return wait_while_promoting(timeout_s)

    world.queue.wait = watched_wait  # type: ignore[method-assign]
    world.node.wait_while_promoting = watched_wait_while_promoting  # type: ignore[method-assign]
    thread = threading.Thread(target=world.pipeline.run, daemon=True)
    thread.start()
    assert is_idle.wait(10)
    world.node.step(lambda replica: replica.stand(EPOCH))
    world.node.step(lambda replica: replica.fence_accepted(EPOCH))
    is_waiting.clear()
    (pending,) = world.ask("a")
    assert is_waiting.wait(10)
    world.node.step(lambda replica: replica.caught_up(EPOCH))
    assert summary(pending.outcome.result(timeout=10)) == (1, 3)
    world.queue.close()
    thread.join(timeout=10)
