"""What a failing disk means: a full one fails under many names."""

from __future__ import annotations

import shutil
from pathlib import Path

_FULL_BELOW_BYTES = 1 << 20


def explain(error: Exception, path: Path) -> str:
    """The error of a file at `path`, and how much room is left if its disk is full or nearly so.

    SQLite, for one, calls it a "disk I/O error" when there is no room for a file that it only
    needs while it runs.
    """
    try:
        free_bytes = shutil.disk_usage(path.parent).free
    except OSError:
        return str(error)
    if free_bytes >= _FULL_BELOW_BYTES:
        return str(error)
    return f"{error}; the disk is full, {free_bytes // 1024} KiB are left"
