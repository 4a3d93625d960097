"""The documents keep up with the code: settings, and every place that ARCHITECTURE.md names."""

from __future__ import annotations

import ast
import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from catalog.settings import CatalogSettings
from common.settings import ServiceSettings
from frontend.settings import FrontendSettings
from order.settings import OrderSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")

SETTINGS: dict[str, type[ServiceSettings]] = {
    "frontend": FrontendSettings,
    "catalog": CatalogSettings,
    "order": OrderSettings,
}


def shown(default: Any) -> str:
    if isinstance(default, dict):
        return ",".join(f"{key}={value}" for key, value in default.items())
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, Path) and default.is_absolute():
        return default.relative_to(ROOT).as_posix()
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, Enum):
        return str(default.value)
    return f"{default:g}" if isinstance(default, float) else str(default)


def settings_rows() -> list[str]:
    """The rows that README's table of settings must have, in the order of the services."""
    found: dict[str, tuple[list[str], list[str], str]] = {}
    for service, kind in SETTINGS.items():
        for name, field in kind.model_fields.items():
            has_default = not field.is_required() and field.default != ""
            default = f"`{shown(field.default)}`" if has_default else "(none)"
            row = found.setdefault(name, ([], [], str(field.description)))
            row[0].append(service)
            if default not in row[1]:
                row[1].append(default)
    return [
        f"| `{name.upper()}` | {', '.join(services)} | {' '.join(defaults)} | {meaning} |"
        for name, (services, defaults, meaning) in found.items()
    ]


@pytest.mark.parametrize("row", settings_rows())
def test_every_setting_is_in_the_readme(row: str) -> None:
    assert row in README.splitlines()


def places() -> list[str]:
    return sorted(set(re.findall(r"`([a-z_]+/[\w/.]+\.(?:py|lua)(?::[\w.]+)?)`", ARCHITECTURE)))


@pytest.mark.parametrize("place", places())
def test_every_place_that_the_architecture_names_exists(place: str) -> None:
    path, _, name = place.partition(":")
    text = (ROOT / path).read_text("utf-8")
    if name:
        assert name in defined_names(ast.parse(text)), f"{path} defines no {name}"


def defined_names(module: ast.Module) -> set[str]:
    """Functions and classes; methods as Class.method."""
    names: set[str] = set()
    kinds = ast.FunctionDef | ast.ClassDef
    for node in module.body:
        if isinstance(node, kinds):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names.update(f"{node.name}.{one.name}" for one in node.body if isinstance(one, kinds))
    return names


def test_the_architecture_walks_through_the_code() -> None:
    assert len(places()) >= 25
