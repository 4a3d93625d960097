"""The fault injector against real containers: what it breaks is broken, what it heals is whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.breakages import Breakage, breakages
from stack.containers import HELPER_LABEL, Containers, connect
from stack.network import Network
from stack.parts import ROOT, StackError
from stack.waiting import wait_for
from tests.e2e.injector import command, played
from tests.e2e.inside import leader, statuses
from tests.e2e.stack import Stack

# From inside a container: whether another's port answers within a second.
REACHES = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1).close()
    print("reached")
except OSError:
    print("not reached")
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    found = connect()
    yield found
    found.close()


@pytest.fixture
def network(stack: Stack, engine: Any) -> Network:
    return Network(engine, Containers(engine, stack.project))


@pytest.fixture
def faults(stack: Stack, engine: Any, network: Network) -> dict[str, Breakage]:
    return breakages(Containers(engine, stack.project), network)


def reaches(stack: Stack, service: str, other: str) -> bool:
    port = "6379" if other == "redis" else "50051"
    return stack.execute(service, "python", "-c", REACHES, other, port).strip() == "reached"


def helpers(engine: Any, stack: Stack) -> list[Any]:
    labelled = {"label": f"{HELPER_LABEL}={stack.project}"}
    found: list[Any] = engine.containers.list(all=True, filters=labelled, ignore_removed=True)
    return found


def test_a_partition_cuts_both_ways(stack: Stack, faults: dict[str, Breakage]) -> None:
    assert reaches(stack, "order-1", "catalog")
    faults["partition"].strike("order-1")
    assert not reaches(stack, "order-1", "catalog")
    assert not reaches(stack, "order-1", "order-2")
    assert not reaches(stack, "order-2", "order-1")
    assert reaches(stack, "order-2", "catalog")
    faults["partition"].heal("order-1")
    assert reaches(stack, "order-1", "catalog")
    assert reaches(stack, "order-2", "order-1")


def test_a_frontend_that_is_cut_off_leaves_its_clients_to_another(
    stack: Stack, faults: dict[str, Breakage]
) -> None:
    faults["partition"].strike("frontend-1")
    assert not reaches(stack, "frontend-1", "catalog")
    assert reaches(stack, "frontend-2", "catalog")
    assert {stack.get("/stocks?stockname=stock1")[0] for _ in range(4)} == {200}
    faults["partition"].heal("frontend-1")
    assert reaches(stack, "frontend-1", "catalog")


def test_a_replica_reaches_its_peers_and_not_the_catalog(
    stack: Stack, faults: dict[str, Breakage]
) -> None:
    faults["partition-catalog"].strike("order-1")
    assert not reaches(stack, "order-1", "catalog")
    assert reaches(stack, "order-1", "order-2")
    faults["partition-catalog"].heal("order-1")
    assert reaches(stack, "order-1", "catalog")


@pytest.mark.slow
def test_packets_are_lost(stack: Stack, network: Network, faults: dict[str, Breakage]) -> None:
    faults["lossy"].strike("redis")
    for _ in range(40):  # each a handshake and a goodbye
        reaches(stack, "order-1", "redis")
        if any(_dropped(line) for line in network.rules("redis").splitlines()):
            break
    else:
        raise AssertionError(network.rules("redis"))
    faults["lossy"].heal("redis")
    assert network.rules("redis") == ""


def _dropped(rule: str) -> bool:
    words = rule.split()
    return "DROP" in words and words[0] != "0"


@pytest.mark.slow
def test_healing_what_is_whole_or_was_started_anew_does_nothing(
    stack: Stack, faults: dict[str, Breakage]
) -> None:
    faults["partition"].heal("order-1")
    faults["partition"].strike("order-1")
    stack.kill("order-1")
    faults["partition"].heal("order-1")
    stack.start("order-1")  # whose network is a new one
    assert reaches(stack, "order-1", "catalog")
    faults["partition"].heal("order-1")
    for name in ("kill", "pause"):
        faults[name].heal("order-1")


@pytest.mark.slow
def test_a_wiped_replica_has_it_all_again(stack: Stack, faults: dict[str, Breakage]) -> None:
    trade = {"name": "stock7", "quantity": 1, "type": "SELL"}
    assert stack.request("POST", "/orders", trade)[0] == 200
    victim = next(name for name in statuses(stack) if name != leader(stack))
    faults["wipe"].strike(victim)
    assert stack.container(victim).status == "exited"
    faults["wipe"].heal(victim)

    def has_it_all() -> bool:
        said = statuses(stack)
        return len({(one.get("last_number"), one.get("digest")) for one in said.values()}) == 1

    wait_for(has_it_all, 20, lambda: statuses(stack))


def test_the_cache_is_flushed_and_its_listeners_dropped(
    stack: Stack, faults: dict[str, Breakage]
) -> None:
    stack.get("/stocks?stockname=stock3")
    assert int(stack.execute("redis", "redis-cli", "DBSIZE").split()[-1]) > 0
    faults["flush"].strike("redis")
    assert int(stack.execute("redis", "redis-cli", "DBSIZE").split()[-1]) == 0
    assert faults["pubsub"].strike("redis") == "2 connections"  # one for each worker


def test_what_is_not_there_is_said(stack: Stack, engine: Any) -> None:
    stranger = Containers(engine, "no-such-project")
    with pytest.raises(StackError, match="no container of redis"):
        stranger.kill("redis")


@pytest.mark.slow
def test_heal_mends_the_stack_and_leaves_others_alone(
    stack: Stack, engine: Any, faults: dict[str, Breakage]
) -> None:
    image = stack.container("redis").image
    labels = {"com.docker.compose.project": "another", "com.docker.compose.service": "redis"}
    other = engine.containers.run(
        image, ["sleep", "60"], labels=labels, network_mode="none", detach=True
    )
    try:
        other.pause()
        faults["pause"].strike("order-1")
        faults["kill"].strike("order-2")
        faults["partition"].strike("order-3")
        subprocess.run(command(stack, "heal"), cwd=ROOT, check=True, timeout=60)
        assert {stack.container(service).status for service in stack.parts()} == {"running"}
        assert reaches(stack, "order-3", "catalog")
        other.reload()
        assert other.status == "paused"
    finally:
        other.remove(force=True, v=True)
    assert helpers(engine, stack) == []


@pytest.mark.slow
def test_ctrl_c_heals(stack: Stack, engine: Any, tmp_path: Path) -> None:
    """The first ends the run early, the second gives it up; more do not keep it from healing."""
    options = ["--fault", "pause:two", "--every", "8", "--lasts", "30", "--for", "60"]
    running = subprocess.Popen(
        command(stack, "run", *options, "--out", str(tmp_path)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(
            lambda: "paused" in [stack.container(name).status for name in stack.parts()],
            120,
            "paused",
        )
        for _ in range(4):
            running.send_signal(signal.SIGINT)
            time.sleep(0.3)
        output, errors = running.communicate(timeout=240)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 130, output + errors
    assert "BROKEN" not in output
    assert "held" not in output
    assert {stack.container(service).status for service in stack.parts()} == {"running"}
    assert helpers(engine, stack) == []


@pytest.mark.slow
def test_who_sends_no_keys_and_repeats_nothing_notices_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    faults = ["kill:frontend", "kill:leader", "pause:frontend", "pause:leader", "stop:frontend"]
    faults += ["rolling:frontends", "rolling:replicas"]
    schedule = " ".join(f"--fault {fault}" for fault in faults)
    schedule += " --every 15 --lasts 4 --for 80 --rate 50 --no-keys"
    done = played(stack, schedule, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "excused: 0 of 503, 0 without an answer" in done.stdout


@pytest.mark.slow
def test_everything_at_random(stack: Stack, engine: Any, tmp_path: Path) -> None:
    began_s = time.monotonic()
    done = played(stack, "--seed 7 --for 40 --rate 60", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began_s > 40
    [directory] = tmp_path.iterdir()
    assert (directory / "report.html").stat().st_size > 10_000
    history = str(directory / "history.jsonl")
    judged = subprocess.run(
        [sys.executable, "-m", "faults", "check", history],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (judged.returncode, judged.stdout) == (0, done.stdout)
    assert helpers(engine, stack) == []
