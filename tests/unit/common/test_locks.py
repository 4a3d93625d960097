"""A lock on a file: one holder at a time, until the descriptor is closed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.locks import lock_file


def test_a_second_one_does_not_get_it_until_the_first_is_closed(tmp_path: Path) -> None:
    first = lock_file(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        lock_file(tmp_path / "lock")
    os.close(first)
    os.close(lock_file(tmp_path / "lock"))


def test_what_the_file_holds_is_kept(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"a note")
    os.close(lock_file(tmp_path / "lock"))
    assert (tmp_path / "lock").read_bytes() == b"a note"
