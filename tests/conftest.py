"""What holds for every test: which need an engine or Terraform, and which run side by side."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.support.postgres import find_programs

# How long an example takes is the machine's affair.
settings.register_profile("bourse", deadline=None)
settings.load_profile("bourse")

TESTS = Path(__file__).parent
E2E = TESTS / "e2e"
# Those of tests/e2e whose tests start stacks of their own.
OWN_STACKS = (
    "test_faults_proof.py",
    "test_full_disk.py",
    "test_ha_database.py",
    "test_measuring.py",
    "test_rival.py",
    "test_soak.py",
)
NOT_RUN = pytest.StashKey[list[str]]()
SLOW_NOT_RUN = pytest.StashKey[int]()
DEMANDED = pytest.StashKey[str]()

# A stack's first test waits until its images are built; the default is too short for that.
_E2E_TIMEOUT_S = 900


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies in tests/e2e, so that `-m` sees it and no test has to say it.

    These tests come first, for together they take longest; and of them the README's tour, which
    needs a stack that nobody has traded on. Those that start a stack for each test come next.
    """
    items.sort(
        key=lambda item: (
            E2E not in item.path.parents,
            item.path.name in OWN_STACKS,
            item.path.name != "test_readme.py",
        )
    )
    for item in items:
        if E2E in item.path.parents:
            item.add_marker(pytest.mark.containers)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_E2E_TIMEOUT_S))


class Groups(LoadScopeScheduling):
    """Runs each group of tests in one process: those with containers share a stack (but those that
    start their own), those of Terraform a cloud, and the tests of another file what that file sets
    up.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder, name = path.split("/")[1], path.rpartition("/")[2]
        return folder if folder in ("e2e", "terraform") and name not in OWN_STACKS else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


class _Gate:
    """Skips what needs something that is not here, or fails where the environment demands it.

    It runs after `-k` and `-m` have chosen, and so speaks only of what was asked for.

    Args:
        marker: that of the tests that need it.
        name: what it is, as `a Docker engine`.
        demand: the variable that makes its absence an error, with the value 1.
        why_missing: None when it is here; otherwise what is wrong.
    """

    def __init__(
        self, marker: str, name: str, demand: str, why_missing: Callable[[], str | None]
    ) -> None:
        self._marker, self._name, self._demand = marker, name, demand
        self._why_missing = why_missing

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        needing = [item for item in items if item.get_closest_marker(self._marker)]
        if not needing or config.option.collectonly:
            return
        missing = self._why_missing()
        if missing is None:
            return
        if os.environ.get(self._demand) == "1":
            for item in needing:
                item.stash[DEMANDED] = f"{self._demand}=1, but {missing}"
            return
        config.stash.setdefault(NOT_RUN, []).append(
            f"{len(needing)} tests that need {self._name} did NOT run: {missing}. "
            f"{self._demand}=1 makes this an error."
        )
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=f"needs {self._name}: {missing}"))


def pytest_configure(config: pytest.Config) -> None:
    for gate in (
        _Gate("containers", "a Docker engine", "BOURSE_REQUIRE_ENGINE", why_no_engine),
        _Gate("terraform", "Terraform", "BOURSE_REQUIRE_TERRAFORM", why_no_terraform),
        _Gate("postgres", "PostgreSQL", "BOURSE_REQUIRE_POSTGRES", why_no_postgres),
    ):
        config.pluginmanager.register(gate)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if complaint := item.stash.get(DEMANDED, ""):
        pytest.fail(complaint, pytrace=False)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Counts those that `make test` leaves out because they take long."""
    for item in items:
        if item.get_closest_marker("slow") and item.config.option.markexpr == "not slow":
            item.config.stash[SLOW_NOT_RUN] = item.config.stash.get(SLOW_NOT_RUN, 0) + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a process of several: hands the one that prints what it cannot know."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["not run"] = session.config.stash.get(NOT_RUN, [])
        output["slow not run"] = session.config.stash.get(SLOW_NOT_RUN, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # Each has collected everything, so one speaks for all.
    output = getattr(node, "workeroutput", {})
    node.config.stash[NOT_RUN] = output.get("not run", [])
    node.config.stash[SLOW_NOT_RUN] = output.get("slow not run", 0)


def why_no_engine() -> str | None:
    """None when `docker` and `docker compose` answer; otherwise what does not."""
    return _why_failing(["docker", "info"]) or _why_failing(["docker", "compose", "version"])


def why_no_terraform() -> str | None:
    return _why_failing(["terraform", "version"])


def why_no_postgres() -> str | None:
    return None if find_programs() else "there is no `initdb`"


def _why_failing(command: list[str]) -> str | None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return f"`{' '.join(command)}` fails ({type(error).__name__})"
    return None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Says last and loudly what a green run did not cover."""
    yield
    if slow_not_run := config.stash.get(SLOW_NOT_RUN, 0):
        terminalreporter.line(f"{slow_not_run} slow tests did not run: make test SLOW=1")
    if not_run := config.stash.get(NOT_RUN, []):
        terminalreporter.section("NOT EVERYTHING WAS TESTED", red=True, bold=True)
        for sentence in not_run:
            terminalreporter.line(sentence, red=True)
