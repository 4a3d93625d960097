"""The catalog as the frontend sees it: quotes, single orders, whether it answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

from common.catalogs import TAKEOVER_S
from common.errors import Busy, Damaged, NotActive, OutcomeUnknown, Unavailable
from common.pulls import read_rows
from common.retries import Backoff, Retries
from common.rpc_client import Remote
from frontend.model import OrderView, Quote
from frontend.quotes.breaker import CircuitBreaker, CircuitOpen
from proto import bourse_pb2

# A catalog that restarts is back within a second, so a read is repeated until its time is
# over. The pauses are random, so that many readers do not come back at the same moment.
_BACKOFF = Backoff(first_s=0.1, longest_s=0.1, at_least=0.2)
# A takeover is longer, and one that takes over has other work than to answer that it is not active.
_BACKOFF_WITH_SEVERAL = Backoff(first_s=0.1, longest_s=0.3, at_least=0.5)

_PROBE_TIMEOUT_S = 1.0
_RETRY_AFTER_S = 0.25

_SERVICE = bourse_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name

Answer = TypeVar("Answer")


class CatalogClient:
    """Reads of the catalog. They change nothing, so each may be repeated.

    Args:
        catalog: one, or several of which one is active.
        timeout_s: for one read, with its repeats. A read may take as long as a takeover while a
            catalog says that it is not active.
        several: whether there are several.
    """

    def __init__(
        self,
        catalog: Remote,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        *,
        several: bool = False,
    ) -> None:
        self._catalog = catalog
        self._breaker = CircuitBreaker("the catalog", retry_after_s=_RETRY_AFTER_S, clock=clock)
        self._retries = Retries(
            on=(Unavailable, NotActive, Busy, OutcomeUnknown),
            for_s=timeout_s,
            # Without it, a lookup is an error ("reads wait too": test_catalog_client_several.py).
            longer_on=(NotActive,),
            longest_s=TAKEOVER_S,
            backoff=_BACKOFF_WITH_SEVERAL if several else _BACKOFF,
            clock=clock,
            sleep=sleep,
        )

    def lookup(self, name: str, will_fill: bool) -> Quote | None:
        """The stock as last committed, or None if there is no such stock.

        Args:
            will_fill: the caller will put the answer into the cache, so a lease is taken.

        Raises:
            Unavailable: the catalog did not answer in time.
        """
        request = bourse_pb2.LookupRequest(name=name, will_fill=will_fill)
        answer = self._repeated(lambda left_s: self._catalog.call("Lookup", request, left_s))
        if answer.volume < 0:
            return None
        # The message has a double. Rounded to two places it is the catalog's price.
        price = Decimal(f"{answer.price:.2f}")
        return Quote(answer.name, price, answer.volume, answer.version)

    def journal_row(self, number: int) -> OrderView | None:
        """The order, or None if no trade has got this number yet.

        Raises:
            Unavailable: the catalog did not answer in time.
            Damaged: the journal has a gap where the order should be.
        """
        rows = self._repeated(
            lambda left_s: read_rows(self._catalog, "Journal", number - 1, 1, left_s).orders
        )
        if not rows:
            return None
        row = rows[0]
        if row.number != number:
            raise Damaged(f"the journal has no order {number} but has order {row.number}")
        return OrderView(row.number, row.name, row.type, row.quantity)

    def is_reachable(self) -> bool:
        """Whether the catalog says, within a second, that it serves."""
        return self._catalog.is_serving(_SERVICE, _PROBE_TIMEOUT_S)

    def _repeated(self, read: Callable[[float], Answer]) -> Answer:
        """A read with its repeats.

        When the catalog has been away for longer than one read may take, only one read at a time
        tries. The others fail at once, so their threads can serve requests that need no catalog.
        """
        try:
            return self._breaker.call(lambda: self._retries.call(read))
        except (CircuitOpen, Unavailable, NotActive, Busy) as error:
            raise Unavailable("the catalog is unavailable") from error
        except OutcomeUnknown:
            raise Unavailable("the catalog does not answer") from None
