"""The measuring tools against real containers: what they say is there, and nothing is left."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]
import pytest

from bench.measuring.wrk import Load, Wrk
from stack.parts import ROOT
from stack.waiting import wait_for

pytestmark = [pytest.mark.slow]

PROJECT = re.compile(r"starting (bourse-bench-\w+)")


class Unavailable(BaseHTTPRequestHandler):
    """Answers everything with a 503."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def engine() -> Iterator[Any]:
    found = docker.from_env()
    yield found
    found.close()


def traces(engine: Any, said: str) -> set[str]:
    """What is left of the projects that a tool said it started: containers, volumes, networks and
    images."""
    projects = tuple(PROJECT.findall(said))
    assert projects, said
    made = [one.name for one in engine.containers.list(all=True, ignore_removed=True)]
    made += [one.name for one in engine.volumes.list()]
    made += [one.name for one in engine.networks.list()]
    # Not `images.list`: it asks for each, and other tests remove theirs meanwhile.
    made += [tag for image in engine.api.images() for tag in image["RepoTags"] or ()]
    return {name for name in made if name.startswith(projects)}


def command(tmp_path: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "bench", *words, "--out", str(tmp_path)]


def measure(engine: Any, tmp_path: Path, *words: str) -> dict[str, Any]:
    """The JSON that it writes."""
    done = subprocess.run(
        command(tmp_path, *words),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not traces(engine, done.stderr)
    assert (tmp_path / f"{words[0]}.png").read_bytes().startswith(b"\x89PNG")
    said: dict[str, Any] = json.loads((tmp_path / f"{words[0]}.json").read_text("utf-8"))
    assert said["problems"] == []
    assert said["machine"]["cores"] > 0
    return said


def test_bench_measures_every_request_its_floor_and_plain(engine: Any, tmp_path: Path) -> None:
    said = measure(engine, tmp_path, "requests", "--seconds", "1", "--rounds", "1")
    points = {(one["case"], one["connections"]): one for one in said["points"]}
    assert len(points) == 11 * 4
    for one in points.values():
        assert one["per_s"]["median"] > 1
        assert 0 < one["p50_ms"]["median"] <= one["p99_ms"]["median"]
    trade = points["trade", 32]
    for kind, other in (("floor", "bare hop"), ("rival", "plain: trade")):
        assert trade[kind] == other
        ratio = trade["per_s"]["median"] / points[other, 32]["per_s"]["median"]
        assert trade[f"rate_of_{kind}"]["median"] == pytest.approx(ratio, rel=0.01)
    assert len(said["targets"]) == 12
    assert len(said["edge"]) == 2 * 4
    check_processor_times({case: points[case, 1] for case, _ in points})
    sessions = {(one["trade_probability"], one["cache"]): one for one in said["sessions"]}
    assert len(sessions) == 5 * 2
    assert sessions[0.0, True]["trade"] == {}
    assert sessions[0.8, False]["trade"]["count"] > 0


def check_processor_times(alone: dict[str, dict[str, Any]]) -> None:
    """Of requests on one connection: each part that serves them has a time of its own."""
    web = {"edge", "frontends"}
    stack = {*web, "leader", "followers", "catalog", "redis"}
    for case, parts in {
        "bare hello": web,
        "bare hop": {*web, "peer"},
        "plain: trade": {*web, "postgres"},
        "plain: lookup": {*web, "postgres"},
        "trade": stack,
        "cached lookup": stack,
        "trade, no edge": stack - {"edge"},
    }.items():
        found = alone[case]["processor_ms_by_part"]
        assert found.keys() == parts, case
        assert all(part["median"] > 0 for part in found.values()), case
        total = sum(part["median"] for part in found.values())
        assert alone[case]["processor_ms"]["median"] == pytest.approx(total, rel=0.01)
        # With two cores, no request takes longer of the processor than twice its own time.
        assert total < 2.5 * 1000 / alone[case]["per_s"]["median"], case
    trade = alone["trade"]["processor_ms_by_part"]
    assert trade["leader"]["median"] > trade["followers"]["median"] / 2


def test_scale_compares_frontends_of_one_to_four_workers(engine: Any, tmp_path: Path) -> None:
    words = ("--only", "workers", "--seconds", "1", "--rounds", "1")
    [comparison] = measure(engine, tmp_path, "scale", *words)["comparisons"]
    assert comparison["ends"] == ["1 worker", "2 workers", "3 workers", "4 workers"]
    assert len(comparison["points"]) == 4 * 3
    memory_mib = [comparison["memory_mib"][end]["frontend"] for end in comparison["ends"]]
    assert memory_mib == sorted(memory_mib), "each worker is a process of its own"


def test_failover_times_a_kill_and_a_pause(engine: Any, tmp_path: Path) -> None:
    strikes = measure(engine, tmp_path, "failover", "--kills", "1", "--pauses", "1")["strikes"]
    assert [one["kind"] for one in strikes] == ["kill", "pause"]
    assert all(one["gap_ms"] > 0 and one["usual_gap_ms"] > 0 for one in strikes)
    assert strikes[0]["service"] != strikes[1]["service"]


@pytest.mark.parametrize(
    "load",
    [
        Load.lookups(1, 5),
        Load.trades(5),
        Load.trades(5, timed=True),
        Load.session(5, 0.5, seed=1),
    ],
)
def test_answers_that_are_errors_are_counted(load: Load) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Unavailable) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen = Wrk().run(f"http://127.0.0.1:{server.server_port}", load, 2, seconds=1)
        server.shutdown()
    assert seen.requests > 0
    assert seen.errors["status"] == seen.requests
    assert not seen.answers_s, "these are no acknowledgements"


def interrupted(words: list[str], is_due: Callable[[str], object]) -> tuple[str, str]:
    """Runs a tool, and sends Ctrl-C twice once it has said that. What it said, and then wrote."""
    running = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert running.stderr is not None
        said = ""
        while not is_due(said):
            line = running.stderr.readline()
            assert line, said  # it ended
            said += line
        for _ in range(2):  # the second one does not keep it from removing what it made
            running.send_signal(signal.SIGINT)
            time.sleep(0.5)
        output, errors = running.communicate(timeout=180)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 130, output + errors
    return said, output + errors


def test_ctrl_c_leaves_nothing(engine: Any, tmp_path: Path) -> None:
    def has_begun(said: str) -> bool:
        if not PROJECT.search(said):
            return False
        wait_for(lambda: traces(engine, said), 60, said)
        return True

    said, _ = interrupted(command(tmp_path, "requests", "--only", "trade"), has_begun)
    assert not traces(engine, said)
    assert not list(tmp_path.iterdir())
