"""A clone made on Windows has the files as they are here: containers run them."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def git(*words: str | Path) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_a_clone_that_converts_line_endings_converts_none_of_ours(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    # What is tracked now, committed or not.
    tree = git("-C", ROOT, "stash", "create").strip() or "HEAD"
    git("clone", "--quiet", "--no-checkout", "-c", "core.autocrlf=true", ROOT, clone)
    git("-C", clone, "fetch", "--quiet", ROOT, git("-C", ROOT, "rev-parse", tree).strip())
    git("-C", clone, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    names = git("-C", clone, "ls-files", "-z").split("\0")[:-1]
    assert len(names) > 100
    converted = [name for name in names if b"\r\n" in (clone / name).read_bytes()]
    assert [name for name in converted if not name.endswith(".png")] == []
