"""Appending: rows enter the log only here, in order, each continuing the hash chain."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from common.domain import Order, next_digest
from common.errors import Contradiction
from common.on_change import OnChange
from common.pulls import Rows
from order.leadership.node import Node
from order.log.log import OrderLog

logger = logging.getLogger(__name__)

# Reads the rows above a number, in order, in chunks.
RowSource = Callable[[int], Iterable[Rows]]


class AppendFailed(Exception):
    """The disk did not take the rows; the log is as it was."""


class Ledger:
    """The log and the position in it, changed together under one lock."""

    def __init__(self, log: OrderLog, node: Node) -> None:
        self._log = log
        self._node = node
        self._appending = threading.Lock()
        self._refusing = OnChange(logger)  # a full disk is tried again and again

    @property
    def last_append_failed(self) -> bool:
        """True from a failed append to the next one that succeeds."""
        return self._refusing.is_present

    @property
    def cluster_id(self) -> str:
        """Of the log; empty while it has none."""
        return self._log.cluster_id

    def check_cluster(self, cluster_id: str) -> None:
        """Raises Contradiction if the log is of another cluster. An empty id claims nothing."""
        if cluster_id and self._log.cluster_id not in ("", cluster_id):
            raise Contradiction(
                f"this log is of cluster {self._log.cluster_id}, those rows of {cluster_id}"
            )

    def join_cluster(self, cluster_id: str) -> None:
        """Notes the id of the catalog that confirmed the log's rows, if the log has none yet.

        A log has rows and no id if an earlier version wrote it.

        Raises:
            Contradiction: the log is of another cluster.
        """
        self.check_cluster(cluster_id)
        if not cluster_id or self._log.cluster_id:
            return  # without the lock: an append that hangs must not stop the looks
        with self._appending:
            self.check_cluster(cluster_id)
            if not self._log.cluster_id:
                with suppress(AppendFailed):  # which is logged; the next look tries again
                    self._write([], cluster_id)

    def append(self, rows: Iterable[Order], cluster_id: str = "") -> list[Order]:
        """Appends what the log lacks of these rows; returns that.

        Rows at or below the last number must be the ones the log has.

        Args:
            cluster_id: of the rows; empty if that is not known.

        Raises:
            Gap: rows between the log's end and these are missing; nothing was appended.
            Contradiction: the rows are of another cluster, a row contradicts the log or does not
                continue its chain; nothing was appended.
            AppendFailed: the disk did not take the rows; nothing was appended.
        """
        by_number = {row.number: row for row in rows}
        with self._appending:
            self.check_cluster(cluster_id)
            known, fresh = self._node.step(lambda replica: replica.split(by_number))
            # Without it, a number is given twice ("rows compared": test_lost_rows.py).
            self._check_known([by_number[number] for number in known])
            appended = [by_number[number] for number in fresh]
            if appended:
                self._check_chain(appended)
                self._write(appended, cluster_id)
        return appended

    def pull(self, source: RowSource, on_appended: Callable[[list[Order]], None]) -> None:
        """Appends all that the source has above the log's end, chunk by chunk.

        The lock is held for each chunk, not for the whole pull. Others may append meanwhile: rows
        never change, so what they appended is simply known when this pull comes to it.

        Raises:
            Contradiction, AppendFailed: as `append`.
            BourseError: whatever the source raises.
        """
        for rows in source(self._node.view().position):
            on_appended(self.append(*rows))

    def _check_known(self, rows: list[Order]) -> None:
        if not rows or self._log.rows(rows[0].number - 1, len(rows)) == rows:
            return
        for row in rows:  # not in one piece, or one of them is another
            if self._log.row(row.number) != row:
                raise Contradiction(f"row {row.number} is not the one in the log: {row}")

    def _check_chain(self, rows: Sequence[Order]) -> None:
        digest = self._log.digest
        for row in rows:
            digest = next_digest(digest, row)
            if row.digest != digest:
                raise Contradiction(f"row {row.number} does not continue the log's chain: {row}")

    def _write(self, rows: Sequence[Order], cluster_id: str) -> None:
        try:
            self._log.append(rows, cluster_id)
        except sqlite3.Error as error:
            self._refusing.trouble("cannot append to the log: %s", error, level=logging.ERROR)
            raise AppendFailed(str(error)) from error
        self._refusing.over("appending to the log again")
        if rows:
            last = rows[-1]
            self._node.step(lambda replica: replica.advance(last.number, len(rows), last.digest))
