"""The containers of a project, by an engine that fails now and then."""

from __future__ import annotations

from typing import Any

import pytest
from docker.errors import APIError  # type: ignore[import-untyped]

from stack.containers import Containers
from stack.parts import StackError

FREEZE = "OCI runtime pause failed: unable to freeze: unknown"


class Engine:
    """Has one container, which is also its list of containers."""

    def __init__(self, *failures: str) -> None:
        self.containers = self
        self.labels = {"com.docker.compose.container-number": "1"}
        self.failures = list(failures)
        self.status = "running"

    def list(self, **_filters: Any) -> list[Engine]:
        return [self]

    def pause(self) -> None:
        if self.failures:
            raise APIError(self.failures.pop())
        self.status = "paused"


def test_a_container_that_the_kernel_does_not_freeze_at_once_is_paused() -> None:
    engine = Engine(FREEZE, FREEZE)
    Containers(engine, "bourse").pause("order-1")  # type: ignore[arg-type]
    assert engine.status == "paused"


@pytest.mark.parametrize("failures", [[FREEZE] * 3, ["no such container"]])
def test_a_container_that_cannot_be_paused_is_said(failures: list[str]) -> None:
    engine = Engine(*failures)
    with pytest.raises(StackError, match=failures[0]):
        Containers(engine, "bourse").pause("order-1")  # type: ignore[arg-type]
    assert engine.failures == []
