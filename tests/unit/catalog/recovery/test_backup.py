"""A backup of a catalog that serves: a whole database, as of one moment."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from catalog.recovery import backup
from catalog.sqlite.database import Database
from common.errors import Damaged
from tests.unit.catalog.files import change, content, write_catalog
from tests.unit.catalog.support import NOW_S, buy, store_on

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


def left(data: Path) -> list[str]:
    """What a backup left; the file that it locks is empty, and stays."""
    return [path.name for path in data.glob("backup*") if path.name != "backup.lock"]


def test_a_serving_catalog_is_copied_up_to_its_last_commit(tmp_path: Path) -> None:
    data = write_catalog(tmp_path / "data")
    with closing(Database(data, tmp_path / "stocks.txt")) as database:
        store = store_on(database, lambda: NOW_S)
        store.fence(3, 1)
        last = store.update(3, [buy("newest", 1, "stock10")])[0].order
        assert last is not None
        done = run(data)
        assert left(data) == []
    assert done.returncode == 0, done.stderr
    assert f"last number {last.number}, digest {last.digest.hex()}" in done.stderr.decode()
    copy = tmp_path / "copy" / "data"
    copy.mkdir(parents=True)
    (tmp_path / "copy" / "stocks.txt").touch()
    (copy / "catalog.db").write_bytes(done.stdout)
    assert content(copy) == content(data)
    assert cluster_of(copy) == cluster_of(data)


def cluster_of(data: Path) -> str:
    with closing(Database(data, data.parent / "stocks.txt")) as database:
        return database.cluster_id


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


# ------------------------------------------------- a backup on the catalog's own disk


class Stuck(io.RawIOBase):
    """A reader that takes the first piece, and then does something else."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile = meanwhile

    def write(self, _piece: object) -> int:
        self._meanwhile()
        raise BrokenPipeError("nobody reads any more")


def killed_backup(data: Path) -> None:
    """Starts a backup whose reader does not read, and kills it in the middle."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "catalog", "backup"],
        cwd=ROOT,
        env={"PATH": "", "DATA_DIR": str(data)},
        stdout=writer,
    )
    os.close(writer)
    with open(reader, "rb", buffering=0) as pipe:
        assert pipe.read(1)  # it writes: the copy is there, whole
        process.kill()
        process.wait(timeout=60)


def test_what_a_killed_backup_left_goes_when_a_catalog_starts(tmp_path: Path) -> None:
    data = write_catalog(tmp_path / "data", count=1_000)
    killed_backup(data)
    assert left(data) != []
    with closing(Database(data, tmp_path / "stocks.txt")):
        assert left(data) == []


def test_what_a_killed_backup_left_goes_with_the_next_one(tmp_path: Path) -> None:
    data = write_catalog(tmp_path / "data", count=1_000)
    killed_backup(data)
    assert left(data) != []
    assert run(data).returncode == 0
    assert left(data) == []


def test_what_earlier_versions_left_goes_when_a_catalog_starts(tmp_path: Path) -> None:
    data = write_catalog(tmp_path / "data")
    for name in ("backup-x1y2", "restore-x1y2"):
        (data / name / "0").mkdir(parents=True)
        (data / name / "catalog.db").write_bytes(b"half of it")
    with closing(Database(data, tmp_path / "stocks.txt")):
        assert left(data) == []
        assert list(data.glob("restore-*")) == []


def test_a_catalog_that_starts_leaves_a_running_backup_alone(tmp_path: Path) -> None:
    data = write_catalog(tmp_path / "data")

    def start_a_catalog() -> None:
        with closing(Database(data, tmp_path / "stocks.txt")):
            assert (data / "backup.db").exists()

    with pytest.raises(BrokenPipeError):
        backup.back_up(data, Stuck(start_a_catalog))
    assert left(data) == []


def test_one_backup_runs_at_a_time(tmp_path: Path) -> None:
    data = write_catalog(tmp_path / "data")
    second: list[subprocess.CompletedProcess[bytes]] = []
    with pytest.raises(BrokenPipeError):
        backup.back_up(data, Stuck(lambda: second.append(run(data))))
    assert (second[0].returncode, second[0].stdout) == (1, b"")
    assert b"another backup runs" in second[0].stderr


def test_a_backup_leaves_the_catalog_room_to_trade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_catalog(tmp_path / "data")
    free = (data / "catalog.db").stat().st_size + backup._ROOM_TO_TRADE_BYTES
    output = io.BytesIO()
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free - 1))
    with pytest.raises(backup.NoRoom, match=r"takes 0\.\d MiB more, 64 MiB stay .* 64\.\d MiB"):
        backup.back_up(data, output)
    assert output.getvalue() == b""
    assert left(data) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free))
    assert backup.back_up(data, output).last_number > 0


def test_a_disk_that_fills_up_meanwhile_ends_the_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_catalog(tmp_path / "data", count=1_000)
    monkeypatch.setattr(backup, "_STEP_PAGES", 1)
    room = iter([2**40, 2**40, 2**40])
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=next(room, 2**20)))
    output = io.BytesIO()
    with pytest.raises(backup.NoRoom):
        backup.back_up(data, output)
    assert output.getvalue() == b""
    assert left(data) == []


def test_trades_between_two_steps_of_the_copy_are_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step sees the moment of the first, however busy the catalog is."""
    data = write_catalog(tmp_path / "data", count=1_000)
    with closing(Database(data, tmp_path / "stocks.txt")) as database:
        store = store_on(database, lambda: NOW_S)
        store.fence(3, 1)
        before = len(store.journal(0))
        trades = iter(range(10_000))
        checked = backup._check_room

        def trade_on(directory: Path, needed_bytes: int) -> None:
            checked(directory, needed_bytes)
            assert store.update(3, [buy(f"meanwhile-{next(trades)}", 1, "stock10")])[0].order

        monkeypatch.setattr(backup, "_STEP_PAGES", 1)
        monkeypatch.setattr(backup, "_check_room", trade_on)
        copied = backup.back_up(data, io.BytesIO())
        assert next(trades) > 10
        assert copied.last_number == before


def test_a_backup_that_is_told_to_stop_leaves_nothing(tmp_path: Path) -> None:
    data = write_catalog(tmp_path / "data", count=1_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "catalog", "backup"],
        cwd=ROOT,
        env={"PATH": "", "DATA_DIR": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"stopped" in said
    assert left(data) == []
