"""Runs in a container that sees the processes of the machine and the volumes of the stack.

It prints a line of JSON every so often: of each given container how many files its processes have
open and how many threads they have, and of each volume how many bytes of each kind it holds. One
process that looks at all of them disturbs least: a command in each container would be a new process
there each time, and would count itself.

arguments: SECONDS ID…
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

VOLUMES = Path("/volumes")
# The text is what `SaveLog` and a stop of a replica leave.
FILES = {"database_bytes": "*.db", "wal_bytes": "*.db-wal", "text_bytes": "*.txt"}
_ID = re.compile(r"[0-9a-f]{64}")


def counts(ids: set[str], processes: Path = Path("/proc")) -> dict[str, dict[str, int]]:
    """Of each container that has processes."""
    found: dict[str, dict[str, int]] = {}
    for process in processes.glob("[0-9]*"):
        try:
            its = ids & set(_ID.findall((process / "cgroup").read_text("utf-8")))
            files, threads = (len(os.listdir(process / part)) for part in ("fd", "task"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        for container in its:
            count = found.setdefault(container, {"files": 0, "threads": 0})
            count["files"] += files
            count["threads"] += threads
    return found


def sizes(volumes: Path = VOLUMES) -> dict[str, dict[str, int]]:
    """Of each volume."""
    return {
        volume.name: {
            kind: sum(_size(path) for path in volume.glob(pattern))
            for kind, pattern in FILES.items()
        }
        for volume in volumes.iterdir()
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # it has just been removed


def say(ids: set[str]) -> None:
    said: dict[str, Any] = {"counts": counts(ids), "sizes": sizes()}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    every_s = float(sys.argv[1])
    next_s = time.monotonic()
    while True:
        say(set(sys.argv[2:]))
        next_s = max(next_s + every_s, time.monotonic())
        time.sleep(next_s - time.monotonic())
