"""`python -m tests.support.rigged order`: a service rigged for a test.

BOURSE_RIG_POINTS   the directory whose files arm the points of `tests.support.points`
BOURSE_RIG_WITHOUT  the mechanism of `tests.support.mechanisms` that is taken out

The services themselves refuse to start with either of them set.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import common.pulls
from tests.support import mechanisms, points

# Of a pull, so that a short log takes several.
_CHUNK = 5


def main() -> None:
    service = sys.argv.pop(1)
    # Before the points: they are put around whatever stands there.
    if without := os.environ.pop("BOURSE_RIG_WITHOUT", ""):
        mechanisms.take_out(without)
    if directory := os.environ.pop("BOURSE_RIG_POINTS", ""):
        points.install(service, Path(directory))
    common.pulls.CHUNK = _CHUNK
    runpy.run_module(service, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
