from __future__ import annotations

import threading

import pytest

from catalog.leases import Leases
from common.domain import LEASE_MS
from tests.support.clock import Clock

LEASE_S = LEASE_MS / 1000


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000.0)


@pytest.fixture
def leases(clock: Clock) -> Leases:
    """Leases of a catalog that has run for longer than one lease."""
    leases = Leases(clock)
    clock.now_s += LEASE_S
    return leases


def test_a_stock_nobody_asked_for_has_no_lease(leases: Leases) -> None:
    assert leases.remaining_ms("stock1") == 0


def test_a_lease_runs_down_and_ends(leases: Leases, clock: Clock) -> None:
    leases.grant("stock1")
    assert leases.remaining_ms("stock1") == LEASE_MS
    clock.now_s += 2
    assert leases.remaining_ms("stock1") == LEASE_MS - 2_000
    clock.now_s += LEASE_S - 2
    assert leases.remaining_ms("stock1") == 0
    clock.now_s += 100
    assert leases.remaining_ms("stock1") == 0


def test_a_lease_is_of_one_stock(leases: Leases) -> None:
    leases.grant("stock1")
    assert leases.remaining_ms("stock2") == 0


def test_what_is_left_is_rounded_up(leases: Leases, clock: Clock) -> None:
    leases.grant("stock1")
    clock.now_s += LEASE_S - 0.000_25
    assert leases.remaining_ms("stock1") == 1


@pytest.mark.parametrize("uptime_s", [0.1, 2**20 - 2**-33, 2**20 - 3 * 2**-33])
def test_no_lease_is_longer_than_the_protocol_says(uptime_s: float) -> None:
    clock = Clock(uptime_s)
    leases = Leases(clock)
    leases.grant("stock1")
    assert leases.remaining_ms("stock1") == LEASE_MS


def test_granting_again_renews(leases: Leases, clock: Clock) -> None:
    leases.grant("stock1")
    clock.now_s += 3
    leases.grant("stock1")
    assert leases.remaining_ms("stock1") == LEASE_MS


def test_a_renewed_lease_outlives_the_ones_granted_before_it(leases: Leases, clock: Clock) -> None:
    leases.grant("stock1")
    clock.now_s += 1
    leases.grant("stock2")
    clock.now_s += 1
    leases.grant("stock1")
    clock.now_s += LEASE_S - 1  # stock2 ends, and the next grant forgets it
    leases.grant("stock3")
    assert leases.remaining_ms("stock1") == 1_000
    assert leases.remaining_ms("stock2") == 0


def test_after_a_restart_every_stock_counts_as_leased(clock: Clock) -> None:
    leases = Leases(clock)
    assert leases.remaining_ms("stock1") == LEASE_MS
    clock.now_s += LEASE_S - 1
    leases.grant("stock2")
    assert leases.remaining_ms("stock1") == 1_000
    assert leases.remaining_ms("stock2") == LEASE_MS
    clock.now_s += 1
    assert leases.remaining_ms("stock1") == 0
    assert leases.remaining_ms("stock2") == LEASE_MS - 1_000


def test_expired_leases_leave_memory(leases: Leases, clock: Clock) -> None:
    for number in range(100):
        leases.grant(f"stock{number}")
        clock.now_s += 1
    assert len(leases._expires_s) == LEASE_S


def test_a_lease_renewed_all_the_time_keeps_no_others_in_memory(
    leases: Leases, clock: Clock
) -> None:
    for number in range(100):
        leases.grant("hot")
        leases.grant(f"stock{number}")
        clock.now_s += 1
    assert len(leases._expires_s) == LEASE_S + 1


def test_beyond_the_limit_one_lease_covers_every_stock(clock: Clock) -> None:
    leases = Leases(clock, limit=3)
    clock.now_s += LEASE_S
    for name in ("stock1", "stock2", "stock3"):
        leases.grant(name)
    leases.grant("stock2")  # a renewal takes no room
    assert leases.remaining_ms("stock4") == 0
    clock.now_s += 1
    leases.grant("stock4")
    for name in ("stock1", "stock2", "stock3", "stock4", "stock5"):
        assert leases.remaining_ms(name) == LEASE_MS
    assert not leases._expires_s


def test_many_threads_may_grant_at_once(clock: Clock) -> None:
    leases = Leases(clock, limit=64)

    def grant_all(seed: int) -> None:
        for step in range(500):
            clock.now_s += 0.001
            leases.grant(f"stock{(seed * 31 + step) % 100}")

    threads = [threading.Thread(target=grant_all, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases._expires_s) <= 64
    assert 0 < leases.remaining_ms("stock0") <= LEASE_MS
