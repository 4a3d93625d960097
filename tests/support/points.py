"""Instants at which a test can have a process die, stop or wait: the steps of the protocol.

A point is armed by a file of its name in a directory that the processes share. Whoever comes to it
first takes the file away, and the action in it befalls that process:

    KILL  SIGKILL: it dies there
    STOP  SIGSTOP: all its threads stand still until SIGCONT
    HOLD  only the thread that came there waits, until the file `<point>.held` is gone
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HOLD_AT_MOST_S = 30.0


@dataclass(frozen=True)
class Point:
    service: str
    where: str  # module:function or module:Class.method
    when: str  # before or after it
    role: str | None = None  # of the replica whose `_node` the object has


POINTS = {
    # the leader, along the way of a batch
    "leader before commit": Point(
        "order", "order.trading.catalog_client:CatalogClient.update_batch", "before"
    ),
    "leader after commit": Point(
        "order", "order.trading.catalog_client:CatalogClient.update_batch", "after"
    ),
    "leader before append": Point("order", "order.log.ledger:Ledger._write", "before", "leader"),
    "leader before replicate": Point(
        "order", "order.log.replication:Replicator.wake", "before", "leader"
    ),
    "leader before publish": Point(
        "order", "order.log.replication:Replicator.wake", "after", "leader"
    ),
    "leader before answer": Point("order", "order.trading.pipeline:_answer", "before"),
    # the leader, every second
    "leader before look": Point(
        "order", "order.leadership.identity:LogIdentity.look", "before", "leader"
    ),
    # a follower
    "follower before append": Point(
        "order", "order.log.ledger:Ledger._write", "before", "follower"
    ),
    "follower after append": Point("order", "order.log.ledger:Ledger._write", "after", "follower"),
    # promotion
    "promotion after fence": Point(
        "order", "order.leadership.promotion:Promotion._promote", "before"
    ),
    "promotion during pull": Point(
        "order", "order.leadership.promotion:Promotion._take_in", "after"
    ),
    # the catalog
    "catalog before update": Point("catalog", "catalog.sqlite.store:SqliteStore.update", "before"),
    "catalog inside transaction": Point("catalog", "catalog.sqlite.schema:insert_order", "before"),
    "catalog after commit": Point("catalog", "catalog.sqlite.store:SqliteStore.update", "after"),
    # the frontend: the worker that serves the trade
    "frontend before invalidation": Point(
        "frontend", "frontend.trading.invalidation:CacheInvalidation.invalidate", "before"
    ),
    "frontend before answer": Point("frontend", "frontend.trading.trading:Trading.trade", "after"),
}


def install(service: str, directory: Path) -> None:
    """Puts every point of the service into its code."""
    for name, point in POINTS.items():
        if point.service == service:
            owner, attribute = find(point.where)
            original = getattr(owner, attribute)
            setattr(owner, attribute, _with_point(original, point, directory / name))


def find(where: str) -> tuple[Any, str]:
    module_name, _, path = where.partition(":")
    *owners, attribute = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module_name)), attribute


def _with_point(original: Callable[..., Any], point: Point, fuse: Path) -> Callable[..., Any]:
    @functools.wraps(original)
    def with_point(*arguments: Any, **options: Any) -> Any:
        is_here = point.role is None or arguments[0]._node.view().role.value == point.role
        if is_here and point.when == "before":
            _come_to(fuse)
        result = original(*arguments, **options)
        if is_here and point.when == "after":
            _come_to(fuse)
        return result

    return with_point


def _come_to(fuse: Path) -> None:
    burning = fuse.with_name(f"{fuse.name}.{os.getpid()}")
    try:
        fuse.rename(burning)  # of all who come here at once, one
    except FileNotFoundError:
        return
    action = burning.read_text()
    burning.unlink()
    if action == "HOLD":
        _hold(fuse.with_name(f"{fuse.name}.held"))
    else:
        # To this thread, which so takes no further step; the signal's effect is on the process.
        signal.pthread_kill(threading.get_ident(), signal.Signals[f"SIG{action}"])


def _hold(held: Path) -> None:
    give_up_at = time.monotonic() + _HOLD_AT_MOST_S
    while held.exists() and time.monotonic() < give_up_at:
        time.sleep(0.01)
