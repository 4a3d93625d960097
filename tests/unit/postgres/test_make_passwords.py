"""The passwords of the database: made once, and only for those whom they are for."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "postgres" / "make-passwords.sh"
ROLES = {"replicator", "rewind", "rest-api", "bourse"}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    of_postgres, of_catalog = tmp_path / "postgres", tmp_path / "catalog"
    of_postgres.mkdir()
    of_catalog.mkdir()
    return of_postgres, of_catalog


def make(folders: tuple[Path, Path]) -> list[str]:
    done = subprocess.run(
        ["sh", SCRIPT, *folders], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in folder.iterdir()}


def test_each_role_gets_a_password_of_its_own(folders: tuple[Path, Path]) -> None:
    said = make(folders)
    passwords = contents(folders[0])
    assert set(passwords) == ROLES
    assert len({*passwords.values()}) == len(ROLES)
    for password in passwords.values():
        assert len(password.strip()) == 64
        assert password.strip().isalnum()
        assert not any(password.strip() in line for line in said)


def test_the_catalog_gets_its_own_only(folders: tuple[Path, Path]) -> None:
    make(folders)
    password = (folders[0] / "bourse").read_text("utf-8").strip()
    assert contents(folders[1]) == {"catalog": f"*:*:bourse:bourse:{password}\n"}


def test_only_their_owner_may_read_them(folders: tuple[Path, Path]) -> None:
    """libpq does not read the catalog's otherwise."""
    make(folders)
    for path in [*folders[0].iterdir(), *folders[1].iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_there_stays(folders: tuple[Path, Path]) -> None:
    make(folders)
    before = contents(folders[0]), contents(folders[1])
    assert make(folders) == []
    assert (contents(folders[0]), contents(folders[1])) == before


def test_what_was_lost_is_made_again(folders: tuple[Path, Path]) -> None:
    make(folders)
    before = contents(folders[0])
    (folders[0] / "rewind").write_text("")
    (folders[1] / "catalog").unlink()
    assert make(folders) == ["made a password for rewind"]
    after = contents(folders[0])
    assert {name for name in ROLES if before[name] != after[name]} == {"rewind"}
    assert after["bourse"].strip() in contents(folders[1])["catalog"]
