"""A log on a real disk, with rows in it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from order.log.log import OrderLog
from tests.unit.order.fakes import CLUSTER, make_rows

ROWS = make_rows(130)  # they need more than one page


def path_in(directory: Path) -> Path:
    return directory / "orders.db"


def write_log(directory: Path) -> Path:
    """A closed log that holds ROWS."""
    path = path_in(directory)
    with closing(OrderLog(path)) as log:
        log.append(ROWS, CLUSTER)
    return path
