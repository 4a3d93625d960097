"""G5 and G9: one leader at a time, and one log on every replica."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from faults.checks.index import Index, Newest
from faults.checks.verdict import Findings, Verdict, counted
from stack.observations import EMPTY_DIGEST, Final, Position
from stack.parts import ORDER_SERVICES


def no_split_brain(index: Index) -> Verdict:
    found = Findings("G5", "No split brain")
    led = [(at_ns, name, said) for at_ns, name, said in _said(index) if said.role == "leader"]
    begun = Newest((at_ns, said.epoch) for at_ns, _, said in led)
    epoch = 0
    for row in index.rows:
        asked = index.keys.get(row.request_id)
        newest = max(epoch, begun.before(asked.began_ns) if asked else 0)
        if row.epoch < newest:
            found.wrong(f"order {row.number} was committed under epoch {row.epoch}, after epoch "
                        f"{newest} had begun")  # fmt: skip
        epoch = max(epoch, row.epoch)
    leaders: dict[int, str] = {}
    for _, name, said in led:
        leader = leaders.setdefault(said.epoch, name)
        if leader != name:
            found.wrong(f"{leader} and {name} both led epoch {said.epoch}")
    if index.final is None:
        found.cannot_judge("the journal was not read")
    if not index.rows:
        found.cannot_judge("nothing was traded")
    rows = counted(len(index.rows), "row")
    return found.verdict(f"{rows}, {counted(len(leaders), 'leader')} seen")


def _said(index: Index) -> Iterator[tuple[int, str, Position]]:
    """Every position that a replica reported: the time, the replica, the position."""
    for seen in index.observations:
        for name, position in seen.replicas.items():
            yield seen.until_ns, name, position
    if index.final is not None:
        for name, position in index.final.replicas.items():
            yield index.final.at_ns, name, position


def replicas_agree(index: Index) -> Verdict:
    found = Findings("G9", "Replicas agree")
    digests = {0: ("the journal", EMPTY_DIGEST)}
    if index.run is not None:
        digests[index.run.first_number] = ("the journal", index.run.first_digest)
    digests |= {row.number: ("the journal", row.digest) for row in index.rows}
    pulled = _pulled_before_leading(index)
    positions = 0
    for at_ns, name, said in _said(index):
        positions += 1
        _same_log(name, said, digests, found)
        needed = pulled.get(said.epoch, 0) if said.role == "leader" else 0
        if said.last_number < needed:
            found.wrong(
                f"{name} led epoch {said.epoch} at {index.seconds(at_ns)} with orders "
                f"up to {said.last_number}, without {needed} of an earlier leader"
            )
    _chain_holds(index, found)
    if index.final is None:
        found.cannot_judge("the replicas were not read at the end")
    else:
        _end_alike(index, index.final, found)
    return found.verdict(f"{counted(positions, 'position')} of replicas")


def _end_alike(index: Index, final: Final, found: Findings) -> None:
    """At the end each log is as long as the journal, and no log was ever longer."""
    for name in ORDER_SERVICES:
        at_end = final.replicas.get(name)
        if at_end is None:
            found.wrong(f"{name} did not answer at the end")
        elif at_end.last_number != final.last_number:
            found.wrong(f"{name} ends with order {at_end.last_number}, the journal with "
                        f"{final.last_number}")  # fmt: skip
    for seen in index.observations:
        for name, said in seen.replicas.items():
            if said.last_number > final.last_number:
                found.wrong(f"{name} had order {said.last_number} at "
                            f"{index.seconds(seen.until_ns)}, and the journal ends with "
                            f"{final.last_number}")  # fmt: skip


def _same_log(
    name: str, said: Position, digests: dict[int, tuple[str, str]], found: Findings
) -> None:
    other, digest = digests.setdefault(said.last_number, (name, said.digest))
    if said.digest != digest:
        found.wrong(f"{name} has another log up to order {said.last_number} than {other}")


def _pulled_before_leading(index: Index) -> dict[int, int]:
    """Epoch → the last order of the epochs before it.

    The leader of the epoch must have that order before it leads: once the fence has accepted an
    epoch, no order of an earlier epoch is committed.
    """
    epochs = sorted({said.epoch for _, _, said in _said(index) if said.role == "leader"})
    newest = list(accumulate((row.epoch for row in index.rows), max))
    first_number = index.run.first_number if index.run else 0
    needed, count = {}, 0
    for epoch in epochs:
        while count < len(newest) and newest[count] < epoch:
            count += 1
        needed[epoch] = index.rows[count - 1].number if count else first_number
    return needed


def _chain_holds(index: Index, found: Findings) -> None:
    if index.run is None or not index.rows:
        return
    digest = index.run.first_digest or EMPTY_DIGEST
    for row in index.rows:
        if row.digest != row.digest_after(digest):
            found.wrong(f"the hash chain breaks at order {row.number}")
            return
        digest = row.digest
