"""What a Redis says about itself, and whether it can be the cache."""

from __future__ import annotations

import pytest

from frontend.quotes.fitness import unfit_because

FIT: dict[str, object] = {
    "cluster_enabled": 0,
    "role": "master",
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
}


@pytest.mark.parametrize(
    "change",
    [{}, {"maxmemory_policy": "allkeys-lru"}, {"maxmemory": 1_000_000}],
    ids=["plain", "policy without a limit", "limit without an eviction"],
)
def test_fit(change: dict[str, object]) -> None:
    assert not unfit_because(FIT | change)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"role": "slave"}, "replica"),
        ({"cluster_enabled": 1}, "Cluster"),
        ({"dragonfly_version": "df-v1.34.0"}, "Dragonfly"),
        ({"maxmemory": 1_000_000, "maxmemory_policy": "volatile-lru"}, "volatile-lru"),
    ],
)
def test_unfit(change: dict[str, object], reason: str) -> None:
    assert reason in unfit_because(FIT | change)
