"""Ports that nothing listens on."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below the range that the kernel takes ports for outgoing connections from: a port of that range
# can be taken between the moment it is found free and the moment it is listened on.
_LOWEST, _HIGHEST = 20_000, 32_000


def free_ports(count: int) -> int:
    """The first of so many free ports in a row, on loopback."""
    for _ in range(1_000):
        first = random.randrange(_LOWEST, _HIGHEST)  # noqa: S311 - any will do
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first
    raise AssertionError(f"no {count} free ports in a row")
