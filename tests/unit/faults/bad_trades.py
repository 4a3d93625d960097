"""Histories that break G1 to G3, each in one way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from faults.history import Record
from stack.observations import Row
from tests.unit.faults.histories import Bad, good, told


def a_repeat_gets_another_number() -> Iterable[Record]:
    story = good()
    story.asked("k1", 2, status=200, number=2, replayed=True)
    return told(story)


def executed_twice() -> Iterable[Record]:
    story = good()
    story.rows.append(Row(4, "k1", "a", "BUY", 2, 4, 2, ""))
    story.quantity -= 2
    return told(story)


def one_number_for_two() -> Iterable[Record]:
    story = good()
    story.asked("k9", 1, status=200, number=3)
    return told(story)


def refused_then_done() -> Iterable[Record]:
    story = good()
    story.trade("k8", 1, "SELL", 2)
    story.asked("k8", 1, "SELL", status=404, error="insufficient volume", replayed=True)
    return told(story)


def decided_anew() -> Iterable[Record]:
    return told(good().repeat("k1", 1, replayed=False))


def called_another_trade() -> Iterable[Record]:
    story = good()
    story.asked("k1", 2, status=422, error="used for another trade")
    return told(story.repeat("k1", 1))


def never_told_again() -> Iterable[Record]:
    story = good().fault("begin", "catalog", id=3)
    story.asked("k1", 2, status=503, error="outcome unknown")
    return told(story.fault("recovered", "catalog", id=3))


def nobody_asked() -> Iterable[Record]:
    story = good()
    story.rows.append(Row(4, "stranger", "a", "SELL", 1, 4, 2, ""))
    story.quantity += 1
    return told(story)


def executed_otherwise() -> Iterable[Record]:
    story = good()
    story.trade("k5", 1, "SELL", 2)
    story.rows[-1] = dataclasses.replace(story.rows[-1], quantity=2)
    story.quantity += 1
    return told(story)


def not_in_the_journal() -> Iterable[Record]:
    story = good().verified()
    story.trade("k5", 1, "SELL", 2).order(4, "verify")
    lost = story.rows.pop()
    story.quantity -= lost.quantity
    return story.told()


def not_looked_up() -> Iterable[Record]:
    return good().lookup(phase="verify").told()


def not_found() -> Iterable[Record]:
    return told(good().order(2, status=404, error="order not found"))


def found_otherwise() -> Iterable[Record]:
    other = {"number": 1, "name": "a", "type": "SELL", "quantity": 2}
    return told(good().order(1, status=200, order=other))


def found_from_nowhere() -> Iterable[Record]:
    story = good()
    shown = {"number": 9, "name": "a", "type": "SELL", "quantity": 2}
    story.call("order", {"status": 200, "order": shown}, number=9)
    return told(story)


def a_gap() -> Iterable[Record]:
    story = good()
    story.trade("k5", 1, "SELL", 2)
    story.rows[-1] = dataclasses.replace(story.rows[-1], number=5)
    story.records[-1] = dataclasses.replace(story.records[-1], number=5)  # type: ignore[call-arg]
    for number in (1, 2, 3):
        story.order(number, "verify")
    shown = {"number": 5, "name": "a", "type": "SELL", "quantity": 1}
    story.call("order", {"status": 200, "order": shown}, "verify", number=5)
    return story.told()


def out_of_order() -> Iterable[Record]:
    """k7 comes after k6, and has the lower number."""
    story = good()
    story.trade("k6", 1, "SELL", 2).trade("k7", 1, "SELL", 2)
    return told(story.last_two_swapped())


def numbered_before_it_was_sent() -> Iterable[Record]:
    """An orphan gets a lower number than a trade that was acknowledged before it began."""
    story = good()
    story.trade("k5", 1, "SELL", 2)
    lost = story.rows[-1]
    story.rows.append(Row(4, "nobody waits", "a", "SELL", 1, 4, 2, ""))
    story.rows[-2:] = [story.rows[-1], dataclasses.replace(lost, number=5, version=5)]
    story.records[-1] = dataclasses.replace(story.records[-1], number=5)  # type: ignore[call-arg]
    story.quantity += 1
    return told(story.asked("nobody waits", 1, "SELL", phase="orphan"))


BAD = (
    Bad("a repeat gets another number", a_repeat_gets_another_number, "G1", "acknowledged as"),
    Bad("a key is executed twice", executed_twice, "G1", "executed 2 times"),
    Bad("one number for two keys", one_number_for_two, "G1 G2", "for key k4 and for key k9"),
    Bad("a key both refused and done", refused_then_done, "G1 G7", "both done and refused"),
    Bad("a repeat is decided anew", decided_anew, "G1", "decided anew"),
    Bad("a repeat is called another trade", called_another_trade, "G1 G8", "another trade"),
    Bad("a repeat never gets its number", never_told_again, "G1", "never got its decision again"),
    Bad("nobody asked for an order", nobody_asked, "G1", "nobody asked for order 4"),
    Bad("executed otherwise", executed_otherwise, "G1 G2", "is not what key k5 asked for"),
    Bad("acknowledged and not in the journal", not_in_the_journal, "G2", "not in the journal"),
    Bad("not looked up at the end", not_looked_up, "G2", "could not be looked up"),
    Bad("an acknowledged order not found", not_found, "G2", "not found at"),
    Bad("an order found otherwise", found_otherwise, "G2", "and saw"),
    Bad("an order found that is in no journal", found_from_nowhere, "G2", "the journal has"),
    Bad("a gap in the numbers", a_gap, "G3", "order 5 follows 3"),
    Bad("numbers against time", out_of_order, "G3", "after order 5 was acknowledged"),
    Bad("numbered before it was sent", numbered_before_it_was_sent, "G3", "order 4 began after"),
)
