"""The tool that writes long logs: what it writes agrees with itself, and it overwrites nothing."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from catalog.sqlite import schema
from catalog.sqlite.database import Database
from catalog.sqlite.schema import Registration
from common.chain import verify_chain
from common.domain import EMPTY_DIGEST, Order
from order.log.log import open_log
from stack import fill as fill_module
from stack.fill import CannotFill, Contents, fill, parse_arguments
from stack.local import lock
from stack.parts import ROOT, StackError

ORDERS = 500
SMALL = Contents(ORDERS, stocks=3, volume=150, epochs=4, seed=7, behind={2: 100, 3: ORDERS})


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("filled")
    fill(directory, SMALL)
    return directory


@pytest.fixture(scope="module")
def journal(filled: Path) -> list[Order]:
    with closing(sqlite3.connect(filled / "catalog" / "catalog.db")) as connection:
        return schema.orders_above(connection, 0, ORDERS + 1)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stack.fill", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_the_journal_is_a_chain_from_1(filled: Path, journal: list[Order]) -> None:
    assert [row.number for row in journal] == list(range(1, ORDERS + 1))
    assert len({row.request_id for row in journal}) == ORDERS
    catalog = filled / "catalog" / "catalog.db"
    assert verify_chain(catalog, "journal") == (ORDERS, journal[-1].digest)


def test_the_books_balance_at_every_row(filled: Path, journal: list[Order]) -> None:
    volumes = Counter({f"stock{number}": SMALL.volume for number in (1, 2, 3)})
    versions: Counter[str] = Counter()
    for row in journal:
        volumes[row.name] += row.quantity if row.type == "SELL" else -row.quantity
        versions[row.name] += 1
        assert volumes[row.name] >= 0
        assert row.version == versions[row.name]
    database = Database(filled / "catalog", Path("not needed"))
    with closing(database), database.reading() as connection:
        stocks = schema.all_stocks(connection)
    assert {stock.name: (stock.volume, stock.version) for stock in stocks} == {
        name: (volumes[name], versions[name]) for name in volumes
    }


def test_both_kinds_of_trades_are_there(journal: list[Order]) -> None:
    """A volume so small that some had to go the other way."""
    kinds = Counter(row.type for row in journal)
    assert min(kinds["BUY"], kinds["SELL"]) > ORDERS // 4


def test_the_fence_is_that_of_the_last_row(filled: Path, journal: list[Order]) -> None:
    epochs = [row.epoch for row in journal]
    assert epochs == sorted(epochs)
    assert set(epochs) == {1, 2, 3, 4}
    with closing(sqlite3.connect(filled / "catalog" / "catalog.db")) as connection:
        assert schema.registration(connection) == Registration(4, 3)


@pytest.mark.parametrize(("replica_id", "length"), [(1, ORDERS), (2, ORDERS - 100), (3, 0)])
def test_each_log_is_the_beginning_of_the_journal(
    filled: Path, journal: list[Order], replica_id: int, length: int
) -> None:
    log, damage = open_log(filled / f"order-{replica_id}" / "orders.db")
    with closing(log):
        assert damage is None
        assert log.rows(0) == journal[:length]
        assert log.digest == (journal[length - 1].digest if length else EMPTY_DIGEST)
        with closing(sqlite3.connect(filled / "catalog" / "catalog.db")) as connection:
            assert log.cluster_id == (schema.cluster_id(connection) if length else "")


def test_the_same_arguments_write_the_same_rows_and_another_seed_others(tmp_path: Path) -> None:
    digests = [
        fill(tmp_path / str(index), SMALL._replace(seed=seed))
        for index, seed in enumerate([7, 7, 8])
    ]
    assert digests[0] == digests[1] != digests[2]


def test_no_orders_are_a_catalog_that_nobody_ever_led(tmp_path: Path) -> None:
    assert fill(tmp_path, SMALL._replace(orders=0, behind={})) == EMPTY_DIGEST
    with closing(sqlite3.connect(tmp_path / "catalog" / "catalog.db")) as connection:
        assert schema.registration(connection) == Registration(0, 0)


# ------------------------------------------------------------ what it refuses


@pytest.mark.parametrize("part", ["catalog", "order-1", "order-3"])
def test_data_that_is_there_is_left_alone(tmp_path: Path, part: str) -> None:
    (tmp_path / part).mkdir()
    (tmp_path / part / "precious").write_text("kept")
    with pytest.raises(CannotFill, match=f"{part} holds data already"):
        fill(tmp_path, SMALL)
    assert contents(tmp_path) == {f"{part}/precious": b"kept", "lock": b""}


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(StackError, match="in use by another run"):
        fill(tmp_path, SMALL)
    assert contents(tmp_path) == {"lock": b""}


def test_what_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fill_module, "write_log", fail)
    with pytest.raises(OSError, match="No space left"):
        fill(tmp_path, SMALL)
    assert contents(tmp_path) == {"lock": b""}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("", "--orders"),
        ("--orders many", "'many' is not a whole number"),
        ("--orders -1", "--orders"),
        ("--orders 1 --stocks 0", "'0' is not a whole number from 1"),
        ("--orders 1 --behind 4=1", "does not name one of the replicas"),
        ("--orders 1 --behind 3=x", "'x' is not a whole number"),
        ("--orders 1 --behind 3=2", "replica 3 cannot lack 2 of 1 rows"),
        ("--orders 1 --volume 9007199254740991", "volumes above 9007199254740991"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments(arguments.split())
    assert end.value.code == 2
    assert why in capsys.readouterr().err


def test_the_command_says_what_it_wrote_and_why_it_does_not(tmp_path: Path) -> None:
    arguments = ("--orders", "20", "--data", str(tmp_path), "--behind", "2=all", "--behind", "3=5")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "20 orders of 10 stocks" in done.stderr
    assert "order-3: 15 rows" in done.stderr
    before = contents(tmp_path)
    refused = run(*arguments)
    assert refused.returncode == 1
    assert "nothing was written" in refused.stderr
    assert "holds data already" in refused.stderr
    assert contents(tmp_path) == before
