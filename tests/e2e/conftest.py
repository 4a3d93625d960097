"""Fixtures of the container tests."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

import pytest

from tests.e2e.stack import Stack

STARTED = pytest.StashKey[float]()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The service, up and healthy: one for all tests that do not ask for settings of their own."""
    stack = Stack()
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


@pytest.fixture(autouse=True)
def heal_after(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undoes what a test did to the stack, so that the next one finds it whole."""
    request.node.stash[STARTED] = time.monotonic()
    yield
    if "stack" in request.fixturenames:
        request.getfixturevalue("stack").heal()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Puts what the containers logged during a failed test into its report."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, Stack) and STARTED in item.stash:
        lasted_s = time.monotonic() - item.stash[STARTED] + 1
        report.sections.append(("container logs", stack.logs(since_s=lasted_s)))
    return report
