"""The nemesis with a fake stack: what it records, and that it always heals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from faults import nemesis as module
from faults import recovery
from faults.breakages import Breakage
from faults.history import Fault
from faults.nemesis import Nemesis, heal_all
from faults.recovery import Eyes
from faults.schedule import Strike
from stack.observations import Observation, Position, in_sync
from stack.offices import ACTIVE, PRIMARY, STANDBY
from stack.parts import ORDER_SERVICES, StackError
from tests.unit.faults.histories import HA_PARTS, PARTS


def seen(
    leader: int = 3, epoch: int = 1, last: int = 5, in_sync: tuple[int, ...] = (1, 2, 3)
) -> Observation:
    said = {
        name: Position(
            "leader" if place == leader else "follower", epoch, leader, last, "ab", in_sync
        )
        for place, name in enumerate(ORDER_SERVICES, start=1)
    }
    now_ns = time.monotonic_ns()
    return Observation(now_ns, now_ns, said)


class World:
    """A fake stack, which only records what is broken."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.steps: list[Fault] = []
        self.said: list[str] = []
        self.observed: Callable[[], Observation | None] = seen
        self.is_ready = True
        self.is_checked = True  # whether the frontends pass their health checks
        self.refuses: set[str] = set()
        self.sent_to: list[str] = []
        self.parts: tuple[str, ...] = PARTS
        self.holders: dict[str, str] = {}
        self.is_whole = True  # the database

    def strike(self, service: str) -> None:
        if service in self.refuses:
            raise StackError(f"{service} refuses")
        self.broken.add(service)

    def heal(self, service: str) -> None:
        self.broken.discard(service)

    @contextmanager
    def orphans(self, service: str) -> Iterator[Callable[[], None]]:
        yield lambda: self.sent_to.append(service)

    def nemesis(self) -> Nemesis:
        done = Breakage(self.strike, self.heal)
        passing = Breakage(self.strike, self.heal, impairs=False)
        eyes = Eyes(
            lambda: self.observed(),  # noqa: PLW0108 - looked up anew, as tests change it
            lambda: self.is_ready,
            lambda service: service not in self.broken,
            lambda service: service not in self.broken and self.is_checked,
            lambda service: service not in self.broken,
            self.orphans,
            lambda: self.holders,
            lambda: self.holders.get(PRIMARY),
            lambda: self.is_whole,
        )
        kinds = {"kill": done, "pause": done, "rolling": done, "zombie": done, "flush": passing}
        return Nemesis(self.parts, kinds, eyes, self.steps.append, self.said.append)

    def play(self, *strikes: Strike) -> tuple[str, ...]:
        return self.nemesis().run(strikes, threading.Event())


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_READY_FOR_S", 0.02)
    monkeypatch.setattr(recovery, "_KNOWN_AFTER_S", 0.03)
    monkeypatch.setattr(recovery, "_WHOLE_FOR_S", 0.03)
    monkeypatch.setattr(recovery, "_POLL_S", 0.001)
    monkeypatch.setattr(recovery, "_RECOVERED_WITHIN_S", 0.2)
    monkeypatch.setattr(recovery, "_NODE_RECOVERED_WITHIN_S", 0.3)
    monkeypatch.setattr(module, "_POLL_S", 0.001)
    monkeypatch.setattr(module, "_PROMOTED_WITHIN_S", 0.2)
    monkeypatch.setattr(module, "_SUCCESSOR_WITHIN_S", 0.2)


def test_the_steps_of_a_fault() -> None:
    world = World()
    assert world.play(Strike(0, "kill", "leader", 0.01)) == ()
    assert [one.step for one in world.steps] == [
        "begin",
        "broken",
        "healing",
        "healed",
        "recovered",
    ]
    assert {(one.id, one.hits, one.impairs) for one in world.steps} == {
        (1, ("order-3",), ("order-3",))
    }
    assert [one.at_ns for one in world.steps] == sorted(one.at_ns for one in world.steps)
    assert world.broken == set()


def test_redis_is_hit_and_impairs_nobody() -> None:
    world = World()
    world.play(Strike(0, "kill", "redis", 0.01), Strike(0.1, "flush", "redis", 0.01))
    assert {(one.fault, one.hits, one.impairs) for one in world.steps} == {
        ("kill", ("redis",), ()),
        ("flush", ("redis",), ()),
    }


