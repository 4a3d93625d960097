"""What goes wrong in a simulated world: catalogs, nodes, networks and answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.unit.catalog.postgres.database import Node

if TYPE_CHECKING:
    from tests.unit.catalog.postgres.simulation import Catalog, World


@dataclass(frozen=True)
class Profile:
    """What one kind of history is about.

    Attributes:
        stocks: volume by name.
        begin_s: when the clients begin. One lease after the first term began, stocks are not all
            leased any more.
        trade_pause_s: of a leader, from one batch to the next, on average.
        lookup_pause_s: of a frontend.
        leaders_cut_off: the share of them that do not reach the cache at first.
        frontends_cut_off: the same of frontends.
        hesitation_s: how long a call pauses between its steps, at most.
    """

    begin: Callable[[Faults], None]
    stocks: Mapping[str, int]
    begin_s: float = 0.0
    duration_s: float = 7.0
    trade_pause_s: float = 0.12
    lookup_pause_s: float = 0.06
    leaders_cut_off: float = 0.35
    frontends_cut_off: float = 0.35
    hesitation_s: float = 0.01
    largest_batch: int = 3


class Faults:
    """Breaks things as its profile says. Each fault ends by itself."""

    def __init__(self, world: World, profile: Profile) -> None:
        self._world = world
        self._chance = world.chance
        self._scheduler = world.scheduler
        self._cluster = world.cluster
        self._is_over = False
        self._profile = profile
        self.on_active: Callable[[Catalog], None] = lambda _catalog: None

    def begin(self) -> None:
        for client in self._world.clients:
            if self._chance.random() < client.cut_off:
                self._world.cut_off.add(client)
        self._profile.begin(self)

    def one_after_another(self) -> None:
        """Every second or so."""
        self._scheduler.after(0.2 + 2.0 * self._chance.random(), self._begin_any)

    def _begin_any(self) -> None:
        if not self._is_over:
            self.one_after_another()
            (fault,) = self._chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            fault(self)

    def pauses(self) -> None:
        """The active catalog stands still, for about as long as another takes to take over."""
        if not self._is_over:
            self._later(1.5 + self._chance.random(), self.pauses)
            duration_s = self._chance.choice([0.8, 0.8, 1.7]) * self._chance.uniform(0.8, 1.25)
            for catalog in self._world.catalogs:
                if catalog.is_active:
                    machine = catalog.machine
                    machine.resumes_at_s = self._scheduler.now_s + duration_s

    def doubts(self) -> None:
        """Commits are lost whose effect could be seen, again and again."""
        if not self._is_over:
            self._later(2.0 + self._chance.random(), self._doubt)

    def _doubt(self) -> None:
        self.doubts()
        old = self._cluster.leader

        def trades_wait() -> bool:
            return old.pending is not None and len(old.log[-1].orders) > len(old.shown.orders)

        def let_them_be_seen() -> None:
            old.cancel_wait(0.2 + 0.4 * self._chance.random())

        self._lose_commits(cancels=0, crashes=False)
        self._when(trades_wait, let_them_be_seen)

    def nothing(self) -> None:
        """All is well but for the cache."""

    def _later(self, duration_s: float, action: Callable[[], None]) -> None:
        self._scheduler.after(duration_s, action)

    def _active(self) -> Catalog:
        """The active catalog, most often; else any."""
        active = [one for one in self._world.catalogs if one.is_active]
        most_often = active and self._chance.random() < 0.8
        return self._chance.choice(active if most_often else self._world.catalogs)

    # ------------------------------------------------------------ catalogs

    def pause_catalog(self) -> None:
        machine = self._active().machine
        machine.resumes_at_s = self._scheduler.now_s + self._chance.choice([0.7, 0.9, 1.5, 3.0]) * (
            0.8 + 0.4 * self._chance.random()
        )

    def kill_catalog(self) -> None:
        catalog = self._active()
        catalog.kill()
        self._later(self._chance.random(), lambda: self._restart(catalog))

    def stop_catalog(self) -> None:
        catalog = self._active()
        catalog.is_stopping = True
        self._later(1.0, lambda: self._kill_and_restart(catalog))

    def _kill_and_restart(self, catalog: Catalog) -> None:
        catalog.kill()
        self._restart(catalog)

    def _restart(self, catalog: Catalog) -> None:
        catalogs = self._world.catalogs
        if catalog in catalogs:
            catalogs[catalogs.index(catalog)] = type(catalog)(self._world, catalog.name)

    # ------------------------------------------------------------ networks

    def cut_catalog_off(self) -> None:
        names = (
            self._active().name,
            self._chance.choice([self._cluster.leader, *self._cluster.nodes]).name,
        )
        self._cut(names, 0.3 + 2.0 * self._chance.random())

    def _cut(self, names: tuple[str, str], duration_s: float) -> None:
        pair = frozenset(names)
        self._cluster.cut.add(pair)
        self._later(duration_s, lambda: self._cluster.cut.discard(pair))

    def break_connection(self) -> None:
        for session in self._active().sessions[-1:]:
            session.break_off()

    def delay_answers(self) -> None:
        self._cluster.late_answers = 0.3

        def over() -> None:
            self._cluster.late_answers = 0.0

        self._later(1.0, over)

    def cut_cache_off(self) -> None:
        client = self._chance.choice(self._world.clients)
        self._world.cut_off.symmetric_difference_update({client})

    # ------------------------------------------------------------ nodes

    def pause_node(self) -> None:
        node = self._chance.choice([self._cluster.leader, *self._cluster.nodes])
        node.machine.resumes_at_s = self._scheduler.now_s + 0.3 + 3.0 * self._chance.random()

    def crash_node(self) -> None:
        node = self._chance.choice([self._cluster.leader, *self._cluster.nodes])
        self._cluster.crash(node, 0.1 + 2.5 * self._chance.random())

    def switch_over(self) -> None:
        """The supervisor loses sight of the primary, which goes on."""
        self._cluster.fail_over()

    def lose_commits(self) -> None:
        kind = self._chance.random()
        self._lose_commits(cancels=3 if kind < 0.6 else 0, crashes=kind > 0.8)

    def _lose_commits(self, cancels: int, crashes: bool) -> None:
        """The standby is cut off, and commits wait for it, until it takes over.

        Some waits are cancelled, or the primary starts again. Then the commit can be seen.
        """
        old, standby = self._cluster.leader, self._cluster.leader.standby
        if standby is None:
            return
        self._cluster.is_supervised = False
        pair = frozenset((old.name, standby.name))
        self._cluster.cut.add(pair)
        ends_s = 0.3 + 0.9 * self._chance.random()
        for _ in range(cancels):
            late_s = 0.6 * self._chance.random()
            self._later(ends_s * self._chance.random(), partial(old.cancel_wait, late_s))
        if crashes:
            self._later(ends_s * self._chance.random(), lambda: self._cluster.crash(old, 0.05))

        def take_over() -> None:
            self._cluster.cut.discard(pair)
            self._cluster.is_supervised = True
            if self._cluster.leader is old and standby.is_well:
                self._cluster.promote(standby)

        self._later(ends_s, take_over)

    def force_failover(self) -> None:
        self._cluster.force_failover()

    # ------------------------------------------------------------ twins

    def twins(self) -> None:
        """Two takeovers make the same generation. A commit is lost that one standby has seen.

        The active catalog dies, and the primary's standby is cut off. Another catalog
        takes the office, and the primary starts again before that is acknowledged. So it can be
        seen; then the standby takes over, which does not have it.
        """
        self._cluster.ttl_s = 100.0
        self._later(1.5, self._strike)

    def _strike(self) -> None:
        old, standby = self._cluster.leader, self._cluster.leader.standby
        assert standby is not None
        self._cut((old.name, standby.name), 100.0)
        self._cluster.is_supervised = False
        for catalog in self._world.catalogs:
            if catalog.is_active:
                catalog.kill()
        generation = old.shown.office.generation + 1
        self._when(
            lambda: old.pending is not None and old.log[-1].office.generation == generation,
            lambda: self._show_it(old, standby, generation),
        )

    def _show_it(self, old: Node, standby: Node, generation: int) -> None:
        self._cluster.crash(old, 0.02)
        seen: list[Catalog] = []

        def has_been_seen() -> bool:
            seen[:] = [one for one in self._world.catalogs if one.saw(generation)]
            return bool(seen)

        self._when(has_been_seen, lambda: self._lose_it(old, standby, seen[0], generation))

    def _lose_it(self, old: Node, standby: Node, witness: Catalog, generation: int) -> None:
        witness.machine.resumes_at_s = self._scheduler.now_s + 10.0
        self._cluster.crash(old, 5.0)
        self._cluster.cut.clear()
        self._cluster.promote(standby)
        self._cluster.is_supervised = True
        self.on_active = partial(self._confuse, witness)

    def _confuse(self, witness: Catalog, twin: Catalog) -> None:
        """The witness goes on, while the twin stands still for less than its term is valid."""
        self.on_active = lambda _catalog: None
        twin.machine.resumes_at_s = self._scheduler.now_s + 0.85
        witness.resume()

    def _when(self, condition: Callable[[], bool], action: Callable[[], None]) -> None:
        if condition():
            action()
        elif not self._is_over:
            self._later(0.01, lambda: self._when(condition, action))

    # ------------------------------------------------------------ the end

    def heal(self) -> None:
        """From now on nothing goes wrong, and what did ends."""
        self._is_over = True
        self._cluster.heal()
        for catalog in self._world.catalogs:
            catalog.resume()
            if catalog.machine.is_dead:
                self._restart(catalog)


_WEIGHTS: dict[Callable[[Faults], None], int] = {
    Faults.pause_catalog: 5,
    Faults.kill_catalog: 2,
    Faults.stop_catalog: 1,
    Faults.cut_catalog_off: 2,
    Faults.break_connection: 2,
    Faults.delay_answers: 3,
    Faults.cut_cache_off: 3,
    Faults.pause_node: 2,
    Faults.crash_node: 2,
    Faults.switch_over: 2,
    Faults.lose_commits: 5,
    Faults.force_failover: 1,
}

_ROUGH = Profile(Faults.one_after_another, {"a": 60, "b": 4})
_RARE_TRADES = Profile(Faults.pauses, {"a": 60}, trade_pause_s=0.9, frontends_cut_off=0.2)
_PAUSES = Profile(
    Faults.pauses,
    {"a": 200},
    trade_pause_s=0.04,
    lookup_pause_s=0.02,
    leaders_cut_off=0.0,
    frontends_cut_off=0.7,
)
_MANY_STOCKS = Profile(
    Faults.nothing,
    {f"s{number}": 50 for number in range(300)},
    begin_s=5.5,
    duration_s=9.0,
    trade_pause_s=0.02,
    lookup_pause_s=0.02,
    leaders_cut_off=1.0,
    frontends_cut_off=0.0,
    hesitation_s=0.04,
)
_DOUBTS = Profile(
    Faults.doubts,
    {f"s{number}": 50 for number in range(40)},
    trade_pause_s=0.05,
    lookup_pause_s=0.01,
    largest_batch=10,
    frontends_cut_off=0.0,
)
_TWINS = Profile(Faults.twins, {"a": 200}, trade_pause_s=0.03, lookup_pause_s=0.03)
# By seed, in turns.
PROFILES = (_ROUGH, _RARE_TRADES, _DOUBTS, _PAUSES, _MANY_STOCKS, _TWINS)
ROUGH, RARE_TRADES, DOUBTS, PAUSES, MANY_STOCKS, TWINS = range(len(PROFILES))
