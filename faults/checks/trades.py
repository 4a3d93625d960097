"""G1 to G3: each trade once, none lost, their numbers in order."""

from __future__ import annotations

from http import HTTPStatus

from faults.checks.index import Exchange, Index, Keyed, Newest
from faults.checks.verdict import Findings, Verdict, counted
from faults.history import Call
from stack.observations import Row


def exactly_once(index: Index) -> Verdict:
    found = Findings("G1", "Exactly once")
    owners: dict[int, str] = {}
    for keyed in index.keys.values():
        _one_decision(index, keyed, found)
        _one_number(keyed, owners, found)
        _repeats_are_told(index, keyed, found)
    for key, rows in index.rows_by_key.items():
        if len(rows) > 1:
            numbers = ", ".join(str(row.number) for row in rows)
            found.wrong(f"key {key} was executed {len(rows)} times: orders {numbers}")
        _was_asked_for(index, rows[0], found)
    repeats = sum(len(keyed.calls) - 1 for keyed in index.keys.values())
    if index.final is None:
        found.cannot_judge("the journal was not read")
    if not index.acknowledged():
        found.cannot_judge("no trade was acknowledged")
    return found.verdict(f"{counted(len(index.keys), 'key')}, {counted(repeats, 'repeat')}")


def _one_decision(index: Index, keyed: Keyed, found: Findings) -> None:
    done, refused = keyed.first(acknowledged=True), keyed.first(acknowledged=False)
    rows = index.rows_by_key.get(keyed.key, [])
    if done and refused:
        found.wrong(f"{keyed.name} was both done and refused")
    elif refused and rows:
        found.wrong(f"{keyed.name} was refused, and executed as order {rows[0].number}")
    for one in keyed.calls:
        if one.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            found.wrong(f"call {one.call.id} repeated {keyed.name} as it was and was called "
                        "another trade")  # fmt: skip


def _one_number(keyed: Keyed, owners: dict[int, str], found: Findings) -> None:
    numbers: set[int] = set()
    for one in keyed.calls:
        if one.is_acknowledged:
            if one.number is None:
                found.wrong(f"call {one.call.id} was acknowledged without a number")
                continue
            numbers.add(one.number)
    if len(numbers) > 1:
        found.wrong(f"{keyed.name} was acknowledged as orders {sorted(numbers)}")
    for number in numbers:
        owner = owners.setdefault(number, keyed.name)
        if owner != keyed.name:
            found.wrong(f"order {number} was acknowledged for {owner} and for {keyed.name}")


def _repeats_are_told(index: Index, keyed: Keyed, found: Findings) -> None:
    decided_ns = min((one.ended_ns for one in keyed.calls if one.is_decided), default=None)
    if decided_ns is None:
        return
    for one in keyed.calls:
        is_repeat = one.began_ns > decided_ns
        if is_repeat and one.is_decided and one.completion and not one.completion.replayed:
            found.wrong(f"call {one.call.id} repeated {keyed.name} and was decided anew")
    last = keyed.calls[-1]
    if not last.is_decided and last.began_ns > decided_ns and not _was_interrupted(index):
        found.wrong(f"the repeats of {keyed.name} never got its decision again, last {_say(last)}")


def _was_asked_for(index: Index, row: Row, found: Findings) -> None:
    keyed = index.keys.get(row.request_id)
    if keyed is None:
        found.wrong(
            f"nobody asked for order {row.number}, key {row.request_id}; or a trade like it, sent "
            "without a key, was executed once more than it was sent"
        )
    elif not _is_as_asked(row, keyed.asked):
        found.wrong(f"order {row.number} is not what {keyed.name} asked for")


def nothing_lost(index: Index) -> Verdict:
    found = Findings("G2", "Nothing acknowledged is lost")
    acknowledged: dict[int, tuple[int, Keyed]] = {}  # when first, and for which trade
    for keyed in index.acknowledged():
        first = keyed.first(acknowledged=True)
        if first is not None and first.number is not None:
            acknowledged[first.number] = (first.ended_ns, keyed)
    verified = _looked_up(index, acknowledged, found)
    if index.final is None:
        found.cannot_judge("the journal was not read")
    else:
        for number, (_, keyed) in acknowledged.items():
            row = index.row_by_number.get(number)
            if row is None or row.request_id != keyed.key:
                found.wrong(f"order {number}, acknowledged for {keyed.name}, is not in the journal")
            elif not _is_as_asked(row, keyed.asked):
                found.wrong(f"order {number} is not in the journal as it was sent")
    missing = acknowledged.keys() - verified
    if missing and _was_interrupted(index):
        found.cannot_judge(f"{counted(len(missing), 'order')} not looked up at the end")
    else:
        for number in sorted(missing):
            found.wrong(f"order {number} could not be looked up at the end")
    if not acknowledged:
        found.cannot_judge("no trade was acknowledged")
    return found.verdict(
        f"{counted(len(acknowledged), 'acknowledged order')}, looked up at the end"
    )


