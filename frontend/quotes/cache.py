"""The cache: an exact LRU in Redis, shared by every worker, whose entries live under leases.

A looked-up value may be older than a trade by the time it reaches the cache. Five rules keep
such a value from being served after the trade was acknowledged:

- A lookup takes a lease (Gray and Cheriton, "Leases", 1989). Its entry dies before that lease
  ends. The entry's life counts from before the lookup.
- An invalidation leaves a floor. No version below it can be stored.
- A fill is valid only in the generation of the cache in which it began.
- A generation ends when its Redis process ends, or is no longer the primary. Entries from a
  snapshot or from another primary are of another generation, and are dropped.
- A fill is refused if it comes later than its entry could live.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from redis.exceptions import NoScriptError

from common.domain import ENTRY_MS, LEASE_MS

_SCRIPTS = Path(__file__).parent / "scripts"


@dataclass(frozen=True, slots=True)
class Token:
    """When a lookup began, and in which generation of the cache. It allows one fill."""

    generation: str
    time_ms: int  # on Redis's clock


@dataclass(frozen=True, slots=True)
class Hit:
    value: str


@dataclass(frozen=True, slots=True)
class Miss:
    token: Token


class PutOutcome(StrEnum):
    STORED = "stored"
    EXPIRED = "expired"  # an entry with this token would already be too old
    GENERATION = "generation"  # Redis was restarted, promoted or emptied after the token
    FLOOR = "floor"  # a newer version was invalidated
    NEWER = "newer"  # a live entry is at least as new


class Commands(Protocol):
    def execute_command(self, *arguments: str | int) -> Any:
        """The answer to one command. Raises `redis.RedisError`."""


class LRUCache:
    """At most `size` values; each operation is one script, which Redis runs atomically.

    Every operation raises `redis.RedisError` if Redis does not answer. Redis may have executed it
    then, or may still execute it. A replica refuses each one with `redis.ReadOnlyError`. Versions
    are below 2**53.

    Args:
        commands: sends commands to Redis: a client that decodes its answers, or
            `frontend.quotes.redis_client`.
        size: most entries. Workers may have different sizes: each shrinks the cache to its own
            size when it stores.
        lease_ms: how long a floor lives. An entry lives a little shorter: see `ENTRY_MS`.
    """

    def __init__(self, commands: Commands, size: int, lease_ms: int = LEASE_MS) -> None:
        self._size = size
        self._floor_ms = lease_ms
        # Without it, a slow clock lets a quote outlive its lease ("clock margin": test_clocks.py).
        self._entry_ms = lease_ms * ENTRY_MS // LEASE_MS
        self._get = _Script(commands, "get")
        self._put = _Script(commands, "put")
        self._invalidate = _Script(commands, "invalidate")
        self._remove = _Script(commands, "remove")
        self._flush = _Script(commands, "flush")
        self._names = _Script(commands, "names")

    def get(self, name: str) -> Hit | Miss:
        """The value, or a token for a fill. A value becomes the most recently used.

        The lookup for the fill must start after this has returned.
        """
        answer = self._get(name)
        if len(answer) == 1:
            return Hit(answer[0])
        return Miss(Token(generation=answer[0], time_ms=answer[1]))

    def put(self, name: str, value: str, version: int, token: Token) -> PutOutcome:
        """Stores a looked-up value. Its life counts from the token, and no hit extends it."""
        answer = self._put(
            name, value, version, token.generation, token.time_ms, self._entry_ms, self._size
        )
        return PutOutcome(answer)

    def invalidate(self, versions: Sequence[tuple[str, int]]) -> None:
        """Drops entries older than the given versions, and refuses older fills.

        After this has returned, `get` gives no older version. Repeats and old versions do no harm.
        """
        self._invalidate(self._floor_ms, *(part for pair in versions for part in pair))

    def remove(self, name: str) -> None:
        """Drops one entry. A fill that has begun may bring it back."""
        self._remove(name)

    def flush(self) -> None:
        """Drops every entry. Fills that have begun are refused."""
        self._flush()

    def names(self) -> list[str]:
        """The cached names, least recently used first. Their order does not change."""
        return list(self._names())


class _Script:
    """One operation. Redis forgets scripts when it restarts, so they are sent again if needed."""

    def __init__(self, commands: Commands, name: str) -> None:
        self._redis = commands
        self._text = script_text(name)
        self._digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, *arguments: str | int) -> Any:
        try:
            return self._redis.execute_command("EVALSHA", self._digest, 0, *arguments)
        except NoScriptError:
            return self._redis.execute_command("EVAL", self._text, 0, *arguments)


def script_text(name: str) -> str:
    """A script as Redis gets it: the part that all scripts share, then its own file."""
    return "".join((_SCRIPTS / f"{part}.lua").read_text("utf-8") for part in ("shared", name))
