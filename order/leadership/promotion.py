"""Promotion, from follower to leader: fence → pull → lead."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol

from common.catalogs import TAKEOVER_S
from common.domain import Order
from common.errors import BourseError, Contradiction, Damaged, NotActive, Unavailable
from common.on_change import OnChange
from common.pulls import Rows
from common.retries import Retries, always
from order.leadership.node import Node
from order.leadership.replica import LEADING, IllegalTransition, Replica
from order.leadership.watchdog import Progress
from order.log.ledger import AppendFailed, Ledger
from order.trading.catalog_client import FenceAnswer

logger = logging.getLogger(__name__)

_RETRY_PAUSE_S = 0.05
# How long a replica rests after it stopped leading by its own fault. If it is the only survivor, it
# must lead again within the time that a frontend gives a trade.
_REST_S = 2.0


class Registry(Protocol):
    """The catalog, as far as a promotion needs it."""

    def fence(
        self,
        epoch: int,
        leader_id: int,
        timeout_s: float,
        last_number: int = 0,
        digest: bytes = b"",
        *,
        cluster_id: str = "",
    ) -> FenceAnswer: ...

    def journal(self, after: int) -> Iterable[Rows]: ...


def _in_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="promote", daemon=True).start()


class Promotion:
    """Makes this replica the leader when asked to; callers that ask at once join one attempt.

    A replica that stopped leading by its own fault (it does not reach the catalog, or its disk
    fails) rests for a moment, so that the next one gets its turn.
    """

    def __init__(
        self,
        node: Node,
        registry: Registry,
        ledger: Ledger,
        publish: Callable[[Sequence[Order]], None],
        contradicted: Callable[[Contradiction], None],
        *,
        progress: Progress,
        fence_timeout_s: float,
        patience_s: float,
        halt: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        spawn: Callable[[Callable[[], None]], object] = _in_a_thread,
    ) -> None:
        self._node = node
        self._registry = registry
        self._ledger = ledger
        self._publish = publish
        self._contradicted = contradicted
        self._fence_timeout_s = fence_timeout_s
        self._patience_s = patience_s
        self._progress = progress
        self._halt = halt
        self._clock = clock
        self._pause = pause
        self._spawn = spawn
        self._joining = threading.Lock()
        self._attempt: Future[int] | None = None
        self._rests_until = clock()
        self._resigned_because = ""

    def lead(self, suggested_epoch: int) -> int:
        """When it returns, this replica leads or is about to; returns the epoch.

        An attempt that takes longer goes on without its callers; if it succeeds, the replica
        is found to lead when somebody next asks.

        Raises:
            Unavailable: the epoch was not registered in time, or this replica rests.
        """
        try:
            return self.begin(suggested_epoch).result(timeout=self._fence_timeout_s)
        except TimeoutError:
            raise Unavailable("the promotion takes too long") from None

    def begin(self, suggested_epoch: int) -> Future[int]:
        """The attempt that runs, or a new one; done at once if this replica leads already."""
        attempt: Future[int] = Future()
        with self._joining:
            view = self._node.view()
            if view.role in LEADING:
                attempt.set_result(view.epoch)
                return attempt
            if self._clock() < self._rests_until:
                attempt.set_exception(Unavailable(f"resting: {self._resigned_because}"))
                return attempt
            if self._attempt is not None:
                return self._attempt
            self._attempt = attempt
        try:
            self._spawn(lambda: self._run(attempt, suggested_epoch))
        except RuntimeError as error:  # no thread can be started
            self._forget(attempt)
            attempt.set_exception(Unavailable(f"cannot lead: {error}"))
        return attempt

    def resign(self, epoch: int, why: str) -> None:
        """Stops leading in that epoch by this replica's own fault, and rests."""
        with self._joining:  # so that no caller can promote it before it rests
            if self._node.step(lambda replica: replica.step_down(epoch), why):
                self._rest(why)

    def give_up(self, why: str) -> None:
        """Stops leading, in whatever epoch, and rests."""
        with self._joining:
            self._node.step(lambda replica: replica.step_down(replica.view().epoch), why)
            self._rest(why)

    def _rest(self, why: str) -> None:
        self._resigned_because = why
        self._rests_until = self._clock() + _REST_S

    def _run(self, attempt: Future[int], suggested_epoch: int) -> None:
        """From follower to leader; the callers are answered once the fence has accepted."""
        with self._progress.of_work() as moved:
            try:
                epoch = self._fence(suggested_epoch, moved)
            except Exception as error:
                if isinstance(error, Damaged):
                    self._report(error)
                elif not isinstance(error, BourseError):
                    logger.exception("unexpected error while asking the fence")
                self._forget(attempt)
                attempt.set_exception(Unavailable(f"cannot lead: {error}"))
                return
            self._forget(attempt)
            attempt.set_result(epoch)
            moved()
            self._promote(epoch, moved)

    def _report(self, error: Damaged) -> None:
        """A contradiction does not halt this replica: the catalog may be the wrong one."""
        if isinstance(error, Contradiction):
            self._contradicted(error)
        else:
            self._halt(error.message)

    def _forget(self, attempt: Future[int]) -> None:
        with self._joining:
            if self._attempt is attempt:
                self._attempt = None

    def _fence(self, suggested_epoch: int, moved: Callable[[], None]) -> int:
        """From follower to promoting; returns the epoch that the catalog registered."""
        self._check_log(moved)
        asked = self._node.step(lambda replica: replica.stand(suggested_epoch))
        try:
            return self._ask_fence(asked)
        except BaseException:
            self._node.step(Replica.withdraw, "not accepted by the fence")
            raise

    def _check_log(self, moved: Callable[[], None]) -> None:
        """A log that refused its last rows must take them before this replica may lead."""
        if not self._ledger.last_append_failed:
            return
        try:
            self._pull_once(moved)
        except AppendFailed as failure:
            raise Unavailable(f"the log takes no rows: {failure}") from failure

    def _ask_fence(self, asked: int) -> int:
        give_up_at = self._clock() + self._patience_s
        unanswered = OnChange(logger)
        while (remaining_s := give_up_at - self._clock()) > 0:
            view = self._node.view()
            try:
                answer = self._registry.fence(
                    asked,
                    view.replica_id,
                    remaining_s,
                    view.position,
                    view.digest,
                    cluster_id=self._ledger.cluster_id,
                )
            except Contradiction:
                raise
            except BourseError as error:
                message = "epoch %d: no answer from the fence: %s"
                unanswered.trouble(message, asked, error, cause=error.message)
                self._pause(min(_RETRY_PAUSE_S, remaining_s))
                continue
            if answer.accepted:
                self._accepted(asked)
                return asked
            asked = self._refused(asked, answer)
        raise Unavailable("cannot reach the catalog to register an epoch")

    def _accepted(self, asked: int) -> None:
        self._node.step(lambda replica: replica.fence_accepted(asked), "accepted by the fence")

    def _refused(self, asked: int, answer: FenceAnswer) -> int:
        logger.info(
            "epoch %d refused: epoch %d of replica %d is registered",
            asked,
            answer.epoch,
            answer.leader_id,
        )
        return self._node.step(lambda replica: replica.fence_refused(asked, answer.epoch))

    def _promote(self, epoch: int, moved: Callable[[], None]) -> None:
        """From promoting to leading: the log gets the rows that it lacks. They are published,
        because the leader that committed them may have died before it published them."""
        try:
            # Without it, a new leader lacks orders ("pull before leading": test_interleavings.py).
            self._pull(epoch, moved)
            self._node.step(lambda replica: replica.caught_up(epoch), "caught up")
        except IllegalTransition:
            logger.info("epoch %d was lost while promoting", epoch)
        except (BourseError, AppendFailed) as error:
            self.resign(epoch, f"cannot catch up: {error}")
            if isinstance(error, Damaged):
                self._report(error)
        except Exception:
            logger.exception("unexpected error while promoting")
            self.resign(epoch, "unexpected error while promoting")

    def _pull(self, epoch: int, moved: Callable[[], None]) -> None:
        """Raises the error of the last try when the patience is over."""

        def go_on(error: Exception) -> None:
            if self._node.view().epoch != epoch:
                raise error
            logger.warning("epoch %d: pulling again: %s", epoch, error)
            moved()

        retries = Retries(
            on=(BourseError,),
            never_on=(Damaged,),
            for_s=self._patience_s,
            longer_on=(NotActive,),
            longest_s=TAKEOVER_S,
            backoff=always(_RETRY_PAUSE_S),
            clock=self._clock,
            sleep=self._pause,
        )
        retries.call(lambda _left_s: self._pull_once(moved), before_retry=go_on)

    def _pull_once(self, moved: Callable[[], None]) -> None:
        self._ledger.pull(self._registry.journal, lambda rows: self._take_in(rows, moved))

    def _take_in(self, rows: Sequence[Order], moved: Callable[[], None]) -> None:
        moved()
        self._publish(rows)
