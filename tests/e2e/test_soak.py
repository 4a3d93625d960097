"""A short soak of real containers: what it samples, says and writes, and that nothing is left."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]
import pytest

from bench.soak.samples import AFTER, FAULTS, MEASURES, STEADY
from faults.history import Fault, read_history
from stack.parts import ORDER_SERVICES, ROOT
from tests.e2e.test_measuring import traces

pytestmark = [pytest.mark.slow]

CONTAINERS = {"edge", "frontend-1", "frontend-2", "catalog", *ORDER_SERVICES, "redis"}
WITH_DATA = {"catalog", *ORDER_SERVICES}


@pytest.fixture
def engine() -> Iterator[Any]:
    found = docker.from_env()
    yield found
    found.close()


def command(tmp_path: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "bench", "soak", *words, "--out", str(tmp_path)]


def test_a_soak_samples_every_container_and_judges(engine: Any, tmp_path: Path) -> None:
    words = ("--for", "24", "--faults", "20", "--every", "1", "--rate", "40", "--seed", "5")
    done = subprocess.run(
        command(tmp_path, *words),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = done.stdout + done.stderr
    # In so short a time, nothing has had time to become flat.
    assert done.returncode in (0, 1), said
    assert (done.returncode == 0) is ("WRONG" not in done.stdout), said
    assert not traces(engine, done.stderr)
    assert "G1  ✓ held" in done.stdout, said
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "soak.csv").open(encoding="utf-8") as file:
        samples = list(csv.DictReader(file))
    for phase in (STEADY, FAULTS, AFTER):
        assert {one["container"] for one in samples if one["phase"] == phase} == CONTAINERS
    check_values([one for one in samples if one["phase"] == STEADY])
    # Every row of the verdict has figures.
    verdict = [line for line in done.stdout.splitlines() if line.startswith(titles())]
    assert len(verdict) >= 3 * len(CONTAINERS) + len(WITH_DATA)
    assert not [line for line in verdict if " - " in line]
    [history] = tmp_path.rglob("history.jsonl")
    assert any(isinstance(record, Fault) for record in read_history(history))


def titles() -> tuple[str, ...]:
    return tuple(measure.title for measure in MEASURES.values())


def check_values(steady: list[dict[str, str]]) -> None:
    for one in steady:
        assert 1 < float(one["memory_mib"]) < 512, one
        assert float(one["files"]) > 3, one
        assert float(one["threads"]) >= 1, one
        assert bool(one["database_mib"]) is (one["container"] in WITH_DATA), one
    assert int(steady[-1]["trades"]) > 200
    written = [float(one["wal_mib"]) for one in steady if one["container"] == "catalog"]
    assert written[-1] > 0
    frontends = [float(one["threads"]) for one in steady if one["container"] == "frontend-1"]
    assert max(frontends) > 10, "its threads are seen, not its processes"
