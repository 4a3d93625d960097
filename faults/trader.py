"""One client of the load: chooses its next request, and judges the answers."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus

from faults.history import Completion
from faults.recorder import Recorder, Trade

# Most requests go to two stocks, so that trades and lookups of one stock overlap.
_HOT_STOCKS = 2
_HOT_SHARE = 0.7
# A trade is for at most the first quantity divided by this. So large trades are often refused.
_LARGEST_PART = 8
_MOST_QUANTITY = 1_000_000
_TOO_MUCH = 1_000_000_000

# How many decided trades a client remembers, to repeat some of them.
_REMEMBERED = 200
# A client with this many unknown outcomes begins no new trade.
_MOST_UNKNOWN = 16
# The share of repeats that are of a trade which another client is sending at that moment.
_RACING_SHARE = 0.3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
# The pause when no connection could be made.
_NOBODY_PAUSE_S = 0.1

_DECISIONS = (HTTPStatus.OK, HTTPStatus.NOT_FOUND)


class Shared:
    """What all clients share: the acknowledged orders, and the trades that are being sent."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._known: set[int] = set()
        self._under_way: dict[int, Trade] = {}  # by client
        self._lock = threading.Lock()

    @contextmanager
    def under_way(self, client: int, trade: Trade) -> Iterator[None]:
        with self._lock:
            self._under_way[client] = trade
        try:
            yield
        finally:
            with self._lock:
                del self._under_way[client]

    def trade_under_way(self, chance: random.Random) -> Trade | None:
        with self._lock:
            trades = list(self._under_way.values())
        return chance.choice(trades) if trades else None

    def add(self, number: int) -> None:
        with self._lock:
            if number not in self._known:
                self._known.add(number)
                self._numbers.append(number)

    def any(self, chance: random.Random) -> int | None:
        with self._lock:
            return chance.choice(self._numbers) if self._numbers else None

    def numbers(self) -> list[int]:
        with self._lock:
            return list(self._numbers)


@dataclass(frozen=True, slots=True)
class TraderSettings:
    seed: str
    key_prefix: str  # the beginning of every key that it sends
    interval_s: float  # the least time between the beginnings of two requests


