"""The database is filled at the first start of a deployment, and never again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "postgres" / "init-catalog.sh"

# In the place of `python -m catalog COMMAND`: it takes the exit codes of each command from a file,
# one for each call, and the last one again and again.
PYTHON = """#!/bin/sh
cd "$(dirname "$0")"
echo "$3" >> calls
code=$(head -n 1 "$3")
[ "$(wc -l < "$3")" -eq 1 ] || sed -i 1d "$3"
echo "$3 says $code"
exit "$code"
"""
# It does not wait: what is tested is which commands run.
SLEEP = "#!/bin/sh\n"


class Run:
    def __init__(self, folder: Path) -> None:
        self.mark = folder / "initialized"
        self._folder = folder
        for name, text in {"python": PYTHON, "sleep": SLEEP}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def __call__(self, init: list[int], migrate: list[int], seconds: int = 60) -> tuple[int, str]:
        """The exit code, and what was printed, with commands that exit with these codes."""
        for name, codes in {"init": init, "migrate": migrate}.items():
            (self._folder / name).write_text("".join(f"{code}\n" for code in codes))
        done = subprocess.run(
            ["sh", SCRIPT, self.mark, str(seconds)],
            env={"PATH": f"{self._folder}:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout.strip()

    def calls(self) -> list[str]:
        path = self._folder / "calls"
        return path.read_text("utf-8").split() if path.exists() else []


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_an_empty_database_is_filled_once(run: Run) -> None:
    assert run(init=[0], migrate=[1]) == (0, "init says 0")
    assert run.mark.exists()
    assert run(init=[0], migrate=[0]) == (0, "")
    assert run.calls() == ["init"]


def test_a_database_that_was_lost_is_not_filled_again(run: Run) -> None:
    run.mark.touch()
    assert run(init=[0], migrate=[1]) == (0, "")
    assert run.calls() == []


def test_it_waits_for_a_database_that_is_starting(run: Run) -> None:
    assert run(init=[1, 1, 0], migrate=[1]) == (0, "init says 0")
    assert run.calls() == ["init", "migrate", "init", "migrate", "init"]
    assert run.mark.exists()


def test_a_catalog_that_is_there_is_left_as_it_is(run: Run) -> None:
    """A run before this one was stopped between its work and its mark."""
    assert run(init=[1], migrate=[0]) == (0, "the database has a catalog already")
    assert run.mark.exists()


def test_it_gives_up_with_the_reason_and_without_a_mark(run: Run) -> None:
    assert run(init=[1], migrate=[1], seconds=0) == (1, "init says 1")
    assert not run.mark.exists()
