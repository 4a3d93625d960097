"""The commands on a PostgreSQL database: each does all that it says, or nothing."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from catalog.postgres import commands, migrations
from catalog.postgres.address import Address
from catalog.postgres.connection import connect
from catalog.postgres.session import OfficeRow
from catalog.postgres.statements import VERSION
from catalog.recovery import backup, restore
from catalog.settings import CatalogSettings, Durability
from common.domain import Order
from tests.support.postgres import PostgresServer
from tests.unit.catalog.engines import active_on
from tests.unit.catalog.files import content, trades, write_catalog, write_log
from tests.unit.catalog.support import NOW_S, sell, write_stocks

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).parents[4]


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """Of an empty database."""
    return postgres.url(postgres.emptied_database())


@pytest.fixture
def settings(url: str, tmp_path: Path) -> CatalogSettings:
    return CatalogSettings(
        database_url=url,
        data_dir=tmp_path / "data",
        stocks_file=write_stocks(tmp_path),
        _env_file=None,
    )


@pytest.fixture
def admin(postgres: PostgresServer, url: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(postgres.admin()) as connection:
        yield connection


def tables(admin: psycopg.Connection[Any]) -> list[str]:
    sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
    return [name for (name,) in admin.execute(sql).fetchall()]


def office(url: str) -> OfficeRow:
    with closing(connect(Address(url), Durability.SINGLE)) as session:
        return session.observe()


# --------------------------------------------------------------------- init


def test_an_empty_database_is_filled_from_the_stocks_file(
    settings: CatalogSettings, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.run_init(settings) == 0
    assert capsys.readouterr().out == f"init: 3 stocks from {settings.stocks_file}\n"
    with active_on(Address(url), lambda: NOW_S) as store:
        assert [str(stock) for stock in store.stocks()] == [
            "stock1: 100 at 25.78 (v0)",
            "stock2: 50 at 0.10 (v0)",
            "stock10: 9007199254740981 at 1.00 (v0)",
        ]
        assert uuid.UUID(store.cluster_id)
        assert store.registered() == (0, 0)


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE other (x integer)", "CREATE VIEW other AS SELECT 1"]
)
def test_a_database_that_is_not_empty_stays_as_it_is(
    settings: CatalogSettings,
    admin: psycopg.Connection[Any],
    capsys: pytest.CaptureFixture[str],
    statement: str,
) -> None:
    admin.execute(statement)
    before = tables(admin)
    assert commands.run_init(settings) == 1
    told = capsys.readouterr().err
    assert told == "init: nothing was done: the database is not empty, it has: other\n"
    assert tables(admin) == before


def test_a_second_init_keeps_what_there_is(
    settings: CatalogSettings, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.run_init(settings) == 0
    with active_on(Address(url), lambda: NOW_S) as store:
        store.fence(1, 2)
        store.update(1, [sell("a")])
    assert commands.run_init(settings) == 1
    assert "journal" in capsys.readouterr().err
    with active_on(Address(url), lambda: NOW_S) as store:
        assert len(store.journal(0)) == 1


def test_a_wrong_stocks_file_makes_no_tables(
    settings: CatalogSettings, admin: psycopg.Connection[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    settings.stocks_file.write_text("stockname,price,currvol\nstock1,1,x\n")
    assert commands.run_init(settings) == 1
    assert "line 2: volume 'x'" in capsys.readouterr().err
    assert tables(admin) == []


def test_a_database_that_is_not_there_is_one_line(
    settings: CatalogSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = "postgresql://user:secret@127.0.0.1:1/bourse"
    assert commands.run_init(settings.model_copy(update={"database_url": nowhere})) == 1
    told = capsys.readouterr().err
    assert told.startswith("init: nothing was done: cannot connect to 127.0.0.1:1: ")
    assert told.count("\n") == 1
    assert "secret" not in told


def test_a_url_that_cannot_be_read_is_not_quoted(
    settings: CatalogSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "postgresql://user:%zzsecret@127.0.0.1:1/bourse"
    assert commands.run_init(settings.model_copy(update={"database_url": wrong})) == 1
    told = capsys.readouterr().err
    assert told == "init: nothing was done: DATABASE_URL: it is not a PostgreSQL URL\n"


# ------------------------------------------------------------------ migrate


def test_an_up_to_date_schema_is_left_alone(
    settings: CatalogSettings, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.run_init(settings)
    before = office(url)
    assert commands.run_migrate(settings) == 0
    assert capsys.readouterr().out.endswith(
        f"migrate: schema version {VERSION} already, nothing to do\n"
    )
    assert office(url) == before


def test_the_version_is_that_of_the_last_file() -> None:
    assert [version for version, _ in migrations.steps()] == list(range(1, VERSION + 1))


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The steps of a catalog that is one version ahead."""
    folder = tmp_path / "schema"
    shutil.copytree(migrations.SCHEMA, folder)
    step = f"{VERSION + 1:04}_more.sql"
    (folder / step).write_text("CREATE TABLE more (x integer);\nALTER TABLE journal ADD y text;\n")
    return folder


def test_a_step_fences_off_whoever_is_active(
    settings: CatalogSettings, url: str, later: Path, admin: psycopg.Connection[Any]
) -> None:
    commands.run_init(settings)
    with closing(connect(Address(url), Durability.SINGLE)) as active:
        assert active.take(active.observe(), 1, "active")
        assert active.begin(1, 2, []) is not None
        active.roll_back()
        with migrations.changing(Address(url)) as connection:
            assert migrations.migrate(connection, later) == (VERSION, VERSION + 1)
        assert active.begin(1, 3, []) is None
    row = admin.execute("SELECT generation, released, schema_version FROM office").fetchone()
    # Whoever was active may answer lookups for as long as its last beat permits.
    assert row == (2, False, VERSION + 1)
    assert "more" in tables(admin)


