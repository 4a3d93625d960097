"""No more places than there are, and each is given back."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from common.errors import Busy
from common.rpc_server import Slots


def test_who_finds_none_free_is_refused() -> None:
    slots = Slots(2, "too many streams at once")
    with ExitStack() as held:
        held.enter_context(slots.taken())
        held.enter_context(slots.taken())
        with pytest.raises(Busy, match="too many streams at once"), slots.taken():
            pass
    with slots.taken(), slots.taken():
        pass


def test_an_error_gives_the_place_back() -> None:
    slots = Slots(1, "full")
    for _ in range(2):
        with pytest.raises(KeyError), slots.taken():
            raise KeyError
