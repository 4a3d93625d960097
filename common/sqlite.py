"""SQLite as every service uses it: how a database is opened, and what an error means."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Literal

from common.errors import Damaged, Unavailable

# The first version with STRICT tables. An older one calls our databases damaged.
NEEDED_VERSION = (3, 37, 0)

# Readers can make a write-ahead log grow. It is cut to this when SQLite starts it anew.
LOG_LIMIT_BYTES = 8 * 2**20

# Each database has one writing process. Only SQLite's own recovery and checkpoints make one wait.
WAIT_S = 1.0

_FULL_BELOW_BYTES = 1 << 20

# All other errors can pass. A file counts as damaged only when SQLite says so.
_DAMAGE = frozenset(
    (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_ERROR,  # a statement of ours does not fit the tables
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_NOTADB,
    )
)
_DEFECTS = (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)


class TooOld(Unavailable):
    """This SQLite cannot read the databases of this service. Nothing is wrong with them."""


def open_to_write(path: Path, synchronous: Literal["FULL", "NORMAL"]) -> sqlite3.Connection:
    """Opens a database with a write-ahead log; makes it when missing.

    Transactions begin only where our code begins them. Threads may share it, one at a time.

    Args:
        synchronous: FULL flushes each commit to the disk. NORMAL may lose the last ones in a
            power cut, but never mixes them up.

    Raises:
        TooOld
        Unavailable: the file system cannot keep a write-ahead log.
        sqlite3.Error: `meaning` says what it means.
    """
    connection = _open(path.absolute().as_uri())
    try:
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise Unavailable("no write-ahead log on this file system")
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path) -> sqlite3.Connection:
    """Opens a database to read. The connection cannot change it, and makes no checkpoint.

    Raises:
        TooOld
        sqlite3.Error
    """
    return _open(f"{path.absolute().as_uri()}?mode=ro")


def open_to_build(path: Path, cache_kib: int) -> sqlite3.Connection:
    """Opens a new database to fill it. If that fails, the whole file is deleted.

    Nothing is flushed, and nothing can be rolled back.

    Args:
        cache_kib: how much of it to keep in memory: request ids are written all over their index.

    Raises:
        TooOld
        sqlite3.Error
    """
    connection = _open(path.absolute().as_uri())
    for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{cache_kib}"):
        connection.execute(f"PRAGMA {setting}")
    return connection


def _open(uri: str) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < NEEDED_VERSION:
        needed = ".".join(map(str, NEEDED_VERSION))
        raise TooOld(
            f"SQLite {sqlite3.sqlite_version} is too old: {needed} or newer is needed. "
            "Run it with a newer Python, whose sqlite3.sqlite_version says so"
        )
    return sqlite3.connect(
        uri, uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False
    )


def meaning(error: sqlite3.Error) -> type[Unavailable] | type[Damaged] | None:
    """The error to raise for it.

    Returns:
        Unavailable: the disk fails, is full or is busy. The data may be fine.
        Damaged: the file's content is wrong.
        None: a defect of ours, such as a broken constraint or a misuse.
    """
    if isinstance(error, _DEFECTS):
        return None
    # Python's own errors have no code. They mean that it cannot decode a value.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return Damaged if code in _DAMAGE else Unavailable


def explain(error: Exception, path: Path) -> str:
    """The error of a file at `path`, and how much room is left if its disk is full or nearly so.

    SQLite calls it a "disk I/O error" when there is no room for a file that it only needs while
    it runs.
    """
    try:
        free_bytes = shutil.disk_usage(path.parent).free
    except OSError:
        return str(error)
    if free_bytes >= _FULL_BELOW_BYTES:
        return str(error)
    return f"{error}; the disk is full, {free_bytes // 1024} KiB are left"
