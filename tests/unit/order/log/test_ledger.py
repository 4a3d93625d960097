"""Appending rows from many threads: each row once, in order and chained, or not at all."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from common.domain import Order
from common.errors import Contradiction, Damaged, Unavailable
from common.pulls import Rows
from order.leadership.replica import Gap
from order.log.ledger import AppendFailed, RowSource
from tests.unit.order.fakes import (
    CLUSTER,
    OTHER_CLUSTER,
    Parts,
    chained,
    make_rows,
    numbers,
    open_parts,
    refusing_rows,
)

ROWS = make_rows(20)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """A replica with the first ten of ROWS."""
    with open_parts(tmp_path, ROWS[:10]) as made:
        yield made


def assert_holds(parts: Parts, rows: Sequence[Order]) -> None:
    """Checks that log and state machine have exactly these rows."""
    assert parts.log.rows(0) == list(rows)
    view = parts.node.view()
    assert (view.position, view.digest) == (rows[-1].number, rows[-1].digest)
    assert (parts.log.last_number, parts.log.digest) == (view.position, view.digest)


# ------------------------------------------------------------ append


@pytest.mark.parametrize(
    ("given", "appended"),
    [
        (ROWS[10:13], ROWS[10:13]),
        (ROWS[5:13], ROWS[10:13]),
        (ROWS[12:9:-1], ROWS[10:13]),
        ([ROWS[11], ROWS[2], ROWS[10]], ROWS[10:12]),
        ([ROWS[10], ROWS[10]], ROWS[10:11]),
        (ROWS[:10], []),
        ([], []),
    ],
)
def test_what_the_log_lacks_is_appended(
    parts: Parts, given: list[Order], appended: list[Order]
) -> None:
    assert parts.ledger.append(iter(given)) == appended
    assert_holds(parts, ROWS[: 10 + len(appended)])


@pytest.mark.parametrize("given", [ROWS[11:13], [ROWS[10], ROWS[12]], [ROWS[9], ROWS[19]]])
def test_where_rows_are_missing_nothing_is_appended(parts: Parts, given: list[Order]) -> None:
    with pytest.raises(Gap):
        parts.ledger.append(given)
    assert_holds(parts, ROWS[:10])
    assert parts.ledger.append(ROWS[10:]) == ROWS[10:]


CHANGES = [
    {"request_id": "another"},
    {"name": "stock9"},
    {"type": "SELL"},
    {"quantity": 1_000},
    {"version": 1_000},
    {"epoch": 9},
    {"digest": bytes(32)},
    {"digest": b""},
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_row_that_contradicts_the_log_is_damage(parts: Parts, change: dict[str, object]) -> None:
    contradiction = replace(ROWS[4], **change)  # type: ignore[arg-type]
    with pytest.raises(Damaged, match="row 5 is not the one in the log"):
        parts.ledger.append([contradiction, *ROWS[10:12]])
    assert_holds(parts, ROWS[:10])


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("index", [10, 11])
def test_a_row_that_does_not_continue_the_chain_is_damage(
    parts: Parts, index: int, change: dict[str, object]
) -> None:
    given = ROWS[10:13]
    given[index - 10] = replace(ROWS[index], **change)  # type: ignore[arg-type]
    with pytest.raises(Damaged, match=rf"row {index + 1} does not continue the log's chain"):
        parts.ledger.append(given)
    assert_holds(parts, ROWS[:10])
    parts.ledger.append(ROWS[10:13])
    assert_holds(parts, ROWS[:13])


def test_rows_of_another_history_are_damage_though_their_own_chain_is_whole(parts: Parts) -> None:
    other = chained(replace(row, epoch=2) for row in ROWS)
    with pytest.raises(Damaged, match="row 11 does not continue"):
        parts.ledger.append(other[10:])
    with pytest.raises(Damaged, match="row 1 is not the one"):
        parts.ledger.append(other)
    assert_holds(parts, ROWS[:10])


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_that_no_row_can_have_is_not_appended(parts: Parts, number: int) -> None:
    with pytest.raises(Damaged):
        parts.ledger.append([replace(ROWS[0], number=number)])
    assert_holds(parts, ROWS[:10])


# ------------------------------------------------------------ a disk that takes nothing


def test_an_append_that_fails_is_remembered_until_one_succeeds(parts: Parts) -> None:
    assert not parts.ledger.last_append_failed
    with refusing_rows(parts.log):
        for _ in range(2):
            with pytest.raises(AppendFailed) as caught:
                parts.ledger.append(ROWS[10:])
            assert isinstance(caught.value.__cause__, sqlite3.Error)
            assert parts.ledger.last_append_failed
    assert_holds(parts, ROWS[:10])
    # Appends that write nothing do not prove that the disk works again.
    assert parts.ledger.append(ROWS[:10]) == []
    assert parts.ledger.append([]) == []
    assert parts.ledger.last_append_failed
    assert parts.ledger.append(ROWS[10:]) == ROWS[10:]
    assert not parts.ledger.last_append_failed
    assert_holds(parts, ROWS)


def test_rows_that_are_wrong_say_nothing_of_the_disk(parts: Parts) -> None:
    for wrong in (ROWS[15:], chained([replace(ROWS[10], epoch=2)], ROWS[0].digest)):
        with pytest.raises((Gap, Damaged)):
            parts.ledger.append(wrong)
    assert not parts.ledger.last_append_failed


# ------------------------------------------------------------ the cluster


def test_an_empty_log_takes_the_id_over_with_its_first_row(tmp_path: Path) -> None:
    with open_parts(tmp_path) as parts:
        parts.ledger.append([], CLUSTER)
        parts.ledger.join_cluster("")
        assert parts.ledger.cluster_id == ""
        parts.ledger.append(ROWS[:2], CLUSTER)
        assert parts.ledger.cluster_id == CLUSTER
    with open_parts(tmp_path) as again:
        assert again.ledger.cluster_id == CLUSTER


def test_a_first_row_that_the_disk_refuses_brings_no_id(tmp_path: Path) -> None:
    with open_parts(tmp_path) as parts:
        with refusing_rows(parts.log), pytest.raises(AppendFailed):
            parts.ledger.append(ROWS[:1], CLUSTER)
        assert parts.ledger.cluster_id == ""
        parts.ledger.append(ROWS[:1], OTHER_CLUSTER)
        assert parts.ledger.cluster_id == OTHER_CLUSTER


def test_rows_of_another_cluster_are_refused_though_they_continue_the_log(parts: Parts) -> None:
    parts.ledger.append(ROWS[10:11], CLUSTER)
    for rows in (ROWS[11:], ROWS[:5], []):
        with pytest.raises(Contradiction, match=f"{CLUSTER}, those rows of {OTHER_CLUSTER}"):
            parts.ledger.append(rows, OTHER_CLUSTER)
    with pytest.raises(Contradiction, match=OTHER_CLUSTER):
        parts.ledger.pull(
            lambda after: [Rows(ROWS[after:], OTHER_CLUSTER)], lambda _: pytest.fail("took rows")
        )
    with pytest.raises(Contradiction, match=OTHER_CLUSTER):
        parts.ledger.join_cluster(OTHER_CLUSTER)
    assert_holds(parts, ROWS[:11])
    parts.ledger.append(ROWS[11:12])  # of a leader of an earlier version, which tells no id
    assert (parts.ledger.cluster_id, parts.log.last_number) == (CLUSTER, 12)


def test_a_log_without_an_id_joins_the_cluster_that_confirmed_it(parts: Parts) -> None:
    assert parts.ledger.cluster_id == ""
    with refusing_rows(parts.log):
        parts.ledger.join_cluster(CLUSTER)
    assert parts.ledger.cluster_id == ""
    parts.ledger.join_cluster(CLUSTER)
    parts.ledger.join_cluster(CLUSTER)
    assert parts.ledger.cluster_id == CLUSTER
    assert_holds(parts, ROWS[:10])
    assert parts.ledger.append(ROWS[10:], CLUSTER) == ROWS[10:]


@pytest.mark.timeout(20)
def test_a_log_of_that_cluster_is_told_so_while_the_disk_hangs(parts: Parts) -> None:
    """Else comparing log and catalog would end with the first append that hangs."""
    parts.ledger.join_cluster(CLUSTER)
    with ThreadPoolExecutor(1) as threads, parts.ledger._appending:
        threads.submit(parts.ledger.join_cluster, CLUSTER).result(timeout=5)


# ------------------------------------------------------------ pull


def chunks_of(size: int, rows: Sequence[Order] = ROWS) -> RowSource:
    def source(after: int) -> Iterator[Rows]:
        for start in range(after, len(rows), size):
            yield Rows(rows[start : start + size], CLUSTER)

    return source


def test_pulling_appends_all_that_the_source_has_more(parts: Parts) -> None:
    published: list[list[Order]] = []
    parts.ledger.pull(chunks_of(4), published.append)
    assert_holds(parts, ROWS)
    assert published == [ROWS[10:14], ROWS[14:18], ROWS[18:]]


def test_pulling_from_who_has_no_more_changes_nothing(parts: Parts) -> None:
    parts.ledger.pull(chunks_of(4, ROWS[:10]), lambda _rows: pytest.fail("nothing to publish"))
    parts.ledger.pull(chunks_of(4, ROWS[:5]), lambda _rows: pytest.fail("nothing to publish"))
    assert_holds(parts, ROWS[:10])


def test_what_came_before_the_source_broke_off_is_kept(parts: Parts) -> None:
    def breaking(after: int) -> Iterable[Rows]:
        yield Rows(ROWS[after : after + 3])
        raise Unavailable("gone")

    published: list[Order] = []
    with pytest.raises(Unavailable, match="gone"):
        parts.ledger.pull(breaking, published.extend)
    assert_holds(parts, ROWS[:13])
    assert published == ROWS[10:13]
    parts.ledger.pull(chunks_of(100), published.extend)
    assert published == ROWS[10:]


@pytest.mark.timeout(20)
def test_others_append_while_the_source_is_slow(parts: Parts) -> None:
    """A pull does not hold the lock between chunks, and skips rows that others appended."""
    published: list[Order] = []

    def slow(after: int) -> Iterable[Rows]:
        yield Rows(ROWS[after : after + 2])
        assert parts.ledger.append(ROWS[12:17]) == ROWS[12:17]
        yield Rows(ROWS[after + 2 : after + 4])
        yield Rows(ROWS[after + 4 :])

    parts.ledger.pull(slow, published.extend)
    assert_holds(parts, ROWS)
    assert published == ROWS[10:12] + ROWS[17:]


def test_a_pull_that_the_disk_refuses(parts: Parts) -> None:
    with refusing_rows(parts.log), pytest.raises(AppendFailed):
        parts.ledger.pull(chunks_of(4), lambda _rows: pytest.fail("nothing was appended"))
    assert_holds(parts, ROWS[:10])


# ------------------------------------------------------------ many threads


def test_rows_that_arrive_by_many_ways_at_once_get_in_once(tmp_path: Path) -> None:
    """Each thread sends overlapping pieces in its own order, like peers and pulls."""
    rows = make_rows(300)
    everybody = threading.Barrier(8, timeout=10)

    def send(seed: int) -> list[Order]:
        chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        appended: list[Order] = []
        everybody.wait()
        while (position := parts.node.view().position) < len(rows):
            first = max(0, position - chance.randrange(5))
            try:
                appended += parts.ledger.append(rows[first : position + 1 + chance.randrange(5)])
                appended += parts.ledger.append(rows[position + 3 : position + 6])
            except Gap:
                pass
        return appended

    with open_parts(tmp_path) as parts:
        with ThreadPoolExecutor(8) as threads:
            appended = [row for rows in threads.map(send, range(8)) for row in rows]
        assert_holds(parts, rows)
    assert sorted(numbers(appended)) == numbers(rows)  # each row was new for one thread only


def test_a_reader_sees_position_and_digest_of_one_moment(parts: Parts) -> None:
    digests = {row.number: row.digest for row in ROWS}
    is_over = threading.Event()
    seen = set()

    def read() -> None:
        while not is_over.is_set():
            view = parts.node.view()
            seen.add((view.position, view.digest == digests[view.position]))

    reader = threading.Thread(target=read)
    reader.start()
    for row in ROWS[10:]:
        parts.ledger.append([row])
    is_over.set()
    reader.join()
    assert all(agrees for _position, agrees in seen)
