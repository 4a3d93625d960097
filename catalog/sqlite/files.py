"""The files of a catalog's directory: who may use them, and what killed processes left."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.locks import lock_file

logger = logging.getLogger(__name__)

DATABASE = "catalog.db"
_LOCK = "catalog.lock"
_BACKUP = "backup.db"
_BACKUP_LOCK = "backup.lock"
_RESTORE_PREFIX = "restore-"
_LEFT_BY_BACKUPS_BEFORE = "backup-*"  # folders that versions before this one made
_HAD_DATABASE = b"A database was made in this directory.\n"

_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
# https://www.sqlite.org/fileformat.html: the write and the read version, both 2 with a WAL and both
# 1 without. SQLite takes a higher write version for a file that it may read but not change.
_VERSIONS = slice(18, 20)
_KNOWN_VERSIONS = (b"\2\2", b"\1\1")


class CannotOpen(Exception):
    """The database cannot be used; the message says which and why."""


class DamagedCatalog(CannotOpen):
    """What is stored contradicts itself, or a part of it is gone."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path} is damaged: {what}. Nothing was changed. Do not delete the order logs: "
            "`python -m catalog restore` rebuilds the catalog from them, "
            "see OPERATIONS.md, Damage and loss"
        )


class Directory:
    """A catalog's directory, locked until it is closed or the process ends.

    What a backup or a restoring left there when it was killed is removed.

    Raises:
        CannotOpen: another catalog has it.
        OSError: it cannot be made or locked.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.database = path / DATABASE
        try:
            self._lock = lock_file(path / _LOCK)
        except BlockingIOError:
            raise CannotOpen(f"{path}: another catalog has it open") from None
        _remove_leftovers(path)

    def close(self) -> None:
        os.close(self._lock)

    def has_database(self) -> bool:
        """False before the first start.

        A database is built under another name, and renamed when it is whole. So one that is empty
        or missing was lost. A new one in its place would give out its order numbers again.

        Raises:
            DamagedCatalog: it is gone, or a part of it is.
        """
        path = self.database
        ahead, index = _beside(path, "-wal"), _beside(path, "-shm")
        if path.exists():
            _check_header(path)
            if index.exists() and not ahead.exists():  # SQLite removes the index first
                raise DamagedCatalog(path, f"{ahead.name}, which has its newest orders, is gone")
            return True
        if ahead.exists() and ahead.stat().st_size > 0:
            raise DamagedCatalog(path, f"the file is gone, only {ahead.name} is left")
        if os.pread(self._lock, 1, 0):
            raise DamagedCatalog(path, "the file is gone")
        return False

    def check_is_vacant(self) -> None:
        """Raises CannotOpen if there is a database, or a part of one."""
        for suffix in ("", "-wal", "-shm"):
            path = _beside(self.database, suffix)
            if path.exists():
                raise CannotOpen(f"{path} is there: move it away first, and what lies beside it")

    def note_database(self) -> None:
        """Remembers that there is a database, so that its loss is noticed."""
        if not os.pread(self._lock, 1, 0):
            os.pwrite(self._lock, _HAD_DATABASE, 0)
            os.fsync(self._lock)

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A folder to restore in; it goes when the block is over, or at the next start."""
        with tempfile.TemporaryDirectory(prefix=_RESTORE_PREFIX, dir=self.database.parent) as work:
            yield Path(work)

    @contextmanager
    def new_database(self) -> Iterator[Path]:
        """Where to build a database. It becomes the directory's, on disk, when the block is over.

        If the block raises, or the process ends, there is none.
        """
        draft = self.database.with_name(f"{DATABASE}.new")
        remove(draft)
        try:
            yield draft
            _sync(draft)
            draft.rename(self.database)
            _sync(self.database.parent)
        finally:
            remove(draft)
        self.note_database()


@contextmanager
def backup_copy(directory: Path) -> Iterator[Path]:
    """Where one backup at a time may put its copy; it goes when the block is over.

    Should the process be killed, it goes at the next backup, or when a catalog starts there.

    Raises:
        CannotOpen: another backup runs.
    """
    try:
        lock = lock_file(directory / _BACKUP_LOCK)
    except BlockingIOError:
        raise CannotOpen(f"{directory}: another backup runs") from None
    copy = directory / _BACKUP
    try:
        remove(copy)
        yield copy
    finally:
        remove(copy)
        os.close(lock)


def _remove_leftovers(directory: Path) -> None:
    """The caller holds the directory's lock, so no restore can run; but a backup can."""
    try:
        for folder in directory.glob(f"{_RESTORE_PREFIX}*"):
            shutil.rmtree(folder)
        for folder in directory.glob(_LEFT_BY_BACKUPS_BEFORE):
            shutil.rmtree(folder)
        if (directory / _BACKUP).exists():
            with backup_copy(directory):
                pass
    except CannotOpen as error:
        logger.info("%s", error)
    except OSError as error:
        logger.warning("cannot remove what a backup or a restoring left: %s", error)


def remove(database: Path) -> None:
    """Removes a database and what SQLite keeps beside it, as far as they are there."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        _beside(database, suffix).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        raise DamagedCatalog(path, f"only {len(header)} bytes are left of it")
    if not header.startswith(_MAGIC):
        raise DamagedCatalog(path, "file is not a database")
    if header[_VERSIONS] not in _KNOWN_VERSIONS:
        raise DamagedCatalog(path, f"its header has file format versions {[*header[_VERSIONS]]}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
