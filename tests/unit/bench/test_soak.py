"""The soak: its rule, what it reads of containers, and what it writes."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.copies.model import with_port
from bench.soak import inside
from bench.soak import promises as promises_module
from bench.soak.flatness import Level, growths, kind_of, levels, warm_up_s
from bench.soak.load import Load
from bench.soak.promises import Promises, under_faults
from bench.soak.report import Results, as_text, draw, verdicts
from bench.soak.sampler import in_mib, memory
from bench.soak.samples import AFTER, FAULTS, STEADY, Moment, Sample, written

MIB = 2**20
STEADY_S = 3600.0
EVERY_S = 10
CALM = {"memory_mib": 40.0, "files": 30, "threads": 20, "wal_mib": 4.0}

Course = Callable[[float], float]  # seconds → value


def run_of(
    container: str = "order-1", after: dict[str, float] | None = None, **courses: Course
) -> list[Sample]:
    """An hour, three minutes of faults and two minutes after. What has no course stays."""

    def phases() -> Iterator[tuple[str, int]]:
        for at_s in range(0, 3600 + 180 + 120, EVERY_S):
            yield STEADY if at_s < 3600 else FAULTS if at_s < 3780 else AFTER, at_s

    samples = []
    for phase, at_s in phases():
        values = {**CALM, **{name: course(at_s) for name, course in courses.items()}}
        if phase == AFTER:
            values |= after or {}
        samples.append(Sample(Moment(at_s, phase, 20 * at_s), container, values))
    return samples


def one(samples: list[Sample], measure: str, container: str = "order-1") -> Level:
    [found] = [
        level
        for level in levels(samples, STEADY_S)
        if (level.measure, level.container) == (measure, container)
    ]
    return found


def test_ten_minutes_of_an_hour_are_for_warming_up() -> None:
    assert warm_up_s(3600) == 600
    assert warm_up_s(86_400) == 600
    assert warm_up_s(60) == 10


@pytest.mark.parametrize(
    ("course", "is_flat"),
    [
        (lambda _: 40.0, True),
        (lambda at_s: 40.0 if at_s >= 600 else at_s / 15, True),  # it only grew at first
        (lambda at_s: 40.0 + 3.9 * (at_s > 3000), True),  # within a tenth
        (lambda at_s: 40.0 + 4.1 * (at_s > 3000), False),
        (lambda at_s: 40.0 + at_s / 600, True),  # 4.5 MiB in 45 minutes, 3.4 of them between
        (lambda at_s: 40.0 + at_s / 300, False),
        (lambda at_s: 40.0 + 30 * (at_s % 40 < 10), True),  # a health check every now and then
        (lambda at_s: 40.0 - at_s / 300, True),  # less is no growth
    ],
)
def test_flat_is_a_last_quarter_hardly_above_the_first(course: Course, is_flat: bool) -> None:
    assert one(run_of(memory_mib=course), "memory_mib").is_flat is is_flat


def test_a_few_more_of_a_few_are_no_growth() -> None:
    assert one(run_of(files=lambda at_s: 10 + 8 * (at_s > 2000)), "files").is_flat
    assert not one(run_of(files=lambda at_s: 10 + 9 * (at_s > 2000)), "files").is_flat


def test_a_measure_that_was_not_sampled_is_not_flat() -> None:
    blind = [Sample(sample.moment, "edge", {"memory_mib": 1.0}) for sample in run_of()]
    assert one(blind, "memory_mib", "edge").is_flat
    assert not one(blind, "threads", "edge").is_flat
    assert not [level for level in levels(blind, STEADY_S) if level.measure == "wal_mib"]


def test_what_comes_in_the_faults_does_not_count_and_must_be_gone_after_them() -> None:
    def spiking(at_s: float) -> float:
        return 400.0 if 3600 <= at_s < 3780 else 40.0

    spike = one(run_of(memory_mib=spiking), "memory_mib")
    assert (spike.is_flat, spike.is_back) == (True, True)
    stays = one(run_of(after={"memory_mib": 45.0}), "memory_mib")
    assert (stays.is_flat, stays.is_back) == (True, False)


def test_a_new_leader_is_compared_with_the_old_one() -> None:
    was_leader = run_of("order-3", threads=lambda _: 40, after={"threads": 20})
    leads_now = run_of("order-1", threads=lambda _: 20, after={"threads": 40})
    assert one([*was_leader, *leads_now], "threads", "order-1").is_back
    assert not one(leads_now, "threads", "order-1").is_back
    assert [kind_of(name) for name in ("order-3", "frontend-12", "edge")] == [
        "order",
        "frontend",
        "edge",
    ]


def test_databases_are_told_in_bytes_for_each_trade() -> None:
    samples = run_of(database_mib=lambda at_s: 1 + 20 * at_s * 512 / MIB, text_mib=lambda _: 0)
    [growth] = growths(samples, STEADY_S)
    assert (growth.measure, growth.container) == ("database_mib", "order-1")
    assert growth.bytes_per_trade == pytest.approx(512)


def test_the_report_tells_what_is_wrong(tmp_path: Path) -> None:
    results = Results(STEADY_S, run_of(), promises="G1 held\n", load="steady load: 9 x 200")
    assert verdicts(results) == []
    assert as_text(results).endswith("Everything stayed flat, and every promise held.")
    results.samples = run_of(threads=lambda at_s: 20 + at_s / 60)
    results.problems.append("edge crashed 1 times under the steady load")
    text = as_text(results)
    assert "WRONG: threads: order-1: NOT FLAT, NOT BACK" in text
    assert text.endswith("WRONG: edge crashed 1 times under the steady load")
    assert "G1 held" in text
    draw(results, tmp_path / "soak.png", "an hour")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("code", "is_well"), [(0, True), (1, False), (2, False), (130, False)])
def test_only_promises_that_all_held_are_no_problem(code: int, is_well: bool) -> None:
    assert (Promises("", code).problem is None) is is_well


def faults_program(path: Path, text: str) -> str:
    """Stands in for the Python that runs `python -m faults`."""
    path.write_text(f"#!{sys.executable}\n{text}", "utf-8")
    path.chmod(0o755)
    return str(path)


def break_it(out: Path, watch: Callable[[], None]) -> Promises:
    return under_faults("p", seconds=20, clients=8, rate=60, seed=1, out=out, watch=watch)


def test_the_verdicts_of_the_faults_are_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = faults_program(tmp_path / "python", "import sys; print(*sys.argv[1:]); sys.exit(1)")
    monkeypatch.setattr(promises_module.sys, "executable", program)
    found = break_it(tmp_path / "out", lambda: None)
    assert found.text.startswith(
        "-m faults run --project p --for 20 --rate 60 --clients 8 --seed 1"
    )
    assert found.exit_code == 1


def test_an_interrupt_has_the_faults_give_up_and_heal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one only ends their load early."""
    program = faults_program(
        tmp_path / "python",
        """
import signal, sys
seen = []
def note(*_):
    seen.append(1)
    print(f"interrupt {len(seen)}", flush=True)
    if len(seen) == 2:
        sys.exit(130)
signal.signal(signal.SIGINT, note)
print("ready", flush=True)
while True:
    signal.pause()
""",
    )
    monkeypatch.setattr(promises_module.sys, "executable", program)
    said = tmp_path / "out" / "verdict.txt"

    def interrupt_once_it_runs() -> None:
        if said.read_text("utf-8"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_it(tmp_path / "out", interrupt_once_it_runs)
    assert said.read_text("utf-8").splitlines() == ["ready", "interrupt 1", "interrupt 2"]


def test_pages_of_files_do_not_count_as_memory() -> None:
    files = {"active_file": 3 * MIB, "inactive_file": 2 * MIB}
    assert memory({"memory_stats": {"usage": 9 * MIB, "stats": files}}) == {"memory_mib": 4}
    # cgroup v1: its own counters leave the groups below out
    of_all = {f"total_{name}": size + MIB for name, size in files.items()}
    v1 = {"memory_stats": {"usage": 9 * MIB, "stats": {**files, **of_all}}}
    assert memory(v1) == {"memory_mib": 2}
    assert memory({"memory_stats": {}}) == {}, "a container that is down"


def test_sizes_are_told_in_mib() -> None:
    sizes = {"wal_bytes": 4 * MIB, "text_bytes": 0}
    assert in_mib(sizes) == {"wal_mib": 4, "text_mib": 0}


def process(root: Path, number: int, cgroup: str, files: int, threads: int) -> None:
    for part, count in (("fd", files), ("task", threads)):
        (root / str(number) / part).mkdir(parents=True)
        for entry in range(count):
            (root / str(number) / part / str(entry)).touch()
    (root / str(number) / "cgroup").write_text(cgroup, "utf-8")


def test_all_processes_of_a_container_count_and_no_others(tmp_path: Path) -> None:
    first, second, other = ("a" * 64, "b" * 64, "c" * 64)
    process(tmp_path, 7, f"8:pids:/docker/{first}\n0::/docker/{first}\n", 3, 2)  # v1
    process(tmp_path, 8, f"8:pids:/docker/{first}\n", 1, 1)
    process(tmp_path, 9, f"0::/../docker-{second}.scope\n", 5, 4)  # v2, seen from a container
    process(tmp_path, 10, f"0::/docker/{other}\n", 100, 100)
    process(tmp_path, 11, "0::/init.scope\n", 100, 100)
    (tmp_path / "12").mkdir()  # it has just ended
    (tmp_path / "meminfo").touch()
    assert inside.counts({first, second}, tmp_path) == {
        first: {"files": 4, "threads": 3},
        second: {"files": 5, "threads": 4},
    }


def test_files_of_a_volume_are_told_by_kind(tmp_path: Path) -> None:
    for name, size in (
        ("orders.db", 100),
        ("orders.db-wal", 20),
        ("orders.db-shm", 7),
        ("stockOrderDB.txt", 3),
    ):
        (tmp_path / "order-1").mkdir(exist_ok=True)
        (tmp_path / "order-1" / name).write_bytes(b"x" * size)
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "catalog.db").symlink_to("gone")
    assert inside.sizes(tmp_path) == {
        "order-1": {"database_bytes": 100, "wal_bytes": 20, "text_bytes": 3},
        "catalog": {"database_bytes": 0, "wal_bytes": 0, "text_bytes": 0},
    }


