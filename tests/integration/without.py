"""`python -m tests.integration.without MECHANISM`: a real service, one mechanism taken out of it.

What a test must find when the mechanism is missing shows that it would find it.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest

import catalog.leases
import frontend.safety
from tests.integration.cache_world import take_out


def without_the_wait_for_safety() -> None:
    """A trade is acknowledged as soon as it is decided."""

    def at_once(*_arguments: Any) -> None:
        pass

    frontend.safety.AnswerSafety.wait_until_safe = at_once  # type: ignore[method-assign]


def without_the_lease_after_a_restart() -> None:
    """A catalog that starts takes no stock for leased."""
    made = catalog.leases.Leases.__init__

    def make(leases: Any, clock: Callable[[], float], *arguments: Any) -> None:
        made(leases, clock, *arguments)
        leases._all_expire_s = clock()

    catalog.leases.Leases.__init__ = make  # type: ignore[method-assign]


def without_in_scripts(mechanism: str) -> None:
    """Of the cache's scripts, for the rest of the process."""
    take_out(mechanism, pytest.MonkeyPatch())


# mechanism → the service that has it, and what takes it out
MECHANISMS: dict[str, tuple[str, Callable[[], None]]] = {
    "wait for safety": ("frontend", without_the_wait_for_safety),
    "lease after a restart": ("catalog", without_the_lease_after_a_restart),
    "floor": ("frontend", partial(without_in_scripts, "floor")),
    "generation": ("frontend", partial(without_in_scripts, "generation")),
}


def parts_with(mechanism: str, frontends: Iterable[str]) -> dict[str, str]:
    """Every part that has the mechanism → the mechanism."""
    service, _ = MECHANISMS[mechanism]
    return dict.fromkeys(frontends if service == "frontend" else (service,), mechanism)


def main() -> None:
    service, cripple = MECHANISMS[sys.argv[1]]
    del sys.argv[1:]
    cripple()
    runpy.run_module(service, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
