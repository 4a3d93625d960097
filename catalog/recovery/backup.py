"""`python -m catalog backup`: a copy of the database as of one moment, while the catalog serves."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from catalog.settings import CatalogSettings
from catalog.sqlite.files import DATABASE, CannotOpen, backup_copy
from catalog.sqlite.schema import OtherSchema
from catalog.sqlite.verification import Verified, verify
from common.errors import BourseError
from common.sqlite import open_to_build, open_to_read

# What the catalog keeps of its disk while a copy lies there: it goes on trading meanwhile.
_ROOM_TO_TRADE_BYTES = 64 * 2**20
_STEP_PAGES = 1_000
_CACHE_KIB = 2_000
_MIB = 2**20


_TOOLS_OF_POSTGRES = (
    "the data is in PostgreSQL, whose own tools back it up: pg_dump for one moment, pg_basebackup "
    "with an archive of the write-ahead log for every moment, or the service that runs it"
)


class NoRoom(Exception):
    """There is too little room on the disk for a copy."""


def run(settings: CatalogSettings, output: BinaryIO) -> int:
    """Writes the copy and says so; the process's exit code."""
    if settings.database_url:
        print(f"backup: {_TOOLS_OF_POSTGRES}", file=sys.stderr)
        return 1
    # Told to stop, it still removes its copy.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        verified = back_up(settings.data_dir, output)
    except (BourseError, CannotOpen, NoRoom, OtherSchema, OSError, sqlite3.Error) as error:
        print(f"backup: {settings.data_dir / DATABASE}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("backup: stopped, nothing is left of it", file=sys.stderr)
        return 1
    digest = verified.digest.hex()
    print(f"backup: last number {verified.last_number}, digest {digest}", file=sys.stderr)
    return 0


def back_up(directory: Path, output: BinaryIO) -> Verified:
    """Copies the database, verifies the copy and writes it to `output`.

    The copy lies beside the database meanwhile, because a container has no other disk.

    Raises:
        Damaged, OtherSchema: the copy is not whole; nothing was written to `output`.
        NoRoom: the copy would leave the catalog too little room; nothing was written.
        CannotOpen: another backup runs.
        OSError, sqlite3.Error
    """
    with closing(open_to_read(directory / DATABASE)) as source:
        source.execute("BEGIN")  # the database as of now, whatever is committed meanwhile
        ((page_bytes,),) = source.execute("PRAGMA page_size").fetchall()
        ((pages,),) = source.execute("PRAGMA page_count").fetchall()
        _check_room(directory, pages * page_bytes)
        with backup_copy(directory) as copy:
            with closing(open_to_build(copy, _CACHE_KIB)) as target:
                source.backup(
                    target,
                    pages=_STEP_PAGES,
                    progress=lambda _status, left, _pages: _check_room(
                        directory, left * page_bytes
                    ),
                )
            source.execute("ROLLBACK")  # or the write-ahead log would grow until the end
            verified = verify(copy)
            with copy.open("rb") as file:
                shutil.copyfileobj(file, output)
    return verified


def _check_room(directory: Path, needed_bytes: int) -> None:
    """Raises NoRoom if so much more would not leave the catalog room to trade."""
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes + _ROOM_TO_TRADE_BYTES:
        raise NoRoom(
            f"no room for a copy beside the database: it takes {needed_bytes / _MIB:.1f} MiB more, "
            f"{_ROOM_TO_TRADE_BYTES / _MIB:.0f} MiB stay for trading, "
            f"and {free_bytes / _MIB:.1f} MiB are free"
        )
