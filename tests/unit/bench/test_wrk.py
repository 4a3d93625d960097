"""wrk as the measuring tools run it and read it; a shell script stands in for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.measuring.wrk import Load, Wrk, WrkFailed, parse

REPORT: dict[str, Any] = {
    "requests": 3000,
    "duration": 1_500_000,
    "connect": 0,
    "read": 2,
    "write": 0,
    "timeout": 0,
    "status": 5,
    "mean_us": 700.5,
    "p50_us": 600,
    "p99_us": 2500,
    "max_us": 9000,
    "times": [1_000_000, 1_500_000],
    "lookups_us": [300],
    "trades_us": [4000, 5000],
}


def program(tmp_path: Path, script: str, interpreter: str = "/bin/sh") -> Wrk:
    path = tmp_path / "wrk"
    path.write_text(f"#!{interpreter}\n{script}\n", "utf-8")
    path.chmod(0o755)
    return Wrk(lambda _name: str(path))


def test_a_report_is_read_from_the_last_line() -> None:
    measured = parse(f"Running 1s test @ http://…\n  1 threads\n{json.dumps(REPORT)}\n")
    assert measured.rate_per_s == 2000
    assert (measured.mean_ms, measured.p50_ms, measured.p99_ms) == (0.7005, 0.6, 2.5)
    assert measured.errors == {"read": 2, "status": 5}
    assert measured.error_count == 7
    assert measured.answers_s == [1.0, 1.5]
    assert (measured.lookups_ms, measured.trades_ms) == ([0.3], [4.0, 5.0])


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1", "{}", "[]", "3"])
def test_what_is_no_report_is_told(output: str) -> None:
    with pytest.raises(WrkFailed, match="reported nothing"):
        parse(output)


def test_a_missing_wrk_says_how_to_get_it() -> None:
    with pytest.raises(WrkFailed, match="apt-get install wrk"):
        Wrk(lambda _name: None)


def test_the_script_comes_before_the_url_and_its_arguments_behind(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    wrk = program(tmp_path, f"echo \"$@\" >> '{seen}'; echo '{json.dumps(REPORT)}'")
    for _ in range(2):
        wrk.run("http://here:1", Load.trades(10), connections=32, seconds=2)
    wrk.run("http://here:1", Load.session(10, 0.2, seed=7), connections=5, seconds=1)
    trade, again, session = (line.split() for line in seen.read_text("utf-8").splitlines())
    assert trade[:3] == ["-t1", "-c32", "-d2s"]
    url = trade.index("http://here:1")
    assert trade[url - 1].endswith("load.lua")
    assert trade[url + 1 : url + 4] == ["--", "trade", "10"]
    assert trade[-1] != again[-1], "a key that was used before is no new trade"
    assert session[:2] == ["-t5", "-c5"]
    assert session[-2:] == ["0.2", "7"]


def test_a_failing_wrk_is_told(tmp_path: Path) -> None:
    wrk = program(tmp_path, "echo 'unable to connect'; exit 1")
    with pytest.raises(WrkFailed, match="unable to connect"):
        wrk.run("http://here:1", Load.orders(1, 5), connections=1, seconds=1)


def test_it_can_be_ended_early(tmp_path: Path) -> None:
    started = tmp_path / "started"
    # A shell cannot trap a signal that was ignored when it started, as in a job in the background.
    wrk = program(
        tmp_path,
        f"""import pathlib, signal, sys, time
def report(*_):
    print('{json.dumps(REPORT)}')
    sys.exit()
signal.signal(signal.SIGINT, report)
pathlib.Path('{started}').touch()
while True:  # a signal just before one long sleep would not end it
    time.sleep(0.05)""",
        sys.executable,
    )
    with wrk.running("http://here:1", Load.lookups(1, 5), 1, 600) as running:
        while not started.exists():
            pass
        running.end()
        assert running.result().requests == 3000


def test_whatever_happens_beside_it_it_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    wrk = program(tmp_path, f"echo $$ > '{pid}.new'; mv '{pid}.new' '{pid}'; exec sleep 600")
    with (
        pytest.raises(KeyboardInterrupt),
        wrk.running("http://here:1", Load.lookups(1, 5), 1, 600),
    ):
        while not pid.exists():
            pass
        raise KeyboardInterrupt
    assert not Path(f"/proc/{pid.read_text('utf-8').strip()}").exists()
