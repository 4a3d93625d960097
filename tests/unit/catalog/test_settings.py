"""The settings of a catalog whose data is in PostgreSQL."""

from __future__ import annotations

import pytest

from catalog.settings import CatalogSettings
from common.settings import load_settings
from tests.support.settings import refusal

PASSWORD = "s3cret"  # noqa: S105 - that is the point


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in CatalogSettings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/bourse",
        "postgres://h:5432/bourse",
        "postgresql://user:a%2Fb%3Fc%23d%40@h-1:5432,h_2:5433,h3/bourse?sslmode=verify-full",
        "postgresql://[::1]:5432/bourse",
        "",
    ],
)
def test_a_database_url_may_be(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert load_settings(CatalogSettings, "catalog").database_url == url


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://user:{PASSWORD}@h/bourse",
        f"postgresql://user:{PASSWORD}@h",
        f"postgresql://user:{PASSWORD}@h/",
        f"postgresql://user:{PASSWORD}@h:port/bourse",
        f"postgresql://user:{PASSWORD}/a@h/bourse",
        f"postgresql:///bourse?password={PASSWORD}",
        f"host=h password={PASSWORD}",
        PASSWORD,
    ],
)
def test_a_wrong_database_url_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    line = refusal(CatalogSettings, capsys)
    assert line.startswith("setting DATABASE_URL=(not shown): expected postgresql://")
    assert PASSWORD not in line


def test_the_settings_do_not_show_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://user:{PASSWORD}@h/bourse")
    settings = load_settings(CatalogSettings, "catalog")
    assert PASSWORD not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DATABASE_DURABILITY", "none"), ("OFFICE_S", "0.1"), ("OFFICE_S", "nan"), ("OFFICE_S", "x")],
)
def test_a_wrong_value_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert refusal(CatalogSettings, capsys).startswith(f"setting {variable}=")