def _looked_up(
    index: Index, acknowledged: dict[int, tuple[int, Keyed]], found: Findings
) -> set[int]:
    """The orders that were found at the end, by number."""
    verified: set[int] = set()
    for one in index.exchanges:
        number = one.call.number
        if one.call.op != "order" or number is None or one.completion is None:
            continue
        when_ns, keyed = acknowledged.get(number, (None, None))
        if one.status == HTTPStatus.NOT_FOUND and when_ns is not None and one.began_ns > when_ns:
            found.wrong(f"order {number} was acknowledged at {index.seconds(when_ns)} and not "
                        f"found at {index.seconds(one.ended_ns)}")  # fmt: skip
        if one.status != HTTPStatus.OK:
            continue
        shown = dict(one.completion.order or {})
        if keyed is not None and shown != _shown(number, keyed.asked):
            found.wrong(f"call {one.call.id} looked order {number} up and saw {shown}")
        if keyed is None and shown:
            _is_in_the_journal(index, one, shown, found)
        if one.call.phase == "verify":
            verified.add(number)
    return verified


def _is_in_the_journal(
    index: Index, one: Exchange, shown: dict[str, object], found: Findings
) -> None:
    """A lookup may find an order that was never acknowledged, if the journal has it."""
    number = one.call.number or 0
    if index.run is None or index.final is None or number <= index.run.first_number:
        return
    row = index.row_by_number.get(number)
    if row is None or shown != _shown(number, row):
        found.wrong(f"call {one.call.id} looked order {number} up and saw {shown}, which is not "
                    "what the journal has")  # fmt: skip


def numbers_in_order(index: Index) -> Verdict:
    found = Findings("G3", "Order numbers: no gap, in commit order")
    if index.run is None or index.final is None:
        found.cannot_judge("the journal was not read")
    else:
        expected = index.run.first_number
        for row in index.rows:
            if row.number != expected + 1:
                found.wrong(f"order {row.number} follows {expected}")
            expected = row.number
        if expected != index.final.last_number:
            found.wrong(f"the journal ends with {expected}, not {index.final.last_number}")
    _in_real_time(index, found)
    if not index.acknowledged():
        found.cannot_judge("no trade was acknowledged")
    return found.verdict(counted(len(index.rows), "row"))


def _in_real_time(index: Index, found: Findings) -> None:
    """If a trade was acknowledged before another one began, its number must be smaller."""
    numbered = [
        (keyed, number) for keyed in index.keys.values() if (number := _number(index, keyed))
    ]
    acknowledged = Newest(
        (one.ended_ns, number)
        for keyed, number in numbered
        if (one := keyed.first(acknowledged=True)) is not None
    )
    for keyed, number in numbered:
        newest = acknowledged.before(keyed.began_ns)
        if number < newest:
            found.wrong(f"order {number} began after order {newest} was acknowledged")


def _number(index: Index, keyed: Keyed) -> int | None:
    """The acknowledged number; if there is none, the number in the journal."""
    first = keyed.first(acknowledged=True)
    if first is not None:
        return first.number
    rows = index.rows_by_key.get(keyed.key)
    return rows[0].number if rows else None


def _is_as_asked(row: Row, asked: Call) -> bool:
    return (row.name, row.type, row.quantity) == (asked.name, asked.type, asked.quantity)


def _shown(number: int, asked: Call | Row) -> dict[str, object]:
    return {
        "number": number,
        "name": asked.name,
        "type": asked.type,
        "quantity": asked.quantity,
    }


def _was_interrupted(index: Index) -> bool:
    return index.end is None or index.end.interrupted


def _say(one: Exchange) -> str:
    if one.completion is None:
        return "unanswered"
    return str(one.status) if one.status is not None else str(one.completion.error)