def test_each_sample_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "soak.csv"
    with written(path) as write:
        write(Sample(Moment(5.04, STEADY, 100), "redis", {"files": 12, "memory_mib": 4.25}))
        # At once: whoever stops a long run has what was sampled.
        lines = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    [line] = lines
    assert line | {"at_s": "5.0", "phase": "steady", "trades": "100"} == line
    assert (line["container"], line["files"], line["memory_mib"]) == ("redis", "12", "4.25")
    assert line["wal_mib"] == ""


def test_a_steady_load_without_a_service_counts_what_failed() -> None:
    load = Load("http://127.0.0.1:9", clients=2, rate=400, stocks=2, seed=1)
    load.run(0.1, lambda: None)
    assert load.answers.keys() == {"NoAnswer"}
    assert load.trades == 0
    load.close()


def test_the_edge_can_have_a_port_that_stays() -> None:
    model = {"services": {"edge": {"ports": [{"published": "0", "target": 26111}]}}}
    assert with_port(model, 20_001)["services"]["edge"]["ports"] == [
        {"published": "20001", "target": 26111}
    ]
    assert model["services"]["edge"]["ports"][0]["published"] == "0"


@pytest.mark.parametrize("words", [["--for", "1"], ["--rate", "x"], ["--faults", "3"], ["now"]])
def test_wrong_arguments_are_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["soak", *words])
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_it_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["soak", "--help"])
    assert ended.value.code == 0
    assert "--seed" in capsys.readouterr().out
