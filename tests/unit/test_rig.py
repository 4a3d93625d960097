"""What rigs a service for a test has no hold on one that is started as it should be."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.mechanisms import MECHANISMS
from tests.support.points import POINTS, find


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("catalog", "BOURSE_RIG_WITHOUT"),
        ("order", "BOURSE_RIG_POINTS"),
        ("frontend", "BOURSE_RIG_WITHOUT"),
    ],
)
def test_a_normal_start_refuses_to_be_rigged(service: str, name: str) -> None:
    started = subprocess.run(
        [sys.executable, "-m", service],
        env={"PATH": os.environ["PATH"], name: "fence check"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert started.returncode == 2
    assert started.stderr == f"{service}: {name} set: that is for tests only\n"


@pytest.mark.parametrize(
    "where",
    sorted({part.where for table in (POINTS, MECHANISMS) for part in table.values()}),
)
def test_what_is_rigged_exists(where: str) -> None:
    owner, attribute = find(where)
    assert hasattr(owner, attribute)
