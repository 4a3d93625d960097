"""Next to each mechanism the code names the tests that fail without it: they exist and try it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.edge import EDGE_MECHANISMS
from tests.support.failure_table import ROWS
from tests.support.mechanisms import MECHANISMS

ROOT = Path(__file__).parents[2]
# `# Without it, a deposed leader commits ("fence check": test_failure_table.py).`
_NOTE = re.compile(r'^ *(?:#|--) Without it, .* \("([^"]+)": (test_\w+\.py)\)\.$', re.MULTILINE)

# (mechanism, test module) → where the code says so
NOTES = {
    (mechanism, module): path.relative_to(ROOT).as_posix()
    for package in ("catalog", "order", "frontend", "common", "edge")
    for suffix in ("*.py", "*.lua", "*.cfg")
    for path in sorted((ROOT / package).rglob(suffix))
    for mechanism, module in _NOTE.findall(path.read_text("utf-8"))
}


def test_every_mechanism_has_its_note() -> None:
    assert {mechanism for mechanism, _ in NOTES} == {*MECHANISMS, *EDGE_MECHANISMS}


def test_every_row_of_the_failure_table_rests_on_a_mechanism_that_is_noted() -> None:
    assert {row.mechanism for row in ROWS} <= {mechanism for mechanism, _ in NOTES}


@pytest.mark.parametrize(("mechanism", "module"), NOTES)
def test_the_tests_that_a_note_names_take_the_mechanism_out(mechanism: str, module: str) -> None:
    (path,) = (ROOT / "tests").rglob(module)
    sources = [path.read_text("utf-8")]
    if module == "test_failure_table.py":
        sources.append((ROOT / "tests/support/failure_table.py").read_text("utf-8"))
    assert any(f'"{mechanism}"' in source for source in sources)
