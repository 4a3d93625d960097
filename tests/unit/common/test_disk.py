"""How the failure of a disk is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.disk import explain

ERROR = OSError("disk I/O error")


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=5 << 10))
    said = explain(ERROR, tmp_path / "orders.db")
    assert said == "disk I/O error; the disk is full, 5 KiB are left"


def test_a_disk_with_room_is_not_mentioned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1 << 20))
    assert explain(ERROR, tmp_path / "orders.db") == "disk I/O error"


def test_a_disk_that_cannot_be_asked_is_not_mentioned(tmp_path: Path) -> None:
    assert explain(ERROR, tmp_path / "missing" / "orders.db") == "disk I/O error"
