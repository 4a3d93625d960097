"""Finding the leader, and electing one when there is none."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from common.domain import MAX_EPOCH
from common.errors import BourseError, Unavailable
from common.replicas import PendingAnswer, ReplicaPeer, ask_all
from proto import bourse_pb2

logger = logging.getLogger(__name__)

# A candidate that lacks more rows than this is asked last: its promotion would take long.
MAX_LAG = 1_000
# While the catalog is away: the pause between two rounds, and the longest wait for another
# thread's round. Rounds are slow then, and reads that need no catalog need the threads.
_BETWEEN_ROUNDS_S = 0.5
# If nobody has seen the outage for so long, it is over. The next one is a new one.
_FORGET_OUTAGE_AFTER_S = 5.0


class NoLeader(Unavailable):
    """No replica leads, and no candidate could become leader."""


class CatalogDown(NoLeader):
    """No replica can lead: the catalog cannot be reached.

    `since` is when this was first seen, on the election's clock.
    """

    def __init__(self, since: float) -> None:
        super().__init__("the catalog cannot be reached")
        self.since = since


@dataclass(frozen=True, slots=True)
class _Outage:
    """The catalog is away."""

    since: float
    seen_at: float  # at the end of the last round


@dataclass(frozen=True, slots=True)
class Leadership:
    """A replica and the epoch in which it says that it leads."""

    peer: ReplicaPeer
    epoch: int


class Election:
    """What one worker knows of the leadership. Threads that need a leader share a round.

    A round asks every replica who leads. If none says that it leads itself, the round asks the
    live replica with the highest id to lead. Other workers may run rounds at the same time. The
    catalog's fence accepts one of the new leaders last; it refuses the trades of the others.
    """

    def __init__(
        self,
        peers: Mapping[int, ReplicaPeer],
        probe_timeout_s: float,
        candidate_timeout_s: float,
        catalog_is_reachable: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peers = dict(peers)
        self._probe_timeout_s = probe_timeout_s
        self._candidate_timeout_s = candidate_timeout_s
        self._catalog_is_reachable = catalog_is_reachable
        self._clock = clock
        self._outage: _Outage | None = None
        self._sharing = threading.Lock()
        self._current: Leadership | None = None
        self._round: Future[Leadership] | None = None

    def find(
        self, failed: Leadership | None, give_up_at: float, *, is_gone: bool = False
    ) -> Leadership:
        """A leadership other than the one that failed, or that one if it still holds.

        Args:
            failed: the leadership under which the caller's trade has just failed.
            give_up_at: when the caller stops waiting, on this object's clock.
            is_gone: the failed leader's connection broke, so it is not asked a second time.

        Raises:
            NoLeader: no replica leads and no candidate could become leader, or not in time.
            CatalogDown: the same, and this worker cannot reach the catalog either.
        """
        now = self._clock()
        with self._sharing:
            if self._current is not None and self._current is not failed:
                return self._current
            self._current = None
            outage = self._recent_outage(now)
            if outage is not None and now < outage.seen_at + _BETWEEN_ROUNDS_S:
                raise CatalogDown(outage.since)
            running, mine = self._round, Future[Leadership]()
            if running is None:
                self._round = mine
        if running is not None:
            return _wait_for(running, give_up_at - now, outage)
        return self._run_round(mine, failed, give_up_at, is_gone)

    def _run_round(
        self,
        mine: Future[Leadership],
        failed: Leadership | None,
        give_up_at: float,
        is_gone: bool,
    ) -> Leadership:
        gone_id = failed.peer.replica_id if failed and is_gone else 0
        try:
            found = self._find(failed, gone_id, give_up_at)
        except BaseException as error:
            self._end_round(None, error)
            mine.set_exception(error)
            raise
        self._end_round(found)
        mine.set_result(found)
        return found

    def _end_round(self, found: Leadership | None, error: BaseException | None = None) -> None:
        """Called before the result is set: a caller who fails with it then starts a new round."""
        with self._sharing:
            self._current, self._round = found, None
            self._outage = None
            if isinstance(error, CatalogDown):
                self._outage = _Outage(error.since, self._clock())

    def _find(self, failed: Leadership | None, gone_id: int, give_up_at: float) -> Leadership:
        answers = self._ask_who_leads(failed, gone_id)
        named = [answer for answer in answers.values() if answer.leader_id == answer.replica_id]
        if named:
            newest = max(named, key=lambda answer: int(answer.epoch))
            logger.info("replica %d leads epoch %d", newest.replica_id, newest.epoch)
            return Leadership(self._peers[newest.replica_id], newest.epoch)
        known_epoch = max((int(answer.epoch) for answer in answers.values()), default=0)
        # The fence corrects any suggestion; the number only has to fit into a message.
        suggested = min(known_epoch, MAX_EPOCH - 1) + 1
        return self._elect(answers.keys() or self._peers.keys(), suggested, give_up_at)

    def _ask_who_leads(self, failed: Leadership | None, gone_id: int) -> dict[int, Any]:
        """Calls `GetLeader` of all replicas; again of the silent ones, except the one gone."""
        answers = self._probe("GetLeader", self._peers.keys(), failed)
        if _newer_than(failed, answers):
            return answers
        silent = self._peers.keys() - answers.keys() - {gone_id}
        return answers | self._probe("GetLeader", silent, failed)

    def _elect(self, candidates: Iterable[int], epoch: int, give_up_at: float) -> Leadership:
        alive = self._probe("IsAlive", candidates, None)
        for candidate_id in order_candidates(
            {replica_id: int(answer.last_number) for replica_id, answer in alive.items()}
        ):
            timeout_s = min(self._candidate_timeout_s, give_up_at - self._clock())
            if timeout_s <= 0:
                break
            leadership = self._propose(self._peers[candidate_id], epoch, timeout_s)
            if leadership is not None:
                self._broadcast(leadership)
                return leadership
        if self._clock() >= give_up_at:
            raise NoLeader("no leader was found in time")
        if self._catalog_is_reachable():
            raise NoLeader("no order replica can become leader now")
        now = self._clock()
        outage = self._recent_outage(now)
        raise CatalogDown(now if outage is None else outage.since)

    def _recent_outage(self, now: float) -> _Outage | None:
        outage = self._outage
        return outage if outage and now < outage.seen_at + _FORGET_OUTAGE_AFTER_S else None

    def _propose(self, candidate: ReplicaPeer, epoch: int, timeout_s: float) -> Leadership | None:
        request = bourse_pb2.SetLeaderRequest(leader_id=candidate.replica_id, epoch=epoch)
        try:
            answer = candidate.call("SetLeader", request, timeout_s)
        except BourseError as error:
            logger.warning("%s passed over: %s", candidate, error.message)
            return None
        if answer.leader_id != candidate.replica_id:
            logger.info("%s was elected, but another replica leads already", candidate)
            return None
        logger.info("%s elected, epoch %d", candidate, answer.epoch)
        return Leadership(candidate, answer.epoch)

    def _broadcast(self, leadership: Leadership) -> None:
        """Tells the other replicas. If one misses it, the new leader tells it later."""
        answers: queue.SimpleQueue[PendingAnswer] = queue.SimpleQueue()
        request = bourse_pb2.SetLeaderRequest(
            leader_id=leadership.peer.replica_id, epoch=leadership.epoch
        )
        for peer in self._peers.values():
            if peer is not leadership.peer:
                # Nobody reads the answer. But without a reference to it, the call is cancelled.
                peer.start("SetLeader", request, self._probe_timeout_s).when_done(answers)

    def _probe(self, method: str, ids: Iterable[int], failed: Leadership | None) -> dict[int, Any]:
        """The answers in time, by id. Stops at once when one names a newer leadership."""
        answers: dict[int, Any] = {}
        peers = [self._peers[replica_id] for replica_id in ids]
        for peer, answer in ask_all(peers, method, bourse_pb2.Empty(), self._probe_timeout_s):
            if isinstance(answer, BourseError):
                logger.debug("%s: no answer to %s: %s", peer, method, answer.message)
                continue
            answers[peer.replica_id] = answer
            if method == "GetLeader" and _newer_than(failed, answers):
                break
        return answers


def order_candidates(last_numbers: Mapping[int, int]) -> list[int]:
    """Live replicas in the order in which they are asked to lead.

    Args:
        last_numbers: replica id → its log's last number.
    """
    # Without it, a replica cut off is asked for ever ("the next candidate": test_failure_table.py).
    best = max(last_numbers.values(), default=0)
    return sorted(
        last_numbers,
        key=lambda replica_id: (best - last_numbers[replica_id] > MAX_LAG, -replica_id),
    )


def _newer_than(failed: Leadership | None, answers: Mapping[int, Any]) -> bool:
    """Whether a replica says that it leads in an epoch newer than the failed leadership's."""
    return failed is not None and any(
        answer.leader_id == answer.replica_id and answer.epoch > failed.epoch
        for answer in answers.values()
    )


def _wait_for(running: Future[Leadership], timeout_s: float, outage: _Outage | None) -> Leadership:
    if outage is not None:
        timeout_s = min(timeout_s, _BETWEEN_ROUNDS_S)
    try:
        return running.result(timeout=max(0.0, timeout_s))
    except TimeoutError:
        if outage is not None:
            raise CatalogDown(outage.since) from None
        raise NoLeader("no leader was found in time") from None
