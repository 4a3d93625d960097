"""Fixtures of the container tests."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

import pytest

from stack.waiting import wait_for
from tests.e2e.small_disks import heal, stack_on_small_disks, trade
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


@pytest.fixture(scope="module")
def small_stack() -> Iterator[Stack]:
    with stack_on_small_disks() as stack:
        yield stack


@pytest.fixture
def small(small_stack: Stack) -> Iterator[Stack]:
    """A stack whose disks can be filled; afterwards all have room and everything runs."""
    wait_for(lambda: trade(small_stack)[0] == 200, 30, "a leader is elected")
    yield small_stack
    heal(small_stack)


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
    arguments = getattr(item, "funcargs", {})
    stack = arguments.get("stack", arguments.get("small"))
    if report.failed and isinstance(stack, Stack) and STARTED in item.stash:
        lasted_s = time.monotonic() - item.stash[STARTED] + 1
        report.sections.append(("container logs", stack.logs(since_s=lasted_s)))
    return report
