"""The file of a run: records are read as they were written, and other files are refused."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from faults.checker import judge
from faults.cli import main
from faults.history import (
    BadHistory,
    Call,
    Completion,
    HistoryWriter,
    Record,
    read_history,
    to_line,
)
from tests.unit.faults.histories import NOTHING, good, positions

LOOKUP = {"kind": "call", "id": 1, "at_ns": 1, "client": 1, "op": "lookup", "phase": "run",
          "name": "a"}  # fmt: skip
RECORDS = good().seen(**positions(0, NOTHING)).verified().told()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as writer:
        for record in RECORDS:
            writer.write(record)
    return path


def test_every_kind_of_record_comes_back_as_it_was_written(file: Path) -> None:
    assert {type(record) for record in RECORDS} == set(get_args(Record))
    assert list(read_history(file)) == RECORDS


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as writer:
        writer.write(RECORDS[0])
        threads = [
            threading.Thread(target=lambda: [writer.write(one) for one in RECORDS * 20])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(list(read_history(path))) == 1 + 4 * 20 * len(RECORDS)


@pytest.mark.parametrize("cut_by", [1, 20])
def test_a_last_line_cut_short_is_left_out(file: Path, cut_by: int) -> None:
    """This happens when the process that writes the file is killed."""
    file.write_bytes(file.read_bytes()[:-cut_by])
    records = list(read_history(file))
    assert records == RECORDS[:-1]
    assert not judge(records).held


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the history is empty"),
        (b"hello\n", "line 1"),
        (b"[]\n", "line 1"),
        (b'{"kind": "run"}\n', "not format 2"),
        (b'{"kind": "nothing"}\n', "line 1"),
        (to_line(RECORDS[1]).encode(), "begins with its run"),
        (to_line(RECORDS[0]).encode() + b'{"kind": "call", "id": 1}\n', "line 2"),
        (to_line(RECORDS[0]).encode() + b'{"kind": "call", "wrong": 1}\n', "line 2"),
        (to_line(RECORDS[0]).encode() + b"[" * 100_000 + b"\n", "line 2"),
        (b"\xff\xfe\n", "is no history"),
        *(
            (to_line(RECORDS[0]).encode() + json.dumps(line).encode() + b"\n", says)
            for line, says in (
                ({**LOOKUP, "at_ns": "1"}, "line 2: TypeError: at_ns is '1'"),
                ({**LOOKUP, "id": True}, "id is True"),
                ({**LOOKUP, "op": "buy"}, "op is 'buy'"),
                ({**LOOKUP, "phase": "later"}, "phase is 'later'"),
                ({**LOOKUP, "name": None}, "a lookup without name"),
                ({**LOOKUP, "op": "trade"}, "a trade without type, quantity"),
                ({"kind": "completion", "id": 1, "at_ns": 1, "status": "200"}, "status is '200'"),
                (
                    {
                        "kind": "final",
                        "at_ns": 1,
                        "last_number": 0,
                        "quantities": {"a": 1.5},
                        "versions": {},
                        "replicas": {},
                    },
                    "quantities is",
                ),
            )
        ),
    ],
)
def test_what_is_no_history_is_refused(
    tmp_path: Path, content: bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadHistory, match=says):
        list(read_history(path))
    assert main(["check", str(path)]) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda call, answer: [call, call, answer], "two calls have the number"),
        (lambda call, answer: [answer, call], "no such call before it"),
        (
            lambda call, answer: [call, dataclasses.replace(answer, at_ns=call.at_ns - 1)],
            "was answered before it was asked",
        ),
    ],
)
def test_calls_and_answers_that_do_not_belong_together_are_refused(
    wrong: Callable[[Call, Completion], list[Record]],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call, answer = RECORDS[1:3]
    assert isinstance(call, Call)
    assert isinstance(answer, Completion)
    path = tmp_path / "history.jsonl"
    records = [RECORDS[0], *wrong(call, answer), *RECORDS[3:]]
    path.write_text("".join(map(to_line, records)))
    assert main(["check", str(path)]) == 2
    assert says in capsys.readouterr().err


def test_a_history_is_judged_by_itself(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(file)]) == 0
    assert "Every promise held." in capsys.readouterr().out


def test_a_broken_promise_is_in_the_exit_code(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if '"kind": "row", "number": 2' not in line))
    assert main(["check", str(file)]) == 1
    said = capsys.readouterr().out
    assert "G3  ✗ BROKEN" in said
    assert "order 3 follows 1" in said


def test_an_unwritable_page_is_an_error(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(file), "--page", str(tmp_path / "no" / "page.html")]) == 2
    assert "page.html" in capsys.readouterr().err


def test_a_missing_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
