"""What the tools make of two catalogs and three database nodes; nothing runs here."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from bench import failover, failover_report
from bench.failover import Failover, FailoverResults, FailoverSettings, Kind, Strikes
from bench.ha import stores_report, takeover
from bench.ha.stores import (
    CONNECTIONS,
    Case,
    Part,
    Point,
    Store,
    StoresResults,
    StoresSettings,
    parts_behind,
)
from bench.ha.takeover import (
    CATALOG_KILLED,
    CATALOG_PAUSED,
    NODE_KILLED,
    NODE_PAUSED,
    PROCESS_KILLED,
    breaking_of,
)
from bench.measuring.wrk import Measured, Wrk
from stack.containers import Containers
from stack.offices import ACTIVE, PRIMARY, STANDBY, STANDBY_CATALOG
from tests.unit.bench.test_reports import row, rows

HOLDERS = {
    ACTIVE: "catalog-2",
    STANDBY_CATALOG: "catalog",
    PRIMARY: "postgres-3",
    STANDBY: "postgres-1",
}
# Requests a second, and what the leader and the primary take of the processor for each, in ms.
SPEEDS = {
    (Case.TRADE, Store.SQLITE): (1000, {Part.LEADER: 1.0}),
    (Case.TRADE, Store.POSTGRES): (800, {Part.LEADER: 1.0, Part.PRIMARY: 0.5}),
    (Case.CACHED, Store.SQLITE): (2000, {Part.LEADER: 0.1}),
    (Case.CACHED, Store.POSTGRES): (2200, {Part.LEADER: 0.1, Part.PRIMARY: 0.1}),
}


def measured() -> StoresResults:
    results = StoresResults(cores=2)
    for connections in CONNECTIONS:
        for (case, store), (per_s, parts_ms) in SPEEDS.items():
            for share in (1.0, 0.5):  # the second round on a busy machine
                one = Measured(round(per_s * share), 1.0, 1.0, 4.0, 9.0, 20.0)
                took_s = {part: ms * one.requests / 1000 for part, ms in parts_ms.items()}
                results.points.add(
                    Point(case, store, connections), replace(one, processor_s=took_s)
                )
    results.idle_s[Store.SQLITE] = {Part.LEADER: 0.02}
    results.idle_s[Store.POSTGRES] = {Part.LEADER: 0.02, Part.ETCD: 0.18}
    results.memory_mib[Store.SQLITE] = {"catalog": 30.0}
    results.memory_mib[Store.POSTGRES] = {"catalog": 31.0, "etcd-1": 25.0}
    return results


def test_both_stores_are_told_side_by_side() -> None:
    text = stores_report.as_text(measured())
    rates = rows(text, "trade", "32")[0]
    assert rates[0] == "750 (625 to 875)"
    assert rates[2] == "600 (500 to 700)"
    assert [rates[4], rates[6]] == ["0.80 (0.80 to 0.80)", "1.00 (1.00 to 1.00)"]
    assert row(text, "trade", "8", "PostgreSQL") == ["1.50 (1.50 to 1.50)", "1.00", "0.50"]
    assert row(text, "PostgreSQL") == ["200", "20", "180"]
    assert row(text, "etcd-1") == ["25"]


def test_rates_are_compared_as_if_each_store_had_the_machine_alone() -> None:
    """On two cores, a tenth was taken from SQLite's, and a hundredth from PostgreSQL's."""
    results = measured()
    assert results.set_off == pytest.approx(0.9 / 0.99)
    assert rows(stores_report.as_text(results), "trade", "32")[0][5].startswith("0.73 ")
    judged = {one.target.what: one for one in stores_report.verdicts(results)}
    trade = judged["trade, 32 connections: rate alone"]
    assert trade.measured == pytest.approx(0.8 * 0.9 / 0.99)
    assert not trade.is_met
    assert judged["cached lookup, 16 connections: rate alone"].is_met
    assert not any("uncached" in what for what in judged), "it was not measured"


def test_the_json_has_all_of_it() -> None:
    results = measured()
    results.problems.append("3 requests ended in an error: status")
    said = json.loads(json.dumps(stores_report.as_json(results)))
    assert len(said["points"]) == 4 * len(CONNECTIONS)
    assert len(said["of_sqlite"]) == 2 * len(CONNECTIONS)
    assert said["of_sqlite"][0]["processor"]["median"] == 1.5
    assert said["idle_processor_s_per_s"]["PostgreSQL"] == {"leader": 0.02, "etcd": 0.18}
    assert said["problems"] == results.problems
    assert stores_report.as_text(results).endswith("PROBLEM: 3 requests ended in an error: status")


def test_what_was_asked_for_is_measured() -> None:
    assert StoresSettings(["uncached", "trade"], 1, 1).cases == [Case.TRADE, Case.UNCACHED]


def test_each_part_is_told_by_what_it_does() -> None:
    on_sqlite = parts_behind("order-2", {})
    assert on_sqlite[Part.FOLLOWERS] == ("order-1", "order-3")
    assert Part.PRIMARY not in on_sqlite
    on_postgres = parts_behind("order-2", HOLDERS)
    assert on_postgres[Part.CATALOG] == ("catalog-2",)
    assert on_postgres[Part.STANDBY] == ("postgres-2",)
    assert len(on_postgres[Part.ETCD]) == 3


class Broken:
    """Containers that only note what is done to them."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def kill(self, name: str) -> None:
        self.done.append(f"kill {name}")

    def start(self, name: str) -> None:
        self.done.append(f"start {name}")

    def pause(self, name: str) -> None:
        self.done.append(f"pause {name}")

    def unpause(self, name: str) -> None:
        self.done.append(f"unpause {name}")

    def execute(self, name: str, *command: str) -> None:
        self.done.append(f"{command[-1].partition('$')[0]}in {name}")


