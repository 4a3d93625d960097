"""A model of the cache: entries under the catalog's leases, floors, and tokens."""

from __future__ import annotations

from collections.abc import Callable

from common.domain import ENTRY_MS, LEASE_MS

_ENTRY_S, _LEASE_S = ENTRY_MS / 1000, LEASE_MS / 1000


class Cache:
    """
    Args:
        clock: Redis's own, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[str, tuple[int, int, float]] = {}  # version, volume, end
        self._floors: dict[str, tuple[int, float]] = {}  # version, end

    def get(self, name: str) -> tuple[int, int] | float:
        """Version and volume; or, for a miss, the token."""
        version, volume, end_s = self._entries.get(name, (0, 0, 0.0))
        return (version, volume) if self._clock() < end_s else self._clock()

    def put(self, name: str, version: int, volume: int, token: float) -> None:
        now_s, end_s = self._clock(), token + _ENTRY_S
        floor, floor_end_s = self._floors.get(name, (0, 0.0))
        known, _, known_end_s = self._entries.get(name, (-1, 0, 0.0))
        is_below_floor = now_s < floor_end_s and version < floor
        is_known = now_s < known_end_s and known >= version
        if now_s < end_s and not is_below_floor and not is_known:
            self._entries[name] = version, volume, end_s

    def invalidate(self, name: str, version: int) -> None:
        known, _, _ = self._entries.get(name, (version, 0, 0.0))
        if known < version:
            del self._entries[name]
        floor, end_s = self._floors.get(name, (0, 0.0))
        standing = floor if self._clock() < end_s else 0
        self._floors[name] = max(version, standing), self._clock() + _LEASE_S
