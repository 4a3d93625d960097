"""Judges a history: did every promise hold?"""

from __future__ import annotations

from collections.abc import Iterable

from faults.checks import answers, books, leaders, trades
from faults.checks.index import Index
from faults.checks.verdict import Judgement
from faults.history import Record


def judge(records: Iterable[Record]) -> Judgement:
    """A verdict on each promise, G1 to G9, from the records of one run."""
    index = Index(records)
    stocks = books.courses(index)
    return Judgement(
        (
            trades.exactly_once(index),
            trades.nothing_lost(index),
            trades.numbers_in_order(index),
            answers.one_survivor_serves(index),
            leaders.no_split_brain(index),
            books.no_stale_quote(index, stocks),
            books.books_balance(index, stocks),
            answers.clients_do_not_notice(index),
            leaders.replicas_agree(index),
        )
    )