@pytest.mark.parametrize(
    ("kind", "struck", "done"),
    [
        (CATALOG_KILLED, "catalog-2", ["kill catalog-2", "start catalog-2"]),
        (CATALOG_PAUSED, "catalog-2", ["pause catalog-2", "unpause catalog-2"]),
        (PROCESS_KILLED, "postgres-3", ["kill -9 in postgres-3"]),
        (NODE_KILLED, "postgres-3", ["kill postgres-3", "start postgres-3"]),
        (NODE_PAUSED, "postgres-3", ["pause postgres-3", "unpause postgres-3"]),
    ],
)
def test_whoever_holds_the_office_is_struck(kind: Kind, struck: str, done: list[str]) -> None:
    containers = Broken()
    service, broken = breaking_of(kind, cast(Containers, containers), HOLDERS)
    assert (service, containers.done) == (struck, [])
    with broken:
        assert containers.done == done[:1]
    assert containers.done == done


class Slow:
    """Offices that come back one after the other; `looks` tells how often somebody has looked."""

    def __init__(self, containers: object) -> None:
        self.looks = 0

    def holders(self) -> dict[str, str]:
        self.looks += 1
        return {office: HOLDERS[office] for office in list(HOLDERS)[: self.looks]}

    def database_is_whole(self) -> bool:
        return self.looks > 5

    def members(self) -> dict[str, str]:
        return {}


class Unhealthy(Broken):
    def __init__(self, checks: int) -> None:
        super().__init__()
        self.checks = checks  # until all pass

    def passes_its_check(self, name: str) -> bool:
        self.checks -= 1
        return self.checks <= 0


def test_the_next_strike_waits_until_all_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(None)
    monkeypatch.setattr(takeover, "Offices", lambda _containers: slow)
    containers = Unhealthy(checks=3)
    assert takeover.whole(cast(Containers, containers)) == HOLDERS
    assert slow.looks == 8, "six for the nodes, and two more for the second catalog"


class Load:
    """In place of wrk: an answer each 10 ms, 300 ms without one, and some errors."""

    def __init__(self, errors: dict[str, int]) -> None:
        self.errors = errors

    @contextmanager
    def running(self, *_: object) -> Iterator[Load]:
        yield self

    def result(self) -> Measured:
        now_s = time.monotonic()
        answers_s = [now_s + tick / 100 for tick in (*range(-50, 1), *range(30, 400))]
        return Measured(421, 4.5, 1.0, 1.0, 1.0, 1.0, errors=self.errors, answers_s=answers_s)


@pytest.mark.parametrize(
    ("kind", "errors", "is_problem"),
    [
        (CATALOG_KILLED, {}, False),
        (CATALOG_KILLED, {"status": 1}, True),
        (NODE_KILLED, {"status": 32}, False),
        (NODE_KILLED, {"timeout": 1}, True),
    ],
)
def test_503_is_right_while_there_is_no_primary_and_at_no_other_time(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, errors: dict[str, int], is_problem: bool
) -> None:
    monkeypatch.setattr(failover, "next_number", lambda _url: 1)
    monkeypatch.setattr(failover, "looked_up", lambda *_: nullcontext())
    monkeypatch.setattr(failover, "_BEFORE_S", 0.0)
    strikes = Strikes(
        "http://nobody", cast(Wrk, Load(errors)), print, lambda _kind: ("one", nullcontext())
    )
    brief = replace(kind, after_s=3.0)
    results = strikes.run(FailoverSettings({brief: 1}))
    [strike] = results.strikes
    assert strike.gap_s == pytest.approx(0.3, abs=0.02)
    assert strike.refused == sum(errors.values())
    assert bool(results.problems) is is_problem


def taken_over() -> FailoverResults:
    struck = [Failover(CATALOG_KILLED, "catalog", gap_s, 0.02, 500) for gap_s in (1.1, 2.2)]
    return FailoverResults([*struck, Failover(NODE_PAUSED, "postgres-2", 21.0, 0.03, 700, 160)])


def test_each_way_to_take_over_has_its_own_aim() -> None:
    text = failover_report.as_text(taken_over())
    assert row(text, "kill of the active catalog") == ["2", *(["1,100"] * 2), *(["2,200"] * 3)]
    assert row(text, "kill of the active catalog, p99")[-1] == "MISSED"
    assert row(text, "pause of the primary's container, p99")[-1] == "met"
    assert "160 answers were errors" in text
    said = failover_report.as_json(taken_over())["strikes"]
    assert (said[2]["kind"], said[2]["service"], said[2]["refused"]) == (
        *("node-pause", "postgres-2"),
        160,
    )


def test_how_often_each_is_struck() -> None:
    assert takeover.times(catalogs=9, processes=4, nodes=2) == {
        CATALOG_KILLED: 9,
        CATALOG_PAUSED: 9,
        PROCESS_KILLED: 4,
        NODE_KILLED: 2,
        NODE_PAUSED: 2,
    }


def test_pictures_are_drawn(tmp_path: Path) -> None:
    stores_report.draw(measured(), tmp_path / "stores.png", "a subtitle")
    failover_report.draw(taken_over(), tmp_path / "takeover.png", "a subtitle")
    for name in ("stores.png", "takeover.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
