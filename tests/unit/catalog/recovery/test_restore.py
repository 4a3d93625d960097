"""A catalog restored from order logs: the same orders, books and digests, or nothing at all."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from catalog.__main__ import parse_arguments
from catalog.recovery import restore
from catalog.settings import CatalogSettings
from catalog.sqlite.database import Database
from common.domain import EMPTY_DIGEST, Order, next_digest
from order.log.log import OrderLog
from tests.unit.catalog.files import bytes_of, change, content, trades, write_catalog, write_log
from tests.unit.catalog.support import NOW_S, sell, store_on

ROOT = Path(__file__).parents[4]


@pytest.fixture
def lost(tmp_path: Path) -> list[Order]:
    """The journal of a catalog that is gone; what it was filled from is `stocks.txt`."""
    data = write_catalog(tmp_path / "lost")
    orders = content(data)[1]
    shutil.rmtree(data)
    return orders


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(tmp_path: Path, *arguments: str | Path) -> Done:
    """The command, run in this process; into `data`."""
    parsed = parse_arguments(["restore", *map(str, arguments)])
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        code = restore.run(settings_of(tmp_path), parsed.logs, parsed.expect_digest)
    return Done(code, output.getvalue(), errors.getvalue())


def settings_of(tmp_path: Path) -> CatalogSettings:
    return CatalogSettings(
        data_dir=tmp_path / "data", stocks_file=tmp_path / "stocks.txt", _env_file=None
    )


def assert_nothing_restored(tmp_path: Path, why: str, *arguments: str | Path) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert re.search(rf"nothing was restored: .*{why}", done.stderr), done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "data").glob("*")] in ([], ["catalog.lock"])


def forged(orders: Sequence[Order], **changes: object) -> list[Order]:
    """The log of a service in which the last order was another one."""
    changed = replace(orders[-1], **changes)  # type: ignore[arg-type]
    before = orders[-2].digest if len(orders) > 1 else EMPTY_DIGEST
    return [*orders[:-1], replace(changed, digest=next_digest(before, changed))]


def test_everything_but_refusals_is_back(tmp_path: Path, lost: list[Order]) -> None:
    expected = content(write_catalog(tmp_path / "again" / "data"))
    log = write_log(tmp_path, "log", lost)
    before = bytes_of(log.parent)
    done = run(tmp_path, "--log", log)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"last number {len(lost)}, digest {lost[-1].digest.hex()}\n"
    assert "refusals" in done.stderr
    stocks, journal, _ = content(tmp_path / "data")
    assert (stocks, journal) == expected[:2]
    assert bytes_of(log.parent) == before
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"catalog.db", "catalog.lock"}


def test_the_restored_catalog_goes_on_where_the_lost_one_ended(
    tmp_path: Path, lost: list[Order]
) -> None:
    assert run(tmp_path, "--log", write_log(tmp_path, "log", lost)).returncode == 0
    with closing(Database(tmp_path / "data", tmp_path / "stocks.txt")) as database:
        store = store_on(database, lambda: NOW_S)
        epoch, leader_id = store.registered()
        assert leader_id == 0
        store.fence(epoch + 1, 1)
        done_before = {order.request_id for order in lost}
        repeats = [trade for trade in trades(300) if trade.request_id in done_before]
        decisions = store.update(epoch + 1, [*repeats, sell("later")])
    assert [one.number for one in decisions] == list(range(1, len(lost) + 2))
    assert [one.replayed for one in decisions] == [True] * len(lost) + [False]


def test_no_epoch_that_somebody_may_hold_can_be_had_again(
    tmp_path: Path, lost: list[Order]
) -> None:
    """Also not when a catalog is restored twice, with a leader but no order in between."""
    log = write_log(tmp_path, "log", lost)
    epochs = []
    for name in ("one", "two"):
        settings = CatalogSettings(
            data_dir=tmp_path / name, stocks_file=tmp_path / "stocks.txt", _env_file=None
        )
        restore.restore(settings, [log], None, lambda _line: None)
        epochs.append(content(tmp_path / name)[2][0])
    assert epochs[0] != epochs[1]
    assert min(epochs) >= lost[-1].epoch + 1_000_000


def test_the_longest_log_counts_and_the_others_must_be_its_beginnings(
    tmp_path: Path, lost: list[Order]
) -> None:
    names = ("short", "whole", "empty")
    logs = [
        write_log(tmp_path, name, orders)
        for name, orders in zip(names, (lost[:40], lost, []), strict=True)
    ]
    done = run(tmp_path, *(part for log in logs for part in ("--log", log)))
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "data")[1] == lost


def test_a_killed_replicas_last_orders_are_in_its_write_ahead_log(
    tmp_path: Path, lost: list[Order]
) -> None:
    path = tmp_path / "running" / "orders.db"
    path.parent.mkdir()
    with closing(OrderLog(path)) as log:
        log.append(lost)
        killed = shutil.copytree(path.parent, tmp_path / "killed")
    (killed / "orders.db-shm").unlink()
    assert (killed / "orders.db").stat().st_size < (killed / "orders.db-wal").stat().st_size
    before = bytes_of(killed)
    for part in (killed, *killed.iterdir()):
        part.chmod(0o555 if part.is_dir() else 0o444)
    assert run(tmp_path, "--log", killed / "orders.db").returncode == 0
    assert bytes_of(killed) == before
    assert content(tmp_path / "data")[1] == lost


def test_logs_that_contradict_each_other_are_refused(tmp_path: Path, lost: list[Order]) -> None:
    one = write_log(tmp_path, "one", lost)
    other = write_log(tmp_path, "other", forged(lost[:40], request_id="another"))
    why = f"differ: {other} .*, {one} "
    assert_nothing_restored(tmp_path, why, "--log", one, "--log", other)


@pytest.mark.parametrize(("first", "second"), [("one", "one"), ("one", ""), ("", "one")])
def test_the_catalog_is_of_the_cluster_that_the_logs_are_of(
    tmp_path: Path, lost: list[Order], first: str, second: str
) -> None:
    """An earlier version wrote logs without an id."""
    whole = write_log(tmp_path, "whole", lost, first)
    short = write_log(tmp_path, "short", lost[:40], second)
    assert run(tmp_path, "--log", whole, "--log", short).returncode == 0
    with closing(Database(tmp_path / "data", tmp_path / "stocks.txt")) as database:
        assert database.cluster_id == "one"


def test_from_logs_without_an_id_comes_a_new_cluster(tmp_path: Path, lost: list[Order]) -> None:
    log = write_log(tmp_path, "log", lost)
    change(log, "DROP TABLE cluster; PRAGMA user_version = 1")  # as version 1 made it
    assert run(tmp_path, "--log", log).returncode == 0
    with closing(Database(tmp_path / "data", tmp_path / "stocks.txt")) as database:
        assert uuid.UUID(database.cluster_id)


def test_logs_of_two_clusters_are_refused(tmp_path: Path, lost: list[Order]) -> None:
    one = write_log(tmp_path, "one", lost[:40], "this")
    other = write_log(tmp_path, "other", lost, "that")
    why = f"{one} is of cluster this, {other} of cluster that"
    assert_nothing_restored(tmp_path, why, "--log", one, "--log", other)


def test_a_log_with_a_damaged_id_is_left_out(tmp_path: Path, lost: list[Order]) -> None:
    whole = write_log(tmp_path, "whole", lost, "one")
    damaged = write_log(tmp_path, "damaged", lost, "one")
    change(damaged, "UPDATE cluster SET id = 'two'")
    done = run(tmp_path, "--log", damaged, "--log", whole)
    assert done.returncode == 0, done.stderr
    assert "the cluster's id is not the one it had" in str(done.stderr)


def test_a_damaged_log_is_left_out(tmp_path: Path, lost: list[Order]) -> None:
    damaged = write_log(tmp_path, "damaged", lost)
    raw = bytearray(damaged.read_bytes())
    place = raw.index(lost[50].request_id.encode())
    raw[place : place + 3] = b"xyz"
    damaged.write_bytes(raw)
    assert_nothing_restored(tmp_path, "none of the logs is whole", "--log", damaged)
    whole = write_log(tmp_path, "whole", lost[:100])
    done = run(tmp_path, "--log", damaged, "--log", whole)
    assert done.returncode == 0
    assert f"leaving out {damaged}, which is damaged" in done.stderr
    assert content(tmp_path / "data")[1] == lost[:100]


@pytest.mark.parametrize(
    ("stocks", "why"),
    {
        "stock1,25.78,100\nstock2,0.10,50\n": "there is no such stock",
        "stock1,25.78,0\nstock2,0.10,0\nstock10,1.00,0\n": "not possible with stock",
    }.items(),
)
def test_other_stocks_are_refused(tmp_path: Path, lost: list[Order], stocks: str, why: str) -> None:
    (tmp_path / "stocks.txt").write_text("stockname,price,currvol\n" + stocks)
    log = write_log(tmp_path, "log", lost)
    assert_nothing_restored(tmp_path, f"stocks.txt: {why}.* STOCKS_FILE names it", "--log", log)


def test_a_version_that_does_not_follow_is_refused(tmp_path: Path, lost: list[Order]) -> None:
    log = write_log(tmp_path, "log", forged(lost, version=lost[-1].version + 1))
    assert_nothing_restored(tmp_path, "it would give version", "--log", log)


@pytest.mark.parametrize("left", ["catalog.db", "catalog.db-wal", "catalog.db-shm"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, lost: list[Order], left: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / left).write_bytes(b"")
    done = run(tmp_path, "--log", write_log(tmp_path, "log", lost))
    assert done.returncode == 1
    assert f"{left} is there: move it away first" in done.stderr
    assert (tmp_path / "data" / left).read_bytes() == b""
    assert not (tmp_path / "data" / "catalog.db").exists() or left == "catalog.db"


def test_a_running_catalog_is_left_alone(tmp_path: Path, lost: list[Order]) -> None:
    log = write_log(tmp_path, "log", lost)
    with closing(Database(tmp_path / "data", tmp_path / "stocks.txt")):
        done = run(tmp_path, "--log", log)
    assert done.returncode == 1
    assert "another catalog has it open" in done.stderr


def test_the_digest_can_be_demanded(tmp_path: Path, lost: list[Order]) -> None:
    log = write_log(tmp_path, "log", lost)
    wanted = lost[-2].digest.hex()
    why = "its digest is not the expected one"
    assert_nothing_restored(tmp_path, why, "--log", log, "--expect-digest", wanted)
    wanted = lost[-1].digest.hex()
    assert run(tmp_path, "--log", log, "--expect-digest", wanted).returncode == 0


def test_what_is_no_order_log_is_none(tmp_path: Path, lost: list[Order]) -> None:
    catalog = write_catalog(tmp_path / "other" / "data") / "catalog.db"
    text = tmp_path / "stocks.txt"
    for path in (catalog, text):
        assert_nothing_restored(tmp_path, "none of the logs is whole", "--log", path)
    assert_nothing_restored(tmp_path, "No such file", "--log", tmp_path / "nowhere")


def test_a_log_without_orders_gives_the_initial_stocks(tmp_path: Path, lost: list[Order]) -> None:
    done = run(tmp_path, "--log", write_log(tmp_path, "log", []))
    assert done.returncode == 0
    stocks, journal, _ = content(tmp_path / "data")
    assert [(stock.volume, stock.version) for stock in stocks][:2] == [(100, 0), (50, 0)]
    assert journal == []


def test_a_run_that_was_killed_leaves_nothing_behind(tmp_path: Path, lost: list[Order]) -> None:
    data = tmp_path / "data"
    (data / "restore-abc" / "0").mkdir(parents=True)
    (data / "catalog.db.new").write_bytes(b"half of it")
    (data / "catalog.db.new-journal").write_bytes(b"more")
    assert run(tmp_path, "--log", write_log(tmp_path, "log", lost)).returncode == 0
    assert {path.name for path in data.iterdir()} == {"catalog.db", "catalog.lock"}


def test_a_failure_half_way_leaves_no_catalog(
    tmp_path: Path, lost: list[Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = restore._replay

    def fail_at_order_100(*arguments: object) -> None:
        if getattr(arguments[1], "number", 0) == 100:
            raise OSError("no space left on device")
        replay(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(restore, "_replay", fail_at_order_100)
    log = write_log(tmp_path, "log", lost)
    with pytest.raises(OSError, match="no space left"):
        restore.restore(settings_of(tmp_path), [log], None, lambda _line: None)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["catalog.lock"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"), [(["--help"], 0, "--log PATH"), ([], 2, "required: --log")]
)
def test_help_and_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["restore", *arguments])
    assert ended.value.code == code
    assert says in "".join(capsys.readouterr())


def test_the_command_restores(tmp_path: Path, lost: list[Order]) -> None:
    """As a person runs it."""
    command = [sys.executable, "-m", "catalog", "restore", "--log"]
    environment = {"DATA_DIR": str(tmp_path / "data"), "STOCKS_FILE": str(tmp_path / "stocks.txt")}
    subprocess.run(
        [*command, write_log(tmp_path, "log", lost)],
        cwd=ROOT,
        env={"PATH": "", **environment},
        timeout=60,
        check=True,
    )
    assert content(tmp_path / "data")[1] == lost
