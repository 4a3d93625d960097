"""The log as text: a save writes all rows, and replaces the file completely or not at all."""

from __future__ import annotations

import csv
import os
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from common.domain import Order
from order.log.log import OrderLog
from tests.unit.order.fakes import chained, make_rows, numbers
from tests.unit.order.log.logs import ROWS, path_in


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return path_in(tmp_path)


def saved(path: Path) -> list[list[str]]:
    with path.with_name("stockOrderDB.txt").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


HEADER = ["number", "name", "type", "quantity"]


def test_save_writes_every_row(path: Path) -> None:
    rows = make_rows(1_200)
    with closing(OrderLog(path)) as log:
        assert log.save() == 0
        assert saved(path) == [HEADER]
        log.append(rows)
        assert log.save() == 1_200
    assert saved(path) == [
        HEADER,
        *([str(row.number), row.name, row.type, str(row.quantity)] for row in rows),
    ]


@pytest.mark.parametrize("name", ["a,b", 'say "hi"', '",",', " spaced ", "株", "'", "=1+1"])
def test_save_keeps_names_as_they_are(path: Path, name: str) -> None:
    rows = chained([Order(1, "k", name, "SELL", 3, 1, 1), Order(2, "l", "stock1", "BUY", 4, 1, 1)])
    with closing(OrderLog(path)) as log:
        log.append(rows)
        log.save()
    assert saved(path) == [HEADER, ["1", name, "SELL", "3"], ["2", "stock1", "BUY", "4"]]
    text = path.with_name("stockOrderDB.txt").read_bytes()
    assert text.endswith(b"2,stock1,BUY,4\n")
    assert b"\r" not in text


def test_save_replaces_the_file_at_the_end_only(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    with closing(OrderLog(path)) as log:
        log.append(ROWS[:1])
        log.save()
        before = saved(path)
        log.append(ROWS[1:])
        seen = []

        def sync(_file: int) -> None:
            seen.append(saved(path))

        monkeypatch.setattr(os, "fsync", sync)
        log.save()
    assert seen == [before]  # the old file stays until all is written and synced
    assert len(saved(path)) == 1 + len(ROWS)
    assert not list(path.parent.glob("*.tmp"))


def fail_to_sync(_file: int) -> None:
    raise OSError("no space left on device")


def test_a_save_that_fails_leaves_the_file_as_it_was(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    with closing(OrderLog(path)) as log:
        log.append(ROWS[:1])
        log.save()
        before = saved(path)
        log.append(ROWS[1:])
        monkeypatch.setattr(os, "fsync", fail_to_sync)
        with pytest.raises(OSError, match="no space left"):
            log.save()
    assert saved(path) == before


def test_a_save_that_fails_leaves_no_draft(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(os, "fsync", fail_to_sync)
    with closing(OrderLog(path)) as log:
        log.append(ROWS)
        with pytest.raises(OSError, match="no space left"):
            log.save()
    assert not list(path.parent.glob("*.tmp"))


def test_saves_at_once_do_not_write_into_one_file(path: Path) -> None:
    with closing(OrderLog(path)) as log:
        log.append(ROWS)
        in_step = threading.Barrier(4, timeout=10)
        fsync = os.fsync

        def sync(file: int) -> None:
            in_step.wait()  # all have written their file, none has replaced the old one
            fsync(file)

        def save(_index: int) -> int:
            return log.save()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "fsync", sync)
            assert run_at_once(save, 4) == [len(ROWS)] * 4
    assert [int(line[0]) for line in saved(path)[1:]] == numbers(ROWS)


def run_at_once(work: Callable[[int], int], count: int) -> list[int]:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda index=index: results.append(work(index)))
        for index in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
