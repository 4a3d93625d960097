"""`python -m catalog backup`: a copy of the database as of one moment, while the catalog serves."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from catalog.recovery.verification import Verified, verify
from catalog.settings import CatalogSettings
from catalog.sqlite.files import DATABASE
from catalog.sqlite.schema import OtherSchema
from common.errors import BourseError


def run(settings: CatalogSettings, output: BinaryIO) -> int:
    """Writes the copy and says so; the process's exit code."""
    try:
        verified = back_up(settings.data_dir, output)
    except (BourseError, OtherSchema, OSError, sqlite3.Error) as error:
        print(f"backup: {settings.data_dir / DATABASE}: {error}", file=sys.stderr)
        return 1
    digest = verified.digest.hex()
    print(f"backup: last number {verified.last_number}, digest {digest}", file=sys.stderr)
    return 0


def back_up(directory: Path, output: BinaryIO) -> Verified:
    """Copies the database, verifies the copy and writes it to `output`.

    Raises:
        Damaged, OtherSchema: the copy is not whole; nothing was written to `output`.
        OSError, sqlite3.Error
    """
    uri = f"{(directory / DATABASE).absolute().as_uri()}?mode=ro"
    with tempfile.TemporaryDirectory(prefix="backup-", dir=directory) as work:
        copy = Path(work) / DATABASE
        with (
            closing(sqlite3.connect(uri, uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        verified = verify(copy)
        with copy.open("rb") as file:
            shutil.copyfileobj(file, output)
    return verified
