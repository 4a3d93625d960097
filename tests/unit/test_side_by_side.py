"""Where tests run side by side, those of a group share a process, and so what they set up."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("tests/unit/stack/test_waiting.py", "tests/unit/common/test_retries.py")


@pytest.mark.slow
def test_the_tests_of_a_file_run_in_one_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-n", "2", "-p", "no:cacheprovider", *FILES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    processes = defaultdict(set)
    for process, file in re.findall(r"\[(gw\d)\].* PASSED (\S+?)::", done.stdout):
        processes[file].add(process)
    assert {file: len(used) for file, used in processes.items()} == dict.fromkeys(FILES, 1)
