"""A backup of a catalog that serves: a whole database, as of one moment."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from catalog.recovery import backup
from catalog.sqlite.database import Database
from catalog.sqlite.store import CatalogStore
from common.errors import Damaged
from tests.unit.catalog.files import change, content, write_catalog
from tests.unit.catalog.support import NOW_S, buy

ROOT = Path(__file__).parents[4]


def run(directory: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "catalog", "backup"],
        cwd=ROOT,
        env={"PATH": "", "DATA_DIR": str(directory)},
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_a_serving_catalog_is_copied_up_to_its_last_commit(tmp_path: Path) -> None:
    data = write_catalog(tmp_path / "data")
    with closing(Database(data, tmp_path / "stocks.txt")) as database:
        store = CatalogStore(database, lambda: NOW_S)
        store.fence(3, 1)
        last = store.update(3, [buy("newest", 1, "stock10")])[0].order
        assert last is not None
        done = run(data)
        assert not list(data.glob("backup-*"))
    assert done.returncode == 0, done.stderr
    assert f"last number {last.number}, digest {last.digest.hex()}" in done.stderr.decode()
    copy = tmp_path / "copy" / "data"
    copy.mkdir(parents=True)
    (tmp_path / "copy" / "stocks.txt").touch()
    (copy / "catalog.db").write_bytes(done.stdout)
    assert content(copy) == content(data)


def test_what_is_damaged_is_no_backup(tmp_path: Path) -> None:
    data = write_catalog(tmp_path / "data")
    change(data / "catalog.db", "UPDATE stocks SET volume = 1")
    output = io.BytesIO()
    with pytest.raises(Damaged):
        backup.back_up(data, output)
    assert output.getvalue() == b""
    done = run(data)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"catalog.db: " in done.stderr


def test_without_a_catalog_there_is_nothing_to_copy(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"unable to open" in done.stderr
    assert list(tmp_path.iterdir()) == []
