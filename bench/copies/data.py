"""What the volumes of a copy hold at first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from stack import fill

# Of each stock: none of them runs out.
VOLUME = 1_000_000


@contextmanager
def filled(orders: int, stocks: int) -> Iterator[Path]:
    """A catalog and order logs as so many trades of so many stocks have left them."""
    with TemporaryDirectory(prefix="bourse-bench-") as directory:
        contents = fill.Contents(orders, stocks, VOLUME, epochs=1, seed=1, behind={})
        fill.fill(Path(directory), contents)
        yield Path(directory)