def test_a_step_that_fails_changes_nothing(
    settings: CatalogSettings, url: str, later: Path, admin: psycopg.Connection[Any]
) -> None:
    commands.run_init(settings)
    before = office(url), tables(admin)
    (later / f"{VERSION + 2:04}_wrong.sql").write_text("SELECT 1 / 0;\n")
    with (
        pytest.raises(migrations.CannotChange, match="division by zero"),
        migrations.changing(Address(url)) as connection,
    ):
        migrations.migrate(connection, later)
    assert (office(url), tables(admin)) == before


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DROP TABLE office", "`python -m catalog init` makes one"),
        ("UPDATE office SET schema_version = schema_version + 1", f"version {VERSION + 1}"),
    ],
)
def test_what_cannot_be_migrated_stays_as_it_is(
    settings: CatalogSettings,
    admin: psycopg.Connection[Any],
    capsys: pytest.CaptureFixture[str],
    statement: str,
    why: str,
) -> None:
    commands.run_init(settings)
    admin.execute(statement)
    assert commands.run_migrate(settings) == 1
    told = capsys.readouterr().err
    assert told.startswith("migrate: nothing was done: ")
    assert why in told


def test_a_migration_in_doubt_is_told_as_such(
    settings: CatalogSettings,
    postgres: PostgresServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migrations, "_COMMIT_S", 0.2)
    postgres.set("synchronous_standby_names", "nobody")
    try:
        assert commands.run_init(settings) == 1
    finally:
        postgres.set("synchronous_standby_names", "")
    assert "init: it may have been done, run it again to see: " in capsys.readouterr().err
    assert commands.run_init(settings) == 1
    assert "the database is not empty" in capsys.readouterr().err


# ------------------------------------------------------------------ restore


@pytest.fixture
def lost(tmp_path: Path) -> tuple[list[Order], Any]:
    """The journal of a catalog on SQLite, and all of its content."""
    (tmp_path / "lost").mkdir()
    found = content(write_catalog(tmp_path / "lost" / "data"))
    return found[1], found


def test_order_logs_are_restored_into_it(
    settings: CatalogSettings,
    url: str,
    lost: tuple[list[Order], Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    orders, (stocks, journal, _) = lost
    cluster_id = str(uuid.uuid4())
    log = write_log(tmp_path, "log", orders, cluster_id)
    assert restore.run(settings, [log], None) == 0
    told = capsys.readouterr().out
    assert told == f"last number {len(orders)}, digest {orders[-1].digest.hex()}\n"
    with active_on(Address(url), lambda: NOW_S) as store:
        assert (store.stocks(), store.journal(0), store.cluster_id) == (stocks, journal, cluster_id)
        epoch, leader_id = store.registered()
        assert (epoch > orders[-1].epoch + 1_000, leader_id) == (True, 0)
        store.fence(epoch + 1, 1)
        done_before = {order.request_id for order in orders}
        repeats = [trade for trade in trades(300) if trade.request_id in done_before]
        decisions = store.update(epoch + 1, [*repeats, sell("later")])
    assert [one.number for one in decisions] == list(range(1, len(orders) + 2))
    assert [one.replayed for one in decisions] == [True] * len(orders) + [False]
    assert not list(settings.data_dir.glob("*.db"))


def test_nothing_is_restored_over_what_is_there(
    settings: CatalogSettings,
    url: str,
    lost: tuple[list[Order], Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands.run_init(settings)
    assert restore.run(settings, [write_log(tmp_path, "log", lost[0])], None) == 1
    assert "nothing was restored: the database is not empty" in capsys.readouterr().err
    with active_on(Address(url), lambda: NOW_S) as store:
        assert store.journal(0) == []


def test_logs_that_do_not_follow_from_the_stocks_leave_it_empty(
    settings: CatalogSettings,
    lost: tuple[list[Order], Any],
    tmp_path: Path,
    admin: psycopg.Connection[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings.stocks_file.write_text("stockname,price,currvol\nstock1,1,0\n")
    assert restore.run(settings, [write_log(tmp_path, "log", lost[0])], None) == 1
    assert "does not follow from the stocks" in capsys.readouterr().err
    assert tables(admin) == []


# ---------------------------------------------------------------- the rest


def test_backup_names_the_tools_of_the_database(
    settings: CatalogSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    output = io.BytesIO()
    assert backup.run(settings, output) == 1
    assert "pg_dump" in capsys.readouterr().err
    assert output.getvalue() == b""


def test_the_password_is_read_from_its_file_at_each_connection(url: str, tmp_path: Path) -> None:
    """The server here takes anybody, so this only shows that the file is read."""
    file = tmp_path / "password"
    address = Address(url, str(file))
    with pytest.raises(migrations.CannotChange, match="No such file"), migrations.changing(address):
        pass
    file.write_text("secret\n")
    with migrations.changing(address) as connection:
        assert connection.info.password == "secret"  # noqa: S105 - no secret
    assert "secret" not in repr(address)


def test_the_commands_are_part_of_the_catalog(settings: CatalogSettings) -> None:
    for command, url, said in (
        ("init", "", "init: DATABASE_URL is not set"),
        ("init", settings.database_url, ""),
        ("migrate", settings.database_url, ""),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "catalog", command],
            cwd=ROOT,
            env={"PATH": "", "DATABASE_URL": url, "STOCKS_FILE": str(settings.stocks_file)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == bool(said), done.stderr
        assert done.stderr.startswith(said)
