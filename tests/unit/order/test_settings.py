"""A replica's settings: a wrong one stops it at start, with one line that names the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.settings import load_settings
from order.settings import OrderSettings
from tests.support.settings import refusal


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in OrderSettings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    monkeypatch.setenv("ORDER_ID", "2")


def test_only_the_id_must_be_given() -> None:
    settings = load_settings(OrderSettings, "order")
    assert settings.order_id == 2
    assert settings.order_replicas == {
        1: "order-1:50051",
        2: "order-2:50051",
        3: "order-3:50051",
    }
    assert settings.listen_address == "0.0.0.0:50051"
    assert settings.catalog_address == ("catalog:50051",)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {
        "ORDER_ID": "7",
        "ORDER_REPLICAS": "7=[::1]:1, 9=elsewhere:2",
        "ORDER_THREADPOOL_SIZE": "65",
        "DATA_DIR": "/data",
        "CATALOG_ADDRESS": "10.0.0.1:50052, [::1]:50053",
        "REDIS_URL": "redis://:secret@cache:6380/3",
        "COMMIT_PATIENCE_S": "0.75",
    }.items():
        monkeypatch.setenv(variable, value)
    settings = load_settings(OrderSettings, "order")
    assert settings.order_id == 7
    assert settings.order_replicas == {7: "[::1]:1", 9: "elsewhere:2"}
    assert settings.order_threadpool_size == 65
    assert settings.data_dir == Path("/data")
    assert settings.catalog_address == ("10.0.0.1:50052", "[::1]:50053")
    assert settings.redis_url == "redis://:secret@cache:6380/3"
    assert settings.commit_patience_s == 0.75


SECONDS = [
    "REDIS_TIMEOUT_S",
    "COMMIT_ATTEMPT_TIMEOUT_S",
    "COMMIT_PATIENCE_S",
    "FENCE_TIMEOUT_S",
    "PEER_TIMEOUT_S",
    "PULL_TIMEOUT_S",
    "SHUTDOWN_GRACE_S",
]
WRONG_VALUES = [
    ("ORDER_ID", "0"),
    ("ORDER_ID", "-1"),
    ("ORDER_ID", "1.5"),
    ("ORDER_ID", "first"),
    ("ORDER_REPLICAS", "2"),
    ("ORDER_REPLICAS", "2=order-2"),
    ("ORDER_REPLICAS", "2=:50051"),
    ("ORDER_REPLICAS", "2=order-2:port"),
    ("ORDER_REPLICAS", "2=order-2:65536"),
    ("ORDER_REPLICAS", "-2=order-2:50051"),
    ("ORDER_REPLICAS", "two=order-2:50051"),
    ("ORDER_REPLICAS", "2=order-2:50051,2=order-3:50051"),
    ("ORDER_THREADPOOL_SIZE", "63"),
    ("ORDER_THREADPOOL_SIZE", "1025"),
    ("ORDER_THREADPOOL_SIZE", "many"),
    ("LISTEN_ADDRESS", "50051"),
    ("CATALOG_ADDRESS", "catalog"),
    ("CATALOG_ADDRESS", ":50051"),
    ("CATALOG_ADDRESS", "catalog:-1"),
    ("REDIS_URL", "redis:6379"),
    ("REDIS_URL", "http://redis:6379"),
    ("REDIS_URL", "redis://redis:port/0"),
    ("REDIS_URL", "redis://redis:6379/first"),
    *((variable, value) for variable in SECONDS for value in ("0", "-1", "3601", "nan", "soon")),
    ("CATALOG_ADDRESS", "http://catalog:50051"),
    ("CATALOG_ADDRESS", "catalog 1:50051"),
    ("CATALOG_ADDRESS", "catalog:50051,"),
    ("CATALOG_ADDRESS", ",catalog:50051"),
    ("CATALOG_ADDRESS", "catalog:50051;catalog-2:50051"),
    ("CATALOG_ADDRESS", "catalog:50051,catalog-2"),
    ("CATALOG_ADDRESS", "catalog:50051,catalog-2:65536"),
    ("ORDER_REPLICAS", "2=http://order-2:50051"),
    ("ORDER_REPLICAS", "2=order-2:50051;3=order-3:50051"),
]


@pytest.mark.parametrize(("variable", "value"), WRONG_VALUES)
def test_a_wrong_value_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    assert refusal(OrderSettings, capsys).startswith(f"setting {variable}=")


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("catalog:50051,,catalog-2:50051", "'' is not of the form host:port"),
        ("catalog:50051,catalog-2:x", "'catalog-2:x' is not of the form host:port"),
        ("catalog:50051, catalog:50051", "catalog:50051 is named twice"),
    ],
)
def test_a_wrong_list_of_catalogs_says_what_is_wrong_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str, wrong: str
) -> None:
    monkeypatch.setenv("CATALOG_ADDRESS", value)
    assert refusal(OrderSettings, capsys) == f"setting CATALOG_ADDRESS={value!r}: {wrong}"


def test_without_an_id_it_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ORDER_ID")
    assert refusal(OrderSettings, capsys).startswith("setting ORDER_ID: it is not set")


def test_the_id_must_be_one_of_the_replicas(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORDER_REPLICAS", "1=order-1:50051,3=order-3:50051")
    assert "ORDER_ID 2 is not one of ORDER_REPLICAS" in refusal(OrderSettings, capsys)


@pytest.mark.parametrize("size", [64, 160, 1024])
def test_calls_that_can_wait_leave_threads_for_the_rest(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setenv("ORDER_THREADPOOL_SIZE", str(size))
    limits = load_settings(OrderSettings, "order").call_limits
    assert min(limits.trades, limits.lookups) >= 8
    assert limits.total + 8 <= size
