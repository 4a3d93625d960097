"""The state machine behind one lock, for the threads of a process, and the beats it writes."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import TypeVar

from catalog.postgres.tenure import Tenure, TenureView

Result = TypeVar("Result")


class Office:
    """Every step of the state machine goes through here, one at a time."""

    def __init__(self, tenure: Tenure) -> None:
        self._tenure = tenure
        self._changing = threading.Lock()

    def view(self) -> TenureView:
        return self.step(lambda tenure: tenure.view())

    def step(self, transition: Callable[[Tenure], Result]) -> Result:
        """Takes one transition.

        Raises:
            IllegalTransition: as the transition does; nothing was changed.
        """
        with self._changing:
            return transition(self._tenure)


class Beats:
    """The beats of one term."""

    def fresh(self) -> int:
        """63 random bits.

        A count would repeat itself after a failover that lost the last writes. A standby that saw
        a number before would then take the new row for the old one, and its holder for gone.
        """
        # Without it, the living is taken for dead ("random beat": test_takeovers.py).
        return secrets.randbits(63)
