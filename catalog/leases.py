"""The catalog's side of the cache leases: until when somebody may hold a value of a stock.

C. Gray and D. Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache
consistency", 1989.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable

from common.domain import LEASE_MS

_LEASE_S = LEASE_MS / 1000


class Leases:
    """The leases granted, in memory; safe for use by several threads.

    A restart forgets which leases were granted, so a new object takes every stock for leased. Make
    it only when no other process can grant leases any more.

    Args:
        clock: a monotonic clock, in seconds.
        limit: stocks remembered one by one.
    """

    def __init__(self, clock: Callable[[], float], limit: int = 100_000) -> None:
        self._clock = clock
        self._limit = limit
        self._lock = threading.Lock()
        # All leases have one length, so the order of granting is the order of expiry.
        self._expires_s: OrderedDict[str, float] = OrderedDict()
        # Without it, a restart forgets leases ("lease after a restart": test_leases_proof.py).
        self._all_expire_s = clock() + _LEASE_S

    def grant(self, name: str) -> None:
        """Grants a lease on the stock, or renews it. Call it before the value is read."""
        with self._lock:
            now_s = self._clock()
            self._forget_expired(now_s)
            if name not in self._expires_s and len(self._expires_s) >= self._limit:
                # Too many to remember one by one: a lease on everything covers them all.
                self._expires_s.clear()
                self._all_expire_s = now_s + _LEASE_S
                return
            self._expires_s[name] = now_s + _LEASE_S
            self._expires_s.move_to_end(name)

    def remaining_ms(self, name: str) -> int:
        """What is left of the stock's lease, rounded up; 0 when there is none.

        Call it after the commit: then it covers everybody who may have read the value before.
        """
        with self._lock:
            expires_s = max(self._all_expire_s, self._expires_s.get(name, self._all_expire_s))
            left_s = expires_s - self._clock()
        return min(max(0, math.ceil(left_s * 1000)), LEASE_MS)

    def _forget_expired(self, now_s: float) -> None:
        while self._expires_s and next(iter(self._expires_s.values())) <= now_s:
            self._expires_s.popitem(last=False)