def test_a_paused_leader_is_resumed_after_another_has_committed() -> None:
    world = World()
    answers = iter([seen(), seen(), *[seen(2, 2, 5)] * 5, seen(2, 2, 6)])
    last: list[Observation] = []

    def observed() -> Observation:
        last[:] = [next(answers, None) or seen(2, 2, 6)]
        return last[0]

    world.observed = observed
    world.play(Strike(0, "pause", "leader", 0.0))
    [healing] = [one for one in world.steps if one.step == "healing"]
    assert healing.detail == "another leader had committed"
    assert world.sent_to == ["order-3"]


def test_a_leader_without_a_successor_is_resumed_all_the_same() -> None:
    world = World()
    world.play(Strike(0, "pause", "leader", 0.0))
    [healing] = [one for one in world.steps if one.step == "healing"]
    assert healing.detail == "no other leader committed meanwhile"
    assert world.broken == set()


def test_what_one_fault_has_in_its_hand_no_other_strikes() -> None:
    world = World()
    world.play(Strike(0, "kill", "order-1", 0.2), Strike(0.05, "kill", "all", 0.01))
    assert {one.hits for one in world.steps} == {("order-1",)}
    assert any("skipped: order-1" in line for line in world.said)


def test_a_rolling_restart_is_a_fault_of_each_service() -> None:
    world = World()
    world.play(Strike(0, "rolling", "all", 5))
    begun = [one for one in world.steps if one.step == "begin"]
    assert [one.hits for one in begun] == [(part,) for part in PARTS]
    assert len({one.id for one in begun}) == len(PARTS)
    ended = {one.id: one.at_ns for one in world.steps if one.step == "recovered"}
    assert all(ended[one.id] < later.at_ns for one, later in pairwise(begun))


def test_a_strike_that_fails_is_told_and_healed() -> None:
    world = World()
    world.refuses = {"order-2"}
    problems = world.play(Strike(0, "kill", "two", 5))
    assert problems == ("kill:two: order-2 refuses",)
    assert [one.step for one in world.steps] == ["begin", "failed", "healed", "recovered"]
    assert world.broken == set()


def test_what_does_not_recover_is_told() -> None:
    world = World()
    world.is_ready = False
    problems = world.play(Strike(0, "kill", "catalog", 0.0))
    assert problems == ("kill:catalog: catalog did not recover in 0.2 s",)
    assert world.steps[-1].step == "failed"


def test_a_frontend_recovers_when_it_passes_its_own_check() -> None:
    """A request through the edge proves nothing: another frontend may answer it."""
    world = World()
    world.is_checked = False
    problems = world.play(Strike(0, "kill", "frontend", 0.0))
    assert problems == ("kill:frontend: frontend-1 did not recover in 0.2 s",)
    world.is_checked = True
    assert world.play(Strike(0, "kill", "frontend-2", 0.0)) == ()


def test_only_the_frontends_are_restarted_one_after_the_other() -> None:
    world = World()
    world.play(Strike(0, "rolling", "frontends", 5))
    begun = [one for one in world.steps if one.step == "begin"]
    assert [one.hits for one in begun] == [("frontend-1",), ("frontend-2",)]


