"""checkov has nothing to say that is not answered beside the resource that it is about."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stack.parts import ROOT
from tests.terraform.cloud import copy_repository

pytestmark = pytest.mark.slow

_EXCEPTION = re.compile(r"^ *#checkov:skip=(\w+):(.*)\n", re.MULTILINE)


def checkov(folder: Path) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        ["make", "--silent", "checkov", "ARGS=--output json"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


def test_it_is_clean() -> None:
    code, found = checkov(ROOT)
    assert (code, found["summary"]["failed"], found["summary"]["parsing_errors"]) == (0, 0, 0)
    assert found["summary"]["passed"] > 50


def test_each_exception_is_needed_and_explained(tmp_path: Path) -> None:
    copy_repository(tmp_path)
    excepted = set()
    for file in (tmp_path / "terraform").glob("*.tf"):
        text = file.read_text("utf-8")
        for check, reason in _EXCEPTION.findall(text):
            assert len(reason.split()) > 1, f"{check} in {file.name} says no reason"
            excepted.add((check, f"/{file.name}"))
        file.write_text(_EXCEPTION.sub("", text), "utf-8")
    _, found = checkov(tmp_path)
    failed = {(one["check_id"], one["file_path"]) for one in found["results"]["failed_checks"]}
    assert failed == excepted
