"""G5 and G9: one leader at a time, and one log on every replica."""

from __future__ import annotations

from itertools import accumulate

from common.records import Order, next_digest
from faults.checks.index import Index
from faults.checks.verdict import Findings, Verdict, counted
from faults.history import ORDER_SERVICES, Position


def no_split_brain(index: Index) -> Verdict:
    found = Findings("G5", "No split brain")
    epoch = 0
    for row in index.rows:
        if row.epoch < epoch:
            found.wrong(f"order {row.number} was committed under epoch {row.epoch}, after epoch "
                        f"{epoch} had begun")  # fmt: skip
        epoch = max(epoch, row.epoch)
    leaders: dict[int, str] = {}
    for observation in index.observations:
        for name, said in observation.replicas.items():
            if said.role != "leader":
                continue
            leader = leaders.setdefault(said.epoch, name)
            if leader != name:
                found.wrong(f"{leader} and {name} both led epoch {said.epoch}")
    if index.final is None:
        found.cannot_judge("the journal was not read")
    if not index.rows:
        found.cannot_judge("nothing was traded")
    rows = counted(len(index.rows), "row")
    return found.verdict(f"{rows}, {counted(len(leaders), 'leader')} seen")


def replicas_agree(index: Index) -> Verdict:
    found = Findings("G9", "Replicas agree")
    digests = {row.number: ("the journal", row.digest) for row in index.rows}
    if index.run is not None and index.run.first_number:
        digests[index.run.first_number] = ("the journal", index.run.first_digest)
    pulled = _pulled_before_leading(index)
    for observation in index.observations:
        for name, said in observation.replicas.items():
            _same_log(name, said, digests, found)
            needed = pulled.get(said.epoch, 0) if said.role == "leader" else 0
            if said.last_number < needed:
                when = index.seconds(observation.until_ns)
                found.wrong(
                    f"{name} led epoch {said.epoch} at {when} with orders up to "
                    f"{said.last_number}, without {needed} of an earlier leader"
                )
    _chain_holds(index, found)
    if index.final is None:
        found.cannot_judge("the replicas were not read at the end")
    else:
        for name in ORDER_SERVICES:
            at_end = index.final.replicas.get(name)
            if at_end is None:
                found.wrong(f"{name} did not answer at the end")
            else:
                _same_log(name, at_end, digests, found)
                if at_end.last_number != index.final.last_number:
                    found.wrong(f"{name} ends with order {at_end.last_number}, the journal with "
                                f"{index.final.last_number}")  # fmt: skip
    seen = sum(len(observation.replicas) for observation in index.observations)
    return found.verdict(f"{counted(seen, 'position')} of replicas")


def _same_log(
    name: str, said: Position, digests: dict[int, tuple[str, str]], found: Findings
) -> None:
    other, digest = digests.setdefault(said.last_number, (name, said.digest))
    if said.digest != digest:
        found.wrong(f"{name} has another log up to order {said.last_number} than {other}")


def _pulled_before_leading(index: Index) -> dict[int, int]:
    """Epoch → the last order of the epochs before it: its leader has it before it leads.

    The fence let nothing of an earlier epoch be committed after it.
    """
    epochs = sorted(
        {
            said.epoch
            for observation in index.observations
            for said in observation.replicas.values()
            if said.role == "leader"
        }
    )
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
    digest = bytes.fromhex(index.run.first_digest or "00" * 32)
    for row in index.rows:
        fields = (row.number, row.request_id, row.name, row.type, row.quantity, row.version)
        digest = next_digest(digest, Order(*fields, row.epoch))
        if digest.hex() != row.digest:
            found.wrong(f"the hash chain breaks at order {row.number}")
            return
