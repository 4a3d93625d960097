"""Histories that break G4 to G9, each in one way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from faults.history import Completion, Record
from stack.observations import Final, Position, Row
from tests.unit.faults.histories import NOTHING, Bad, S, Story, chained, changed, good, told


def the_survivor_does_not_serve() -> Iterable[Record]:
    story = good().fault("begin", "order-1", "order-2", id=3)
    story.asked("k5", 1, "SELL", status=503, error="no leader")
    story.fault("recovered", "order-1", "order-2", id=3)
    return told(story.trade("k5", 1, "SELL", 2))


def a_deposed_leader_commits() -> Iterable[Record]:
    story = good().trade("k5", 1, "SELL", 3).trade("k6", 1, "SELL", 2)
    return told(story)


def a_deposed_leader_commits_before_the_new_one() -> Iterable[Record]:
    """The new leader is seen before the trade is sent. So it lacks that order when it leads."""
    story = good()
    digest = chained(story.rows)[-1].digest
    story.seen(order_2=Position("leader", 3, 2, 3, digest))
    story.now_ns += S
    return told(story.trade("k5", 1, "SELL", 2))


def two_leaders_at_the_end() -> Iterable[Record]:
    records = told(good())
    [final] = [one for one in records if isinstance(one, Final)]
    both = {**final.replicas, "order-1": final.replicas["order-3"]}
    return changed(records, lambda one: isinstance(one, Final), replicas=both)


def two_leaders() -> Iterable[Record]:
    def leading(id: int) -> Position:
        return Position("leader", 7, id, 0, NOTHING)

    story = Story().seen(order_1=leading(1)).seen(order_2=leading(2)).trade("k1", epoch=7)
    return told(story)


def a_stale_quote() -> Iterable[Record]:
    story = good()
    before = story.quantity
    return told(story.trade("k5", 3, "SELL", 2).lookup(before))


def from_the_future() -> Iterable[Record]:
    story = good()
    return told(story.lookup(story.quantity + 3).trade("k5", 3, "SELL", 2))


def a_stock_not_found() -> Iterable[Record]:
    story = good()
    story.call("lookup", {"status": 404, "error": "stock not found"}, name="a")
    return told(story)


def no_stock_found() -> Iterable[Record]:
    story = good()
    story.call("lookup", {"status": 200, "quantity": 5}, name="no stock")
    return told(story)


def a_stock_from_nowhere() -> Iterable[Record]:
    story = good().verified()
    return story.told(quantities={"a": story.quantity, "b": 1})


def quantity_off() -> Iterable[Record]:
    story = good().verified()
    return story.told(quantities={"a": story.quantity + 1})


def below_nothing() -> Iterable[Record]:
    story = good()
    story.rows.append(Row(4, "k5", "a", "BUY", 50, 4, 2, ""))
    story.quantity -= 50
    story.asked("k5", 50, status=200, number=4)
    return told(story)


def a_version_skipped() -> Iterable[Record]:
    story = good().trade("k5", 1, "SELL", 2)
    story.rows[-1] = dataclasses.replace(story.rows[-1], version=9)
    return story.verified().told(versions={"a": 9})


def the_last_version_off() -> Iterable[Record]:
    return good().verified().told(versions={"a": 9})


def refused_for_nothing() -> Iterable[Record]:
    story = good().asked("k5", 1, status=404, error="insufficient volume")
    return told(story)


def refused_otherwise() -> Iterable[Record]:
    return told(good().asked("k5", 1, status=404, error="stock not found"))


def a_503_for_nothing() -> Iterable[Record]:
    story = good()
    story.call("lookup", {"status": 503, "error": "no catalog"}, name="a")
    return told(story)


def a_500_whatever_is_broken() -> Iterable[Record]:
    story = good().fault("begin", "catalog", id=3)
    story.call("lookup", {"status": 500, "error": "internal"}, name="a")
    return told(story.fault("recovered", "catalog", id=3))


def a_redirect() -> Iterable[Record]:
    story = good()
    story.call("lookup", {"status": 302, "error": "?"}, name="a")
    return told(story)


def silent_after_the_edge_was_back() -> Iterable[Record]:
    story = good().fault("begin", "edge", id=3)
    story.call("lookup", None, name="a")
    story.fault("recovered", "edge", id=3)
    story.now_ns += 11 * S
    return told(story)


def malformed_while_the_edge_starts() -> Iterable[Record]:
    story = good().fault("begin", "edge", id=3)
    story.call("order", {"status": 200, "error": "malformed: `data`"}, number=99)
    return told(story.fault("recovered", "edge", id=3))


def a_503_while_one_frontend_lives() -> Iterable[Record]:
    story = good().fault("begin", "frontend-1", id=3)
    story.call("lookup", {"status": 503, "error": "no frontend"}, name="a")
    return told(story.fault("recovered", "frontend-1", id=3))


def broken_by_a_frontend() -> Iterable[Record]:
    story = good().fault("begin", "frontend-2", id=3)
    story.call("lookup", {"status": None, "error": "reset"}, name="a")
    return told(story.fault("recovered", "frontend-2", id=3))


def broken_though_the_edge_lives() -> Iterable[Record]:
    """Without frontends, the edge must answer 503 and not break the connection."""
    story = good().fault("begin", "frontend-1", "frontend-2", id=3)
    story.call("lookup", {"status": None, "error": "reset"}, name="a")
    return told(story.fault("recovered", "frontend-1", "frontend-2", id=3))


def a_502_without_frontends() -> Iterable[Record]:
    story = good().fault("begin", "frontend-1", "frontend-2", id=3)
    story.call("lookup", {"status": 502, "error": "bad gateway"}, name="a")
    return told(story.fault("recovered", "frontend-1", "frontend-2", id=3))


def a_503_while_a_replica_lives() -> Iterable[Record]:
    """The trade has no key, so nobody repeats it."""
    story = good().fault("begin", "order-1", id=3)
    answer = {"status": 503, "error": "outcome unknown"}
    story.call("trade", answer, name="a", type="SELL", quantity=7)
    return told(story.fault("recovered", "order-1", id=3))


def a_400() -> Iterable[Record]:
    story = good()
    story.call("lookup", {"status": 400, "error": "?"}, name="a")
    return told(story)


def no_answer() -> Iterable[Record]:
    story = good().fault("begin", "catalog", id=3)
    story.call("lookup", {"status": None, "error": "reset"}, name="a")
    return told(story.fault("recovered", "catalog", id=3))


def nothing_came_back() -> Iterable[Record]:
    story = good()
    story.call("lookup", None, name="a")
    return told(story)


def too_late() -> Iterable[Record]:
    story = good()
    id = story.call("lookup", {"status": 200, "quantity": story.quantity}, name="a")
    late = story.now_ns + 10 * S
    story.now_ns = late
    slow = changed(
        story.records, lambda one: isinstance(one, Completion) and one.id == id, at_ns=late
    )
    story.records = slow
    return told(story)


def malformed() -> Iterable[Record]:
    story = good()
    story.call("order", {"status": 200, "error": "malformed: `data`"}, number=99)
    return told(story)


def never_decided() -> Iterable[Record]:
    story = good().fault("begin", "catalog", id=3)
    story.asked("k5", 1, status=503, error="outcome unknown")
    return told(story.fault("recovered", "catalog", id=3))


def another_log() -> Iterable[Record]:
    story = good().verified()
    records = story.told()
    other = Position("follower", 2, 3, 2, "ab" * 32)
    return [*records[:-1], *Story().seen(order_1=other).records[1:], records[-1]]


def ahead_of_the_journal() -> Iterable[Record]:
    """A replica has more orders than the journal, even if only for some time."""
    return told(good().seen(order_1=Position("follower", 2, 3, 9, "ab" * 32)))


def an_empty_log_that_is_none() -> Iterable[Record]:
    return told(good().seen(order_1=Position("follower", 2, 3, 0, "ab" * 32)))


def the_journal_ends_elsewhere() -> Iterable[Record]:
    return Story().lookup().told(last_number=4)


def behind_at_the_end() -> Iterable[Record]:
    records = told(good())
    [final] = [one for one in records if isinstance(one, Final)]
    [row] = [one for one in records if isinstance(one, Row) and one.number == 2]
    behind = dataclasses.replace(
        final.replicas["order-1"], last_number=row.number, digest=row.digest
    )
    replicas = {**final.replicas, "order-1": behind}
    return changed(records, lambda one: isinstance(one, Final), replicas=replicas)


def silent_at_the_end() -> Iterable[Record]:
    records = told(good())
    [final] = [one for one in records if isinstance(one, Final)]
    replicas = {name: one for name, one in final.replicas.items() if name != "order-2"}
    return changed(records, lambda one: isinstance(one, Final), replicas=replicas)


def led_without_pulling() -> Iterable[Record]:
    """The leader of epoch 2 leads without order 1, which is of epoch 1."""
    story = good()
    story.seen(order_2=Position("leader", 2, 2, 0, NOTHING))
    return told(story)


def a_broken_chain() -> Iterable[Record]:
    records = told(good())
    rows = [one for one in records if isinstance(one, Row)]
    other = chained([dataclasses.replace(rows[1], quantity=3)], rows[0].digest)[0].digest
    return changed(records, lambda one: isinstance(one, Row) and one.number == 2, digest=other)


BAD = (
    Bad("the survivor does not serve", the_survivor_does_not_serve, "G4 G8", "one replica lived"),
    Bad("a deposed leader commits", a_deposed_leader_commits, "G5", "under epoch 2, after epoch 3"),
    Bad(
        "a deposed leader commits first",
        a_deposed_leader_commits_before_the_new_one,
        "G5 G9",
        "order 4 was committed under epoch 2, after epoch 3",
    ),
    Bad("two leaders at the end", two_leaders_at_the_end, "G5", "both led epoch 1"),
    Bad("two leaders of an epoch", two_leaders, "G5", "both led epoch 7"),
    Bad("a stale quote", a_stale_quote, "G6", "a later one was acknowledged"),
    Bad("a quote from the future", from_the_future, "G6", "never had by then"),
    Bad("a known stock is not found", a_stock_not_found, "G6", "which was not found"),
    Bad("a quote of what is no stock", no_stock_found, "G6", "which is no stock, and found it"),
    Bad("a stock from nowhere", a_stock_from_nowhere, "G7", "there was not at first"),
    Bad("the quantity is off", quantity_off, "G7", "by its orders"),
    Bad("below nothing", below_nothing, "G7", "has -44 after order 4"),
    Bad("a version is skipped", a_version_skipped, "G7", "made version 9"),
    Bad("the last version is off", the_last_version_off, "G7", "has version 9"),
    Bad("refused though there is enough", refused_for_nothing, "G7", "there were enough"),
    Bad("refused for another reason", refused_otherwise, "G7", "stock not found"),
    Bad("a 503 for nothing", a_503_for_nothing, "G8", "got 503"),
    Bad("a 500 whatever is broken", a_500_whatever_is_broken, "G8", "got 500"),
    Bad("a redirect", a_redirect, "G8", "got 302"),
    Bad("silent, with the edge back", silent_after_the_edge_was_back, "G8", "within 10 s"),
    Bad(
        "an answer that is none, by an edge that starts",
        malformed_while_the_edge_starts,
        "G8",
        "malformed",
    ),
    Bad("a 503 while a frontend lives", a_503_while_one_frontend_lives, "G8", "got 503"),
    Bad("broken by a frontend", broken_by_a_frontend, "G8", "got no answer"),
    Bad("broken though the edge lives", broken_though_the_edge_lives, "G8", "got no answer"),
    Bad("a 502 without frontends", a_502_without_frontends, "G8", "got 502"),
    Bad("a 503 while a replica lives", a_503_while_a_replica_lives, "G8", "got 503"),
    Bad("a 400", a_400, "G8", "got 400"),
    Bad("no HTTP answer, with a frontend there", no_answer, "G8", "got no answer"),
    Bad("nothing came back at all", nothing_came_back, "G8", "had no answer"),
    Bad("later than 10 s", too_late, "G8", "no answer within 10 s"),
    Bad("an answer that is none", malformed, "G8", "malformed"),
    Bad("a key is never decided", never_decided, "G8", "never decided"),
    Bad("two logs at one number", another_log, "G9", "another log up to order 2"),
    Bad("ahead of the journal", ahead_of_the_journal, "G9", "order-1 had order 9"),
    Bad("an empty log that is none", an_empty_log_that_is_none, "G9", "another log up to order 0"),
    Bad("the journal ends elsewhere", the_journal_ends_elsewhere, "G3 G9", "ends with 0, not 4"),
    Bad("behind at the end", behind_at_the_end, "G9", "ends with order 2"),
    Bad("silent at the end", silent_at_the_end, "G9", "did not answer"),
    Bad("leads without pulling", led_without_pulling, "G9", "without 1 of an earlier leader"),
    Bad("a broken chain", a_broken_chain, "G9", "chain breaks at order 2"),
)
