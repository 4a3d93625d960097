"""What an error of SQLite's says: that the disk gives trouble, or that the data on it is wrong."""

from __future__ import annotations

import sqlite3

_DISK_TROUBLE = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    )
)


def is_disk_trouble(error: sqlite3.Error) -> bool:
    primary_code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return primary_code in _DISK_TROUBLE
