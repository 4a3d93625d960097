"""What holds for every test: which of them need a Docker engine, and what to do without one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

E2E = Path(__file__).parent / "e2e"
NOT_RUN = pytest.StashKey[int]()
SLOW_NOT_RUN = pytest.StashKey[int]()

# A stack's first test waits until its images are built; the default is too short for that.
_E2E_TIMEOUT_S = 900


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies in tests/e2e, so that `-m` sees it and no test has to say it."""
    for item in items:
        if E2E in item.path.parents:
            item.add_marker(pytest.mark.containers)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_E2E_TIMEOUT_S))


class _EngineGate:
    """Skips what needs an engine where none answers, or fails with BOURSE_REQUIRE_ENGINE=1.

    It runs after `-k` and `-m` have chosen, and so speaks only of what was asked for.
    """

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        needing = [item for item in items if item.get_closest_marker("containers")]
        if not needing or config.option.collectonly:
            return
        missing = why_no_engine()
        if missing is None:
            return
        if os.environ.get("BOURSE_REQUIRE_ENGINE") == "1":
            raise pytest.UsageError(f"BOURSE_REQUIRE_ENGINE=1, but {missing}")
        config.stash[NOT_RUN] = len(needing)
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=f"needs a Docker engine: {missing}"))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_EngineGate(), "engine-gate")


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Counts those that `make test` leaves out because they take long."""
    for item in items:
        if item.get_closest_marker("slow") and item.config.option.markexpr == "not slow":
            item.config.stash[SLOW_NOT_RUN] = item.config.stash.get(SLOW_NOT_RUN, 0) + 1


def why_no_engine() -> str | None:
    """None when `docker` and `docker compose` answer; otherwise what does not."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
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
    not_run = config.stash.get(NOT_RUN, 0)
    if not_run:
        terminalreporter.section("NOT EVERYTHING WAS TESTED", red=True, bold=True)
        terminalreporter.line(
            f"No Docker engine answers here: {not_run} container tests did NOT run.", red=True
        )
        terminalreporter.line("Start one and repeat; BOURSE_REQUIRE_ENGINE=1 makes this an error.")