class HaWorld(World):
    """The same with the parts of compose.ha.yaml."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = HA_PARTS
        self.holders = {ACTIVE: "catalog-2", PRIMARY: "postgres-3", STANDBY: "postgres-1"}


@pytest.mark.parametrize(
    ("office", "part"),
    [(ACTIVE, "catalog-2"), (PRIMARY, "postgres-3"), (STANDBY, "postgres-1")],
)
def test_who_holds_an_office_is_asked_when_the_fault_begins(office: str, part: str) -> None:
    world = HaWorld()
    holders, world.holders = world.holders, {}
    nemesis = world.nemesis()
    world.holders = holders  # later than the nemesis was made
    assert nemesis.run([Strike(0, "kill", office, 0.01)], threading.Event()) == ()
    assert {(one.target, one.hits, tuple(one.offices.items())) for one in world.steps} == {
        (office, (part,), ((office, part),))
    }
    assert f"kill:{office} strikes {part} ({office})" in world.said
    assert world.broken == set()


def test_an_office_that_nobody_holds_is_not_struck() -> None:
    world = HaWorld()
    del world.holders[PRIMARY]
    assert world.play(Strike(0, "kill", PRIMARY, 0.01)) == ()
    assert world.steps == []
    assert any("nobody is postgres-primary" in line for line in world.said)


def test_the_offices_on_a_machine_are_recorded() -> None:
    world = HaWorld()
    world.play(Strike(0, "kill", "machine-1", 0.01))
    begin = world.steps[0]
    assert set(begin.hits) == {"order-1", "frontend-1", "catalog", "postgres-1", "etcd-1"}
    assert begin.offices == {STANDBY: "postgres-1"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("postgres-1", "postgres-2"),
        ("postgres-1", "etcd-2"),
        ("catalog", "catalog-2"),
        ("etcd-3", "machine-1"),
        ("machine-1", "machine-2"),
    ],
)
def test_a_second_node_is_broken_only_when_the_first_one_serves_again(
    first: str, second: str
) -> None:
    world = HaWorld()
    world.play(Strike(0, "kill", first, 0.1), Strike(0.05, "kill", second, 0.01))
    assert {one.target for one in world.steps} == {first}
    assert any(f"kill:{second} skipped: the " in line for line in world.said)


def test_a_zombie_is_resumed_when_another_is_the_primary() -> None:
    world = HaWorld()
    threading.Timer(0.05, world.holders.update, [{PRIMARY: "postgres-1"}]).start()
    assert world.play(Strike(0, "zombie", PRIMARY, 0.0)) == ()
    [healing] = [one for one in world.steps if one.step == "healing"]
    assert (healing.hits, healing.detail) == (("postgres-3",), "another was the primary")
    assert healing.at_ns - world.steps[0].at_ns > 0.04e9


def test_a_zombie_that_nobody_replaces_is_told_and_healed() -> None:
    world = HaWorld()
    [problem] = world.play(Strike(0, "zombie", PRIMARY, 0.0))
    assert "another node is promoted" in problem
    assert world.broken == set()


def test_a_node_recovers_when_the_database_is_whole() -> None:
    """A request can be answered long before: by the others."""
    world = HaWorld()
    world.is_whole = False
    problems = world.play(Strike(0, "kill", "postgres-2", 0.0))
    assert problems == ("kill:postgres-2: postgres-2 did not recover in 0.3 s",)


def test_a_catalog_recovers_when_it_passes_its_own_check() -> None:
    world = HaWorld()
    world.is_checked = False
    problems = world.play(Strike(0, "kill", "catalog", 0.0))
    assert problems == ("kill:catalog: catalog did not recover in 0.2 s",)


def test_who_gives_up_waits_for_no_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_RECOVERED_WITHIN_S", 60.0)
    world = World()
    world.is_ready = False
    nemesis = world.nemesis()
    threading.Timer(0.1, nemesis.give_up).start()
    began_s = time.monotonic()
    problems = nemesis.run([Strike(0, "kill", "catalog", 0.0)], threading.Event())
    assert time.monotonic() - began_s < 30
    assert problems == ("kill:catalog: nobody waited for catalog to recover",)
    assert world.broken == set()


def test_stopping_heals_at_once() -> None:
    world = World()
    stopping = threading.Event()
    threading.Timer(0.05, stopping.set).start()
    began_s = time.monotonic()
    strikes = (Strike(0, "kill", "order-1", 60), Strike(30, "kill", "order-2", 60))
    world.nemesis().run(strikes, stopping)
    assert time.monotonic() - began_s < 30
    assert world.broken == set()
    assert {one.hits for one in world.steps} == {("order-1",)}


@pytest.mark.parametrize(
    ("observation", "is_so"),
    [
        (seen(leader=3), True),
        (seen(leader=1), True),
        (seen(leader=1, in_sync=(2, 3)), True),
        (seen(leader=2, in_sync=(3,)), False),
        (seen(leader=0), True),
        (Observation(0, 0, {}), False),
    ],
)
def test_in_sync(observation: Observation, is_so: bool) -> None:
    assert in_sync(observation, "order-1") is is_so


def test_healing_goes_on_past_what_fails() -> None:
    healed: list[str] = []

    def fail() -> None:
        raise StackError("gone")

    problems = heal_all([("a", fail), ("b", lambda: healed.append("b"))], healed.append)
    assert problems == ("a: gone",)
    assert healed == ["problem: a: gone", "b"]
