"""Taking office: fence → pull → lead."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol

from common.errors import BourseError, Damaged, Unavailable
from common.records import Order
from order.catalog_client import FenceAnswer
from order.ledger import AppendFailed, Ledger
from order.node import Node
from order.replica import IN_OFFICE, IllegalTransition, Replica

logger = logging.getLogger(__name__)

_RETRY_PAUSE_S = 0.05


class Registry(Protocol):
    """The catalog, as far as taking office needs it."""

    def fence(self, epoch: int, leader_id: int, timeout_s: float) -> FenceAnswer: ...

    def journal(self, after: int) -> Iterable[Sequence[Order]]: ...


def _in_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="promote", daemon=True).start()


class Office:
    """Takes office when asked to; callers that ask at once join one attempt."""

    def __init__(
        self,
        node: Node,
        registry: Registry,
        ledger: Ledger,
        announce: Callable[[Sequence[Order]], None],
        *,
        fence_timeout_s: float,
        patience_s: float,
        halt: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        spawn: Callable[[Callable[[], None]], None] = _in_a_thread,
    ) -> None:
        self._node = node
        self._registry = registry
        self._ledger = ledger
        self._announce = announce
        self._fence_timeout_s = fence_timeout_s
        self._patience_s = patience_s
        self._halt = halt
        self._clock = clock
        self._pause = pause
        self._spawn = spawn
        self._joining = threading.Lock()
        self._attempt: Future[int] | None = None

    def take(self, suggested_epoch: int) -> int:
        """Holds office when it returns: leading, or about to; returns the office's epoch.

        Raises:
            Unavailable: the fence could not be had in time, or the log takes no rows.
        """
        with self._joining:
            view = self._node.view()
            if view.role in IN_OFFICE:
                return view.epoch
            running = self._attempt
            mine: Future[int] = Future()
            if running is None:
                self._attempt = mine
        if running is not None:
            return self._join(running)
        return self._run(mine, suggested_epoch)

    def _join(self, attempt: Future[int]) -> int:
        try:
            return attempt.result(timeout=2 * self._fence_timeout_s)
        except TimeoutError:
            raise Unavailable("taking office takes too long") from None

    def _run(self, attempt: Future[int], suggested_epoch: int) -> int:
        try:
            epoch = self._fence(suggested_epoch)
        except BaseException as error:
            attempt.set_exception(error)
            raise
        else:
            attempt.set_result(epoch)
        finally:
            with self._joining:
                self._attempt = None
        self._spawn(lambda: self._promote(epoch))
        return epoch

    def _fence(self, suggested_epoch: int) -> int:
        """From follower to promoting; returns the epoch that the catalog registered."""
        self._check_log()
        asked = self._node.step(lambda replica: replica.stand(suggested_epoch))
        try:
            return self._ask_fence(asked)
        except BaseException:
            self._node.step(Replica.withdraw, "no office to be had")
            raise

    def _check_log(self) -> None:
        """A log that refused its last rows must take them before this replica may lead."""
        if not self._ledger.last_append_failed:
            return
        try:
            self._ledger.pull(self._registry.journal, self._announce)
        except AppendFailed as failure:
            raise Unavailable(f"the log takes no rows: {failure}") from failure

    def _ask_fence(self, asked: int) -> int:
        replica_id = self._node.view().replica_id
        give_up_at = self._clock() + self._fence_timeout_s
        while (remaining_s := give_up_at - self._clock()) > 0:
            try:
                answer = self._registry.fence(asked, replica_id, remaining_s)
            except BourseError as error:
                logger.warning("epoch %d: no answer from the fence: %s", asked, error)
                self._pause(min(_RETRY_PAUSE_S, remaining_s))
                continue
            if answer.accepted:
                self._accepted(asked)
                return asked
            asked = self._refused(asked, answer)
        raise Unavailable("cannot reach the catalog to take office")

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

    def _promote(self, epoch: int) -> None:
        """From promoting to leading: the log gets what it lacks; what it got is announced, for
        the leader that had it committed may have died before it could."""
        try:
            self._pull(epoch)
            self._node.step(lambda replica: replica.caught_up(epoch), "caught up")
        except IllegalTransition:
            logger.info("office of epoch %d was lost while promoting", epoch)
        except (BourseError, AppendFailed) as error:
            self._step_down(epoch, f"cannot catch up: {error}")
            if isinstance(error, Damaged):
                self._halt(error.message)
        except Exception:
            logger.exception("unexpected error while promoting")
            self._step_down(epoch, "unexpected error while promoting")

    def _pull(self, epoch: int) -> None:
        """Raises what the last try ended with when the patience is over."""
        give_up_at = self._clock() + self._patience_s
        while True:
            try:
                self._ledger.pull(self._registry.journal, self._announce)
            except Damaged:
                raise
            except BourseError as error:
                if self._clock() >= give_up_at or self._node.view().epoch != epoch:
                    raise
                logger.warning("epoch %d: pulling again: %s", epoch, error)
                self._pause(_RETRY_PAUSE_S)
            else:
                return

    def _step_down(self, epoch: int, why: str) -> None:
        self._node.step(lambda replica: replica.step_down(epoch), why)
