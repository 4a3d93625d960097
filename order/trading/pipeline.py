"""The trade pipeline: batch → commit → append → answer; then replicating and publishing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from common.catalogs import TAKEOVER_S
from common.domain import Order, Trade
from common.errors import (
    BourseError,
    Contradiction,
    Damaged,
    NotActive,
    NotLeader,
    OutcomeUnknown,
    StaleEpoch,
)
from common.on_change import OnChange
from common.pulls import Rows
from common.retries import Retries, always
from order.leadership.node import Node
from order.leadership.replica import Gap, IllegalTransition, Replica, Role
from order.leadership.watchdog import Progress
from order.log.ledger import AppendFailed, Ledger
from order.trading.catalog_client import Decided, Result
from order.trading.queue import PendingTrade, TradeQueue

logger = logging.getLogger(__name__)

# Between two sendings of a batch in doubt.
_RESEND_PAUSE_S = 0.05
# How often an idle pipeline looks whether the service is stopping.
_POLL_S = 0.5
# With at least so many callers, a batch waits so long for those that were just answered. Most of
# them send their next trade at once, and one larger batch costs less than two small ones.
# (DeWitt et al., 1984, "group commit"; PostgreSQL's commit_siblings and commit_delay.)
_GATHERED_FROM = 4
_GATHER_S = 0.002


# With these errors a catalog says of a copy that it decided nothing.
_REFUSED = (StaleEpoch, NotActive)


class CommitPoint(Protocol):
    def update_batch(self, epoch: int, trades: Sequence[Trade], timeout_s: float) -> Decided: ...

    def journal(self, after: int) -> Iterable[Rows]: ...


class LeadershipLost(Exception):
    """This replica stepped down before the batch was settled."""

    def __init__(self, answer: BourseError) -> None:
        super().__init__(answer.message)
        self.answer = answer  # to each caller of the batch


class Pipeline:
    """Takes one batch after the other through its steps. Runs in a thread of its own.

    One batch at a time: nothing is sent after a batch before that one is settled, so the
    order in which the catalog numbers the trades is the order in which the log learns of them.

    Args:
        resign: stops leading in an epoch by this replica's own fault; called with the reason.
        contradicted: the catalog turned out to be another than the log's.
    """

    def __init__(
        self,
        *,
        node: Node,
        queue: TradeQueue,
        catalog: CommitPoint,
        ledger: Ledger,
        wake_followers: Callable[[], None],
        publish: Callable[[Sequence[Order]], None],
        resign: Callable[[int, str], None],
        contradicted: Callable[[Contradiction], None],
        progress: Progress,
        attempt_timeout_s: float,
        patience_s: float,
        halt: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._node = node
        self._queue = queue
        self._catalog = catalog
        self._ledger = ledger
        self._wake_followers = wake_followers
        self._publish = publish
        self._resign = resign
        self._contradicted = contradicted
        self._progress = progress
        self._attempt_timeout_s = attempt_timeout_s
        self._resends = Retries(
            on=(BourseError,),
            never_on=(StaleEpoch, Contradiction),
            for_s=patience_s,
            # A catalog that says so is heard, so this replica is not cut off. Another one that led
            # in its place would have to wait as well.
            # Without it, a takeover is an error ("wait for a takeover": test_pipeline_takeover.py).
            longer_on=(NotActive,),
            longest_s=TAKEOVER_S,
            backoff=always(_RESEND_PAUSE_S),
            clock=clock,
            sleep=pause,
        )
        self._halt = halt
        self._moved: Callable[[], None] = lambda: None  # notes progress of the batch in hand

    def run(self) -> None:
        """Until the queue is closed and empty."""
        expected = 0
        while not self._queue.is_drained:
            if not self._queue.wait(_POLL_S):
                continue
            if self._node.wait_while_promoting(_POLL_S).role is Role.PROMOTING:
                continue  # trades wait in the queue, within their deadlines
            if expected >= _GATHERED_FROM:
                self._queue.gather(expected, _GATHER_S)
            if batch := self._queue.take_batch():
                with self._progress.of_work() as self._moved:
                    self._process_guarded(batch)
                expected = len(batch) + len(self._queue)

    def _process_guarded(self, batch: Sequence[PendingTrade]) -> None:
        """No error may end the thread or leave a caller without an answer."""
        try:
            self.process(batch)
        except Contradiction as denial:
            _fail(batch, OutcomeUnknown())
            self._resign(self._node.view().epoch, denial.message)
            self._contradicted(denial)
        except Damaged as error:
            _fail(batch, error)
            self._halt(error.message)
        except Exception:
            logger.exception("unexpected error in the trade pipeline")
            _fail(batch, OutcomeUnknown())
            self._resign(self._node.view().epoch, "unexpected error in the trade pipeline")

    def process(self, batch: Sequence[PendingTrade]) -> None:
        """One batch, from the queue to its answers."""
        try:
            epoch = self._open()
            results, cluster_id = self._commit([pending.trade for pending in batch], epoch)
        except LeadershipLost as loss:
            _fail(batch, loss.answer)
            return
        rows = [result.row for result in results if result.row is not None]
        appended = self._append(Rows(rows, cluster_id), epoch)
        self._node.step(lambda replica: replica.settle_batch(epoch))
        # Without it, no survivor serves ("no trade waits for followers": test_failure_table.py).
        _answer(batch, results)
        self._wake_followers()
        self._publish([*rows, *appended])
        logger.debug("epoch %d: batch of %d, %s", epoch, len(batch), _numbers(appended))

    def _open(self) -> int:
        try:
            return self._node.step(Replica.open_batch)
        except IllegalTransition as refusal:
            raise LeadershipLost(NotLeader()) from refusal

    def _commit(self, trades: Sequence[Trade], epoch: int) -> Decided:
        """Sends the batch as it is until it is settled. Copies are harmless: each request id is
        decided once. Only results or a refusal of the epoch settle it.

        Raises:
            LeadershipLost: refused, or the patience is over; this replica has stepped down.
            Contradiction: it is another catalog than the one that registered the epoch.
        """
        copies = _Copies(len(trades))

        def before_retry(error: Exception) -> None:
            copies.note(error)
            self._moved()

        try:
            return self._resends.call(
                lambda _left_s: self._catalog.update_batch(epoch, trades, self._attempt_timeout_s),
                before_retry,
            )
        except StaleEpoch as refusal:
            why = f"refused by the catalog: {refusal.message}"
            self._node.step(lambda replica: replica.step_down(epoch), why)
            # An earlier copy may have been decided before the epoch went stale.
            raise LeadershipLost(copies.answer(refusal)) from refusal
        except Contradiction:
            raise
        except BourseError as error:
            self._resign(epoch, f"cannot reach the catalog: {error.message}")
            raise LeadershipLost(copies.answer(error)) from error

    def _append(self, rows: Rows, epoch: int) -> list[Order]:
        """The rows that the log lacked. Raises Contradiction if catalog and log contradict."""
        appended: list[Order] = []
        try:
            try:
                appended.extend(self._ledger.append(*rows))
            except Gap as gap:
                logger.info("%s: pulling the journal", gap)
                self._ledger.pull(self._catalog.journal, appended.extend)
        except AppendFailed as failure:
            self._resign(epoch, f"cannot append: {failure}")
        except Damaged:
            raise
        except BourseError as error:
            self._resign(epoch, f"cannot pull the journal: {error.message}")
        return appended


class _Copies:
    """The copies of one batch that were not answered with decisions.

    After most errors nobody knows whether a copy was decided. `_REFUSED` say that it was not.
    """

    def __init__(self, trades: int) -> None:
        self._trades = trades
        self._waiting = OnChange(logger)
        self._in_doubt = OnChange(logger)  # a full disk, for example, answers each copy alike

    def note(self, error: Exception) -> None:
        """Another copy follows this one."""
        if isinstance(error, _REFUSED):
            self._waiting.trouble("batch of %d waits for an active catalog", self._trades)
        else:
            message = "batch of %d in doubt, sending it again: %s"
            self._in_doubt.trouble(message, self._trades, error, cause=str(error))

    def answer(self, last: BourseError) -> BourseError:
        """To the callers, when the batch is given up with the last copy's error."""
        in_doubt = self._in_doubt.is_present or not isinstance(last, _REFUSED)
        return OutcomeUnknown() if in_doubt else NotLeader()


def _answer(batch: Sequence[PendingTrade], results: Sequence[Result]) -> None:
    for pending, result in zip(batch, results, strict=True):
        pending.settle(result.outcome)


def _fail(batch: Sequence[PendingTrade], error: BourseError) -> None:
    for pending in batch:
        if not pending.outcome.done():
            pending.settle(error)


def _numbers(rows: Sequence[Order]) -> str:
    return f"orders {rows[0].number}..{rows[-1].number}" if rows else "no new order"