class Trader(ABC):
    """Sends trades and lookups, one request after the other.

    Args:
        quantities: the first quantity of every stock.
    """

    def __init__(
        self,
        recorder: Recorder,
        quantities: Mapping[str, int],
        shared: Shared,
        settings: TraderSettings,
    ) -> None:
        self._recorder = recorder
        self._quantities = quantities
        self._stocks = sorted(quantities)
        self._shared = shared
        self._chance = random.Random(settings.seed)  # noqa: S311 - decides a load, keeps no secret
        self._settings = settings
        self._trades = 0

    @property
    def requests(self) -> int:
        return self._recorder.requests

    @property
    def unknown(self) -> int:
        """How many outcomes it does not know and will ask for again."""
        return 0

    def trade(self, stopping: threading.Event) -> None:
        # The clients begin at different times, so that the load is even.
        next_s = time.monotonic() + self._chance.random() * self._settings.interval_s
        while not stopping.wait(max(0.0, next_s - time.monotonic())):
            if self._next().sent is False:
                stopping.wait(_NOBODY_PAUSE_S)
            # After a delay, a client does not send faster to catch up.
            next_s = max(next_s + self._settings.interval_s, time.monotonic())

    @abstractmethod
    def settle(self, give_up_at_s: float) -> None:
        """Repeats trades of unknown outcome until all are known, or until that time."""

    def order(self, number: int, phase: str) -> bool:
        """Whether there was an answer that says something about the order."""
        return self._recorder.order(number, phase).status in _DECISIONS

    def lookup(self, name: str, phase: str) -> bool:
        """Whether there was an answer that says something about the stock."""
        return self._recorder.lookup(name, phase).status in _DECISIONS

    def close(self) -> None:
        self._recorder.close()

    @abstractmethod
    def _next(self) -> Completion: ...

    def _new_trade(self) -> Trade:
        self._trades += 1
        name = self._a_stock()
        most = max(2, min(self._quantities[name] // _LARGEST_PART, _MOST_QUANTITY))
        type_, quantity = self._chance.choice(("BUY", "SELL")), self._chance.randint(1, most)
        if self._chance.random() < 0.03:
            type_, quantity = "BUY", _TOO_MUCH
        return Trade(f"{self._settings.key_prefix}-{self._trades}", name, type_, quantity)

    def _a_stock(self) -> str:
        hot = self._chance.random() < _HOT_SHARE
        return self._chance.choice(self._stocks[:_HOT_STOCKS] if hot else self._stocks)


class KeylessTrader(Trader):
    """Sends no keys and never repeats, like a client that does not know about keys."""

    def settle(self, give_up_at_s: float) -> None:
        """Does nothing: without a key it cannot ask for an outcome again."""

    def _next(self) -> Completion:
        dice = self._chance.random()
        if dice < 0.5:
            trade = replace(self._new_trade(), key=None)
            completion = self._recorder.trade(trade, "run")
            if completion.number is not None:
                self._shared.add(completion.number)
            return completion
        if dice < 0.65 and (number := self._shared.any(self._chance)) is not None:
            return self._recorder.order(number, "run")
        return self._recorder.lookup(self._a_stock(), "run")


class KeyedTrader(Trader):
    """Repeats each trade of unknown outcome until it is known, and sometimes a decided one."""

    def __init__(
        self,
        recorder: Recorder,
        quantities: Mapping[str, int],
        shared: Shared,
        settings: TraderSettings,
    ) -> None:
        super().__init__(recorder, quantities, shared, settings)
        self._in_doubt: deque[Trade] = deque()
        self._done: deque[Trade] = deque(maxlen=_REMEMBERED)
        self._refused: deque[Trade] = deque(maxlen=_REMEMBERED)

    @property
    def unknown(self) -> int:
        return len(self._in_doubt)

    def settle(self, give_up_at_s: float) -> None:
        while self._in_doubt and time.monotonic() < give_up_at_s:
            trade = self._in_doubt.popleft()
            time.sleep(max(0.0, min(trade.not_before_s, give_up_at_s) - time.monotonic()))
            self._send(trade, "settle")

    def _next(self) -> Completion:
        if self._in_doubt and self._in_doubt[0].not_before_s <= time.monotonic():
            return self._send(self._in_doubt.popleft(), "run")
        dice = self._chance.random()
        if dice < 0.4 and len(self._in_doubt) < _MOST_UNKNOWN:
            return self._send(self._new_trade(), "run")
        if dice < 0.5:
            number = self._shared.any(self._chance)
            if number is not None:
                return self._recorder.order(number, "run")
        elif dice < 0.65 and (repeated := self._to_repeat()) is not None:
            return self._send(repeated, "run")
        return self._recorder.lookup(self._a_stock(), "run")

    def _to_repeat(self) -> Trade | None:
        """A trade to repeat: a decided one, or sometimes one that another client is sending now.

        Half of the decided ones were refused. Their stock may have enough volume by now, so a wrong
        service would execute the repeat.
        """
        if self._chance.random() < _RACING_SHARE:
            racing = self._shared.trade_under_way(self._chance)
            if racing is not None:
                return Trade(racing.key, racing.name, racing.type, racing.quantity)
        refused = self._refused and (not self._done or self._chance.random() < 0.5)
        among = self._refused if refused else self._done
        return self._chance.choice(among) if among else None

    def _send(self, trade: Trade, phase: str) -> Completion:
        with self._shared.under_way(self._recorder.client, trade):
            completion = self._recorder.trade(trade, phase)
        if completion.number is not None:
            self._shared.add(completion.number)
            self._settled(trade, self._done)
        elif completion.status == HTTPStatus.NOT_FOUND:
            self._settled(trade, self._refused)
        elif completion.is_unknown:
            self._doubt(trade)
        return completion

    def _settled(self, trade: Trade, among: deque[Trade]) -> None:
        if not trade.is_decided:
            among.append(trade)
        trade.is_decided, trade.attempts = True, 0

    def _doubt(self, trade: Trade) -> None:
        """Notes that the trade must be repeated. The outcome of a repeat can be unknown too."""
        if trade in self._in_doubt:
            return
        pause_s = min(_FIRST_PAUSE_S * 2.0 ** min(trade.attempts, 10), _LONGEST_PAUSE_S)
        trade.attempts += 1
        trade.not_before_s = time.monotonic() + pause_s * (0.5 + self._chance.random() / 2)
        self._in_doubt.append(trade)
