"""Histories in which trades without a key go wrong, each in one way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from faults.history import Record
from tests.unit.faults.histories import Bad, Story, good, told


def executed_twice() -> Iterable[Record]:
    """A trade without a key is repeated on its way. The client gets the second answer."""
    story = good()
    story.executed(7)
    return told(story.keyless(7))


def executed_twice_in_silence() -> Iterable[Record]:
    """The answer is lost, and the trade has two rows."""
    story = good().fault("begin", "edge", id=3)
    story.executed(7)
    story.keyless(7, status=None, error="reset")
    return told(story.fault("recovered", "edge", id=3))


def executed_though_refused() -> Iterable[Record]:
    story = good()
    number = story.executed(7, "SELL")
    answer = {"status": 400, "error": "?"}
    story.call("trade", answer, name="a", type="SELL", quantity=7)
    return told(story.order(number))


def executed_though_never_sent() -> Iterable[Record]:
    story = good().fault("begin", "edge", id=3)
    story.executed(7)
    answer = {"status": None, "sent": False, "error": "refused"}
    story.call("trade", answer, name="a", type="SELL", quantity=7)
    return told(story.fault("recovered", "edge", id=3))


def one_number_for_two() -> Iterable[Record]:
    story = good().keyless(7)
    answer = {"status": 200, "number": len(story.rows)}
    story.call("trade", answer, name="a", type="SELL", quantity=7)
    return told(story)


def the_number_of_a_key() -> Iterable[Record]:
    story = good()
    answer = {"status": 200, "number": 3}
    story.call("trade", answer, name="a", type="BUY", quantity=1)
    return told(story)


def not_in_the_journal() -> Iterable[Record]:
    story = good().verified()
    story.keyless(7).order(len(story.rows), "verify")
    story.quantity -= story.rows.pop().quantity
    return story.told()


def executed_otherwise() -> Iterable[Record]:
    story = good().keyless(7)
    story.rows[-1] = dataclasses.replace(story.rows[-1], quantity=8)
    story.quantity += 1
    return told(story)


def numbered_against_time() -> Iterable[Record]:
    """The later trade has the lower number."""
    return told(good().keyless(7).keyless(8).last_two_swapped())


def a_gap() -> Iterable[Record]:
    story = Story()
    story.executed(7)
    del story.rows[:]
    story.quantity -= 7
    story.keyless(7)
    story.rows[-1] = dataclasses.replace(story.rows[-1], number=2)
    story.records[-1] = dataclasses.replace(story.records[-1], number=2)  # type: ignore[call-arg]
    shown = {"number": 2, "name": "a", "type": "SELL", "quantity": 7}
    story.call("order", {"status": 200, "order": shown}, "verify", number=2)
    return story.lookup(phase="verify").told()


BAD = (
    Bad("executed twice", executed_twice, "G1", "executed once more than it was sent"),
    Bad("executed twice in silence", executed_twice_in_silence, "G1", "once more than it was sent"),
    Bad("executed though refused", executed_though_refused, "G1 G8", "once more than it was sent"),
    Bad("executed though never sent", executed_though_never_sent, "G1", "nobody asked for order 4"),
    Bad("one number for two trades", one_number_for_two, "G1 G2", "was acknowledged for call"),
    Bad("the number of a key", the_number_of_a_key, "G1 G2", "acknowledged for key k4 and for"),
    Bad("acknowledged, not in the journal", not_in_the_journal, "G2", "is not in the journal"),
    Bad("executed otherwise", executed_otherwise, "G1 G2", "is not what call"),
    Bad("numbers against time", numbered_against_time, "G3", "after order 5 was acknowledged"),
    Bad("a gap", a_gap, "G3", "order 2 follows 0"),
)
