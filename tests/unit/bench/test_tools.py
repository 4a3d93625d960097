"""How a measuring tool ends, and what it writes; nothing is measured here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import tools
from bench.__main__ import main
from bench.measuring import machine
from bench.measuring.wrk import WrkFailed
from bench.tools import Report

MACHINE = {
    "date": "2026-01-02T03:04:05+00:00",
    "command": "python -m bench requests",
    "commit": "abc",
    "cores": 2,
    "processor": "one",
    "kernel": "Linux",
    "docker": "26",
    "load_before": 0.1,
}


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Report:
    found = Report("the tables", {"points": [1]}, lambda path, _: path.touch(), [])
    monkeypatch.setattr(tools, "Wrk", lambda: None)
    monkeypatch.setattr(tools, "connect", lambda: None)
    monkeypatch.setattr(machine, "describe", lambda _engine: MACHINE)
    monkeypatch.setattr(tools, "_TOOLS", {"requests": lambda *_: found})
    return found


@pytest.mark.usefixtures("report")
def test_tables_are_printed_and_files_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["requests", "--out", str(tmp_path / "new")]) == 0
    assert "the tables" in capsys.readouterr().out
    said = json.loads((tmp_path / "new" / "requests.json").read_text("utf-8"))
    assert said == {"machine": MACHINE, "points": [1]}
    assert (tmp_path / "new" / "requests.png").exists()


@pytest.mark.usefixtures("report")
def test_the_json_goes_where_it_is_wanted(tmp_path: Path) -> None:
    wanted = tmp_path / "here.json"
    assert main(["requests", "--out", str(tmp_path / "out"), "--json", str(wanted)]) == 0
    assert json.loads(wanted.read_text("utf-8"))["points"] == [1]
    assert not (tmp_path / "out" / "requests.json").exists()


def test_errors_among_the_answers_fail_the_run(
    tmp_path: Path, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    report.problems.append("7 requests ended in an error: status")
    assert main(["requests", "--out", str(tmp_path)]) == 1
    assert "PROBLEMS: 1" in capsys.readouterr().out


@pytest.mark.usefixtures("report")
def test_what_cannot_be_measured_is_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: Any) -> Report:
        raise WrkFailed("the load generator `wrk` is not installed")

    monkeypatch.setattr(tools, "_TOOLS", {"requests": missing})
    assert main(["requests", "--out", str(tmp_path)]) == 2
    assert "`wrk` is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("requests --only trade sessions", "invalid choice: 'sessions'"),
        ("requests --seconds 0", "'0' is not a whole number from 1 to 600"),
        ("requests --seconds 1.5", "'1.5' is not a whole number"),
        ("stores --only order", "invalid choice: 'order'"),
        ("takeover --nodes 1001", "'1001' is not a whole number from 0 to 1000"),
        ("takeover --kills 3", "unrecognized arguments: --kills 3"),
        ("scale --rounds many", "'many' is not a whole number from 1 to 100"),
        ("failover --kills -1", "'-1' is not a whole number from 0 to 1000"),
        ("failover --pauses 1001", "'1001' is not a whole number from 0 to 1000"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments.split())
    assert raised.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("tool", ["requests", "stores", "scale", "failover", "takeover"])
def test_each_tool_has_help(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([tool, "--help"])
    assert raised.value.code == 0
    assert "removed at the end" in capsys.readouterr().out
