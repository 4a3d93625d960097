"""Settings: valid by default, frozen, and a wrong one stops the service with one clear line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.settings import CatalogSettings
from common.settings import LogFormat, LogLevel, ServiceSettings, load_settings
from frontend.settings import FrontendSettings
from order.settings import OrderSettings
from tests.support.settings import refusal

ROOT = Path(__file__).parents[3]
KINDS: list[type[ServiceSettings]] = [FrontendSettings, CatalogSettings, OrderSettings]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        for field in kind.model_fields:
            monkeypatch.delenv(field.upper(), raising=False)
    monkeypatch.setenv("ORDER_ID", "1")  # the one setting without a default


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_are_valid(kind: type[ServiceSettings]) -> None:
    defaults = {
        name: field.default for name, field in kind.model_fields.items() if not field.is_required()
    }
    settings = load_settings(kind, "test")
    # Given as text, a default meets the same checks as a value from the environment.
    assert kind.model_validate(defaults | {"order_id": 1}) == settings


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_described(kind: type[ServiceSettings]) -> None:
    assert all(field.description for field in kind.model_fields.values())


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_frozen(kind: type[ServiceSettings]) -> None:
    settings = load_settings(kind, "test")
    with pytest.raises(ValidationError):
        settings.log_level = LogLevel.DEBUG  # type: ignore[misc] # that is the point


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_SIZE", "7")
    monkeypatch.setenv("ENABLE_CACHE", "false")
    monkeypatch.setenv("LOG_FORMAT", "json")
    monkeypatch.setenv("ORDER_REPLICAS", "1=a:1, 5=b:2")
    monkeypatch.setenv("CATALOG_ADDRESS", "a:1, b:2")
    settings = load_settings(FrontendSettings, "frontend")
    assert settings.cache_size == 7
    assert settings.enable_cache is False
    assert settings.log_format is LogFormat.JSON
    assert settings.order_replicas == {1: "a:1", 5: "b:2"}
    assert settings.catalog_address == ("a:1", "b:2")


WRONG_VALUES = [
    ("LOG_LEVEL", "LOUD"),
    ("LOG_FORMAT", "xml"),
    ("SHUTDOWN_GRACE_S", "0"),
    ("SHUTDOWN_GRACE_S", "inf"),
    ("SHUTDOWN_GRACE_S", "nan"),
    ("HTTP_ADDRESS", "26111"),
    ("HTTP_ADDRESS", ":26111"),
    ("HTTP_ADDRESS", "localhost:65536"),
    ("WEB_CONCURRENCY", "0"),
    ("WEB_CONCURRENCY", "two"),
    ("WEB_THREADS", "-1"),
    ("WEB_THREADS", "1.5"),
    ("CATALOG_ADDRESS", "catalog"),
    ("CATALOG_ADDRESS", "catalog:50051,"),
    ("CATALOG_ADDRESS", "catalog:50051,catalog:50051"),
    ("ORDER_REPLICAS", "order-1:50051"),
    ("ORDER_REPLICAS", "0=order-1:50051"),
    ("ORDER_REPLICAS", "1=order-1"),
    ("ORDER_REPLICAS", "1=order-1:50051,1=order-2:50051"),
    ("ORDER_REPLICAS", "1=order-1:50051,"),
    ("ENABLE_CACHE", "maybe"),
    ("CACHE_SIZE", "0"),
    ("CACHE_SIZE", "five"),
    ("REDIS_TIMEOUT_S", "-1"),
    ("DECISION_TIMEOUT_S", "4.6"),
    *(("REDIS_URL", url) for url in ["redis", "http://redis:6379", "redis://redis:port"]),
]


@pytest.mark.parametrize(("variable", "value"), WRONG_VALUES)
def test_a_wrong_value_is_one_line_naming_its_variable(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    assert refusal(FrontendSettings, capsys).startswith(f"setting {variable}=")


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_variable_means_the_default(
    monkeypatch: pytest.MonkeyPatch, kind: type[ServiceSettings]
) -> None:
    expected = load_settings(kind, "test")
    for name, field in kind.model_fields.items():
        if not field.is_required():
            monkeypatch.setenv(name.upper(), "")
    assert load_settings(kind, "test") == expected
    assert not [name for name in kind.model_fields if os.environ.get(name.upper()) == ""], (
        "gunicorn reads WEB_CONCURRENCY too, and fails if it is empty"
    )


PASSWORD = "s3cret"  # noqa: S105 - that is the point
URLS_WITH_A_PASSWORD = [
    f"rediss://default:{PASSWORD}@h:6380/0?ssl_cert_reqs=none",
    f"redis://default:{PASSWORD}@h:port/0",
    f"redis://default:{PASSWORD}@h:1/first",
    f"redis://default:{PASSWORD}@",
    f"redis://default:{PASSWORD}",
    f"redis://default:a/{PASSWORD}@h",
    f"redis://default:a#{PASSWORD}@h",
    f"redis://default:{PASSWORD}@[h",
    f"redis://h:6379/0?password={PASSWORD}",
    f"unix:///run/redis.sock?password={PASSWORD}",
    f"default:{PASSWORD}@h:6379",
    PASSWORD,
]


@pytest.mark.parametrize("url", URLS_WITH_A_PASSWORD)
def test_a_password_in_a_wrong_url_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    line = refusal(FrontendSettings, capsys)
    assert line.startswith("setting REDIS_URL=(not shown): ")
    assert PASSWORD not in line


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h:6379/3",
        "redis://user:a%2Fb%3Fc%23d@h:6379/0",
        "rediss://:password@[::1]:6380",
        "unix:///run/redis.sock",
        "unix://user:password@/run/redis.sock",
    ],
)
def test_a_redis_url_may_be(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert load_settings(FrontendSettings, "frontend").redis_url == url


@pytest.mark.parametrize("wrong_id", ["4", "first", ""])
def test_another_wrong_setting_does_not_show_the_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong_id: str
) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://default:{PASSWORD}@h:1/0")
    monkeypatch.setenv("ORDER_ID", wrong_id)
    line = refusal(OrderSettings, capsys)
    assert "ORDER_ID" in line
    assert PASSWORD not in line


def test_settings_that_are_shown_hide_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://default:{PASSWORD}@h:1/0")
    settings = load_settings(FrontendSettings, "frontend")
    assert PASSWORD in settings.redis_url
    assert PASSWORD not in f"{settings!r} {settings}"


def test_a_wrong_value_cannot_add_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORDER_REPLICAS", "1=a:1,\nfrontend: all is well")
    assert "ORDER_REPLICAS" in refusal(FrontendSettings, capsys)


def test_all_wrong_values_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CACHE_SIZE", "0")
    monkeypatch.setenv("WEB_THREADS", "x")
    line = refusal(FrontendSettings, capsys)
    assert "CACHE_SIZE" in line
    assert "WEB_THREADS" in line


@pytest.mark.parametrize(
    ("module", "variable", "value"),
    [
        ("frontend", "WEB_CONCURRENCY", "two"),
        ("catalog", "LOG_LEVEL", "LOUD"),
        ("order", "ORDER_ID", "first"),
    ],
)
def test_the_service_itself_stops_at_once(
    monkeypatch: pytest.MonkeyPatch, module: str, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    command = [sys.executable, "-m", module]
    stopped = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert stopped.returncode == 2
    (line,) = stopped.stderr.splitlines()
    assert f"setting {variable}={value!r}" in line
