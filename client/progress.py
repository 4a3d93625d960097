"""The progress bar: on a terminal that has tqdm, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

try:
    from tqdm import tqdm
except ImportError:  # a bar is nice to have; the client runs without
    tqdm = None  # type: ignore[assignment, misc]


@contextmanager
def progress_bar(label: str, total: int, stream: TextIO) -> Iterator[Callable[[int], None]]:
    """Yields what to call with the number done so far."""
    if tqdm is None or not stream.isatty():
        yield lambda _done: None
        return
    with tqdm(total=total, desc=label, file=stream) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        yield show
