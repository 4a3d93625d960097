"""G6 and G7: the quantities that clients read, and the quantities that the orders give.

The orders of a stock give every quantity that it ever had, in order: after its commit 1, 2, and so
on. A lookup may show only the quantities between two of these commits. The check looks whether its
value is among them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from http import HTTPStatus
from itertools import accumulate

from client.api import MAX_VOLUME
from faults.checks.availability import NEVER
from faults.checks.index import Exchange, Index, Keyed, Newest
from faults.checks.verdict import Findings, Verdict, counted
from stack.observations import Row

INSUFFICIENT = "insufficient volume"


class Course:
    """The quantities of one stock: position 0 is the start of the run, position n is commit n.

    A commit has certainly happened when it was acknowledged. It cannot have happened before its
    trade was first sent.
    """

    def __init__(self, quantity: int, rows: Sequence[Row], index: Index) -> None:
        self.rows = rows
        changes = (row.quantity if row.type == "SELL" else -row.quantity for row in rows)
        self.quantities = list(accumulate(changes, initial=quantity))
        self._positions: dict[int, list[int]] = defaultdict(list)
        for position, value in enumerate(self.quantities):
            self._positions[value].append(position)
        known: list[tuple[int, int]] = []
        possible: list[tuple[int, int]] = []
        for position, row in enumerate(rows, start=1):
            keyed = index.keys.get(row.request_id)
            acknowledged = keyed.first(acknowledged=True) if keyed else None
            if acknowledged and acknowledged.number == row.number:
                known.append((acknowledged.ended_ns, position))
            possible.append((keyed.began_ns if keyed else 0, position))
        self._lowest = _Extreme(self.quantities, min)
        self._highest = _Extreme(self.quantities, max)
        self._known = Newest(known)
        self._possible = Newest(possible)

    def stretch(self, began_ns: int, ended_ns: int) -> tuple[int, int]:
        """The oldest and the newest position that a read between the two times may show."""
        oldest = self._known.before(began_ns)
        return oldest, max(oldest, self._possible.until(ended_ns))

    def had(self, value: int, oldest: int, newest: int) -> bool:
        positions = self._positions.get(value, [])
        return bisect_right(positions, newest) > bisect_left(positions, oldest)

    def lowest(self, oldest: int, newest: int) -> int:
        return self._lowest.of(oldest, newest)

    def highest(self, oldest: int, newest: int) -> int:
        return self._highest.of(oldest, newest)

    def last_with(self, value: int, newest: int) -> int | None:
        """The newest position up to `newest` with that quantity; None if there is none."""
        positions = self._positions.get(value, [])
        count = bisect_right(positions, newest)
        return positions[count - 1] if count else None


class _Extreme:
    """The minimum or the maximum of any range of the values, in constant time.

    It is a sparse table: it holds the result for every range whose length is a power of two. Two of
    these ranges, which may overlap, cover any other range (Bender and Farach-Colton, "The LCA
    problem revisited", LATIN 2000).
    """

    def __init__(self, values: list[int], pick: Callable[[int, int], int]) -> None:
        self._pick = pick
        self._levels = [values]
        length = 1
        while 2 * length <= len(values):
            shorter = self._levels[-1]
            self._levels.append(list(map(pick, shorter, shorter[length:])))
            length *= 2

    def of(self, first: int, last: int) -> int:
        """The result for the positions `first` to `last`, both included."""
        level = (last - first + 1).bit_length() - 1
        values = self._levels[level]
        return self._pick(values[first], values[last + 1 - (1 << level)])


def courses(index: Index) -> dict[str, Course]:
    """The course of every stock; empty if the journal could not be read."""
    if index.run is None or index.final is None:
        return {}
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in index.rows:
        rows[row.name].append(row)
    return {
        name: Course(quantity, rows[name], index) for name, quantity in index.run.quantities.items()
    }


def no_stale_quote(index: Index, stocks: dict[str, Course]) -> Verdict:
    found = Findings("G6", "Never a stale quote")
    known = index.run.quantities if index.run else {}
    reads = 0
    for one in index.exchanges:
        if one.call.op != "lookup" or one.completion is None:
            continue
        name = one.call.name or ""
        if one.status == HTTPStatus.NOT_FOUND and name in known:
            found.wrong(f"call {one.call.id} looked {name} up, which was not found")
        if one.status == HTTPStatus.OK and index.run and name not in known:
            found.wrong(f"call {one.call.id} looked {name} up, which is no stock, and found it")
        if one.status == HTTPStatus.OK and name in stocks:
            reads += 1
            _read_rightly(index, one, stocks[name], found)
    if not stocks:
        found.cannot_judge("the journal was not read")
    if not reads:
        found.cannot_judge("nothing was looked up")
    return found.verdict(counted(reads, "quantity", "quantities") + " read")


def _read_rightly(index: Index, one: Exchange, course: Course, found: Findings) -> None:
    value = one.completion.quantity if one.completion else None
    oldest, newest = course.stretch(one.began_ns, one.ended_ns)
    if value is not None and course.had(value, oldest, newest):
        return
    where = f"call {one.call.id} at {index.seconds(one.began_ns)} read {value} of {one.call.name}"
    known = course.last_with(value, oldest) if value is not None else None
    if known is not None:
        late = course.rows[known].number  # the order that changed that quantity
        found.wrong(f"{where}, which order {late} had changed and a later one was acknowledged")
    else:
        found.wrong(f"{where}, which it never had by then")


def books_balance(index: Index, stocks: dict[str, Course]) -> Verdict:
    found = Findings("G7", "Books balance")
    for name, course in stocks.items():
        _balances(index, name, course, found)
    for row in index.rows:
        if stocks and row.name not in stocks:
            found.wrong(f"order {row.number} is of {row.name}, which is no stock")
    for name in (index.final.quantities if stocks and index.final else {}).keys() - stocks.keys():
        found.wrong(f"there is a stock {name}, which there was not at first")
    refusals = 0
    for keyed in index.keys.values():
        refusal = keyed.first(acknowledged=False)
        asked_of = stocks.get(keyed.asked.name or "")
        if refusal is not None and asked_of is not None:
            refusals += 1
            _refused_rightly(index, keyed, refusal, asked_of, found)
    if not stocks:
        found.cannot_judge("the journal was not read")
    elif not index.rows:
        found.cannot_judge("nothing was traded")
    return found.verdict(f"{counted(len(stocks), 'stock')}, {counted(refusals, 'refusal')}")


def _balances(index: Index, name: str, course: Course, found: Findings) -> None:
    if index.run is None or index.final is None:
        return
    for position, value in enumerate(course.quantities):
        if not 0 <= value <= MAX_VOLUME:
            number = course.rows[position - 1].number if position else index.run.first_number
            found.wrong(f"{name} has {value} after order {number}")
    last = index.final.quantities.get(name)
    if last != course.quantities[-1]:
        found.wrong(f"{name} has {last}, and by its orders {course.quantities[-1]}")
    version = index.run.versions.get(name, 0)
    for row in course.rows:
        if row.version != version + 1:
            found.wrong(f"order {row.number} made version {row.version} of {name} after {version}")
        version = row.version
    if index.final.versions.get(name) != version:
        found.wrong(
            f"{name} has version {index.final.versions.get(name)}, its last order {version}"
        )


def _refused_rightly(
    index: Index, keyed: Keyed, refusal: Exchange, course: Course, found: Findings
) -> None:
    """A refusal is right if there was too little at some time since the first call."""
    asked = keyed.asked
    said = refusal.completion.error if refusal.completion else None
    if said is None or INSUFFICIENT not in said:
        found.wrong(f"call {refusal.call.id} of {asked.name} was refused: {said}")
        return
    oldest, newest = course.stretch(keyed.began_ns, min(refusal.ended_ns, NEVER))
    wanted = asked.quantity or 0
    if asked.type == "SELL":
        is_right = course.highest(oldest, newest) + wanted > MAX_VOLUME
    else:
        is_right = course.lowest(oldest, newest) < wanted
    if not is_right:
        found.wrong(f"call {refusal.call.id} at {index.seconds(refusal.ended_ns)} was refused "
                    f"{wanted} of {asked.name}, of which there were enough")  # fmt: skip
