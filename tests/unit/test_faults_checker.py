"""The checker: a good history passes, and each that is bad in one way is caught for that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest

from faults.checker import judge
from faults.history import Answer, End, Final, Position, Record, Row, Run
from tests.unit.faults_histories import NOTHING, S, Story, chained, changed, good


def told(story: Story) -> list[Record]:
    return story.verified().told()


class Bad(NamedTuple):
    title: str
    records: Callable[[], Iterable[Record]]
    promises: str  # those broken, and no others
    says: str


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
    """k6 and k7 one after the other, and numbered the other way round."""
    story = good()
    story.trade("k6", 1, "SELL", 2).trade("k7", 1, "SELL", 2)
    for place, number in ((-3, 5), (-1, 4)):
        story.records[place] = dataclasses.replace(story.records[place], number=number)  # type: ignore[call-arg]
    first, second = story.rows[-2:]
    story.rows[-2:] = [
        dataclasses.replace(second, number=4, version=4),
        dataclasses.replace(first, number=5, version=5),
    ]
    return told(story)


def the_survivor_does_not_serve() -> Iterable[Record]:
    story = good().fault("begin", "order-1", "order-2", id=3)
    story.asked("k5", 1, "SELL", status=503, error="no leader")
    story.fault("recovered", "order-1", "order-2", id=3)
    return told(story.trade("k5", 1, "SELL", 2))


def a_deposed_leader_commits() -> Iterable[Record]:
    story = good().trade("k5", 1, "SELL", 3).trade("k6", 1, "SELL", 2)
    return told(story)


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
    slow = changed(story.records, lambda one: isinstance(one, Answer) and one.id == id, at_ns=late)
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
    """Epoch 2 began after order 1."""
    story = good()
    story.seen(order_2=Position("leader", 2, 2, 0, NOTHING))
    return told(story)


def a_broken_chain() -> Iterable[Record]:
    records = told(good())
    rows = [one for one in records if isinstance(one, Row)]
    other = chained([dataclasses.replace(rows[1], quantity=3)], rows[0].digest)[0].digest
    return changed(records, lambda one: isinstance(one, Row) and one.number == 2, digest=other)


BAD = (
    Bad("a repeat gets another number", a_repeat_gets_another_number, "G1", "acknowledged as"),
    Bad("a key is executed twice", executed_twice, "G1", "executed 2 times"),
    Bad("one number for two keys", one_number_for_two, "G1 G2", "for the keys k4 and k9"),
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
    Bad("a gap in the numbers", a_gap, "G3", "order 5 follows 3"),
    Bad("numbers against time", out_of_order, "G3", "after order 5 was acknowledged"),
    Bad("the survivor does not serve", the_survivor_does_not_serve, "G4 G8", "one replica lived"),
    Bad("a deposed leader commits", a_deposed_leader_commits, "G5", "under epoch 2, after epoch 3"),
    Bad("two leaders of an epoch", two_leaders, "G5", "both led epoch 7"),
    Bad("a stale quote", a_stale_quote, "G6", "a later one was acknowledged"),
    Bad("a quote from the future", from_the_future, "G6", "never had by then"),
    Bad("a known stock is not found", a_stock_not_found, "G6", "which was not found"),
    Bad("the quantity is off", quantity_off, "G7", "by its orders"),
    Bad("below nothing", below_nothing, "G7", "has -44 after order 4"),
    Bad("a version is skipped", a_version_skipped, "G7", "made version 9"),
    Bad("the last version is off", the_last_version_off, "G7", "has version 9"),
    Bad("refused though there is enough", refused_for_nothing, "G7", "there were enough"),
    Bad("refused for another reason", refused_otherwise, "G7", "stock not found"),
    Bad("a 503 for nothing", a_503_for_nothing, "G8", "got 503"),
    Bad("a 500 whatever is broken", a_500_whatever_is_broken, "G8", "got 500"),
    Bad("a 400", a_400, "G8", "got 400"),
    Bad("no HTTP answer, with a frontend there", no_answer, "G8", "got no answer"),
    Bad("nothing came back at all", nothing_came_back, "G8", "had no answer"),
    Bad("later than 10 s", too_late, "G8", "no answer within 10 s"),
    Bad("an answer that is none", malformed, "G8", "malformed"),
    Bad("a key is never decided", never_decided, "G8", "never decided"),
    Bad("two logs at one number", another_log, "G9", "another log up to order 2"),
    Bad("behind at the end", behind_at_the_end, "G9", "ends with order 2"),
    Bad("silent at the end", silent_at_the_end, "G9", "did not answer"),
    Bad("leads without pulling", led_without_pulling, "G9", "without 1 of an earlier leader"),
    Bad("a broken chain", a_broken_chain, "G9", "chain breaks at order 2"),
)


def test_a_good_history_holds() -> None:
    judgement = judge(told(good()))
    assert [one.promise for one in judgement.verdicts] == [f"G{n}" for n in range(1, 10)]
    assert [one for one in judgement.verdicts if one.held is not True] == []
    assert judgement.held


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.title)
def test_a_bad_history_is_caught(bad: Bad) -> None:
    judgement = judge(bad.records())
    broken = {one.promise: one for one in judgement.verdicts if one.held is False}
    assert set(broken) == set(bad.promises.split()), broken
    assert not judgement.held
    said = [line for one in broken.values() for line in one.violations]
    assert any(bad.says in line for line in said), said
    assert all(one.violation_count == len(one.violations) for one in broken.values())


@pytest.mark.parametrize("kind", [Run, Final, End])
def test_what_is_missing_is_not_called_held(kind: type) -> None:
    records = [one for one in told(good()) if not isinstance(one, kind)]
    judgement = judge(records)
    assert not judgement.held
    assert None in [one.held for one in judgement.verdicts]


def test_nothing_examined_is_not_held() -> None:
    judgement = judge(Story().told())
    assert not judgement.held
    assert judgement.verdicts[0].held is None


def test_an_interrupted_run_is_not_called_broken_for_what_it_left_out() -> None:
    records = good().lookup(phase="verify").told()
    records[-1] = End(records[-1].at_ns, interrupted=True)  # type: ignore[union-attr]
    judgement = judge(records)
    assert [one.promise for one in judgement.verdicts if one.held is False] == []
    assert judgement.verdicts[1].held is None
