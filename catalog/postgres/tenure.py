"""The state machine of one catalog process: it stands by, or is active for a term.

It does no I/O and knows no clock; whoever drives it tells it the time, on one clock that never
stands still or steps back. V is the time for which one acknowledged transaction keeps the office.
The rules:

    STANDING_BY  observe      STANDING_BY  the office's row, and since when it has not changed
    STANDING_BY  begin_take   TAKING       if `may_take` says so
    TAKING       not_taken    STANDING_BY  refused, or nobody knows
    TAKING       taken        ACTIVE       acknowledged: the only way to be active
    ACTIVE       renew        ACTIVE       a transaction of this term was acknowledged
    ACTIVE       end          STANDING_BY
    (any but TAKING, LEFT)  leave  LEFT    for ever

A standby may take the office when its row says that its holder left; when the row is of this
process's own last term; or when it has not changed for D > V since this process first saw it so.
Whoever wrote that row began to write it before it was seen. So it has not been valid since V after
that: nobody answers reads in that term any more when the next one begins.

A transition that the rules do not allow raises `IllegalTransition` and changes nothing. A step that
belongs to a term names its generation, because it can come after the term is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# D as a multiple of V: clocks may differ in rate, and a read takes a while to arrive.
# Without it, two catalogs answer reads ("patience": test_takeovers.py).
PATIENCE = 1.25


NOTHING_SEEN = (-1, -1)  # in place of a generation and its beat


class Role(StrEnum):
    STANDING_BY = "standing by"
    TAKING = "taking"
    ACTIVE = "active"
    LEFT = "left"


class IllegalTransition(Exception):
    """The rules do not allow this step in this state; nothing was changed."""


@dataclass(frozen=True, slots=True)
class TenureView:
    """The state at one moment."""

    role: Role
    generation: int  # of the last term that was acknowledged to this process; 0 before the first
    valid_until_s: float  # of that term; says nothing unless ACTIVE


class Tenure:
    """See the module's rules.

    Invariants: while active, `generation` was acknowledged to this process, and no other process
    ever gets it. Validity is never shortened within a term.

    Args:
        holder: what this process calls itself in the office's row.
        office_s: V.
    """

    def __init__(self, holder: str, office_s: float) -> None:
        self._holder = holder
        self._office_s = office_s
        self._role = Role.STANDING_BY
        self._seen = NOTHING_SEEN
        self._unchanged_since_s = 0.0
        self._is_free = False  # released, or of this process's own last term
        self._generation = 0
        self._valid_until_s = 0.0

    def view(self) -> TenureView:
        return TenureView(self._role, self._generation, self._valid_until_s)

    # ------------------------------------------------------------ standing by

    def observe(
        self, generation: int, beat: int, holder: str, released: bool, now_s: float
    ) -> None:
        """The office's row, as an answer showed it that came before `now_s`."""
        self._require(self._role is Role.STANDING_BY, "observe")
        if self._seen != (generation, beat):
            self._seen = generation, beat
            self._unchanged_since_s = now_s
        is_own = (generation, holder) == (self._generation, self._holder)
        self._is_free = released or is_own

    def may_take(self, now_s: float) -> bool:
        if self._role is not Role.STANDING_BY or self._seen == NOTHING_SEEN:
            return False
        return self._is_free or now_s - self._unchanged_since_s >= PATIENCE * self._office_s

    def begin_take(self, now_s: float) -> int:
        """Returns the generation that is asked for."""
        self._require(self.may_take(now_s), "begin_take")
        self._role = Role.TAKING
        return self._asked()

    def not_taken(self) -> None:
        """The row was not as seen any more, or nobody knows what became of the attempt."""
        self._require(self._role is Role.TAKING, "not_taken")
        self._role = Role.STANDING_BY

    def taken(self, began_s: float) -> int:
        """The COMMIT of the attempt that began then was acknowledged; returns the generation."""
        self._require(self._role is Role.TAKING, "taken")
        self._role = Role.ACTIVE
        self._generation = self._asked()
        self._valid_until_s = began_s + self._office_s
        return self._generation

    def _asked(self) -> int:
        return self._seen[0] + 1

    # ------------------------------------------------------------ being active

    def holds(self, generation: int) -> bool:
        """That term is not over, as far as this process knows."""
        return self._role is Role.ACTIVE and self._generation == generation

    def is_valid(self, generation: int, now_s: float) -> bool:
        """Nobody else can have been active in the meantime."""
        # Without it, a catalog that was paused answers reads ("validity": test_takeovers.py).
        return self.holds(generation) and now_s < self._valid_until_s

    def renew(self, generation: int, began_s: float) -> bool:
        """A transaction of that term was acknowledged, which began then.

        Returns:
            False if the term is over.
        """
        if not self.holds(generation):
            return False
        self._valid_until_s = max(self._valid_until_s, began_s + self._office_s)
        return True

    def end(self, generation: int) -> bool:
        """That term is over; False if it was so already."""
        if not self.holds(generation):
            return False
        self._role = Role.STANDING_BY
        return True

    def leave(self) -> bool:
        """The process is about to end; True if that ends a term."""
        self._require(self._role not in (Role.TAKING, Role.LEFT), "leave")
        was_active = self._role is Role.ACTIVE
        self._role = Role.LEFT
        return was_active

    def _require(self, allowed: bool, step: str) -> None:
        if not allowed:
            raise IllegalTransition(f"{step}: not allowed in {self.view()}")
