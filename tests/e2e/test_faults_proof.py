"""The fault injector can fail: without one mechanism, a schedule turns the promise on it red.

That nothing is red with all of them: test_faults.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from stack.parts import ROOT
from tests.e2e.injector import played
from tests.e2e.stack import Stack
from tests.support.edge import EDGE_MECHANISMS, config_without

_RIGGED = ROOT / "tests" / "e2e" / "rigged.yaml"
_EDGE_CONFIG = ROOT / "tests" / "e2e" / "edge_config.yaml"


class Proof(NamedTuple):
    mechanism: str
    schedule: str  # for `python -m faults run`
    promise: str
    says: str  # of the violation


PROOFS = (
    Proof(
        "the edge's repeat",
        "--no-keys --fault kill:frontend --every 5 --for 25 --rate 150",
        "G8",
        "a (trade|lookup), got (503|no answer) after",
    ),
    Proof(
        "the edge's key",
        "--no-keys --fault pause:frontend --every 7 --lasts 5 --for 30 --rate 150",
        "G1",
        "executed once more than it was sent",
    ),
    Proof(
        "pull before leading",
        "--fault partition:two --fault kill:leader --every 8 --lasts 8.3 --for 36 --rate 150",
        "G9",
        r"with orders up to \d+, without \d+ of an earlier leader",
    ),
)
SEEDS = (1, 2, 3)


def stack_without(mechanism: str, directory: Path) -> Stack:
    if mechanism not in EDGE_MECHANISMS:
        return Stack({"RIG_WITHOUT": mechanism}, overrides=[_RIGGED])
    config = directory / "haproxy.cfg"
    config.write_text(config_without(mechanism), "utf-8")
    return Stack({"EDGE_CONFIG": str(config)}, overrides=[_EDGE_CONFIG])


@contextmanager
def rigged(mechanism: str, directory: Path) -> Iterator[Stack]:
    stack = stack_without(mechanism, directory)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


@pytest.mark.slow
@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.mechanism)
def test_without_it_the_promise_is_broken(proof: Proof, tmp_path: Path) -> None:
    with rigged(proof.mechanism, tmp_path) as stack:
        # A strike has to fall into a gap of milliseconds; one schedule in some has none that does.
        for seed in SEEDS:
            done = played(stack, f"--settle 5 --seed {seed} {proof.schedule}", tmp_path)
            if done.returncode != 0:
                break
    said = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stdout + done.stderr
    assert proof.promise in said.rpartition("BROKEN: ")[2].split(", "), done.stdout
    assert re.search(proof.says, said), done.stdout
