"""What may import what, and other rules that a file shows by itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# package → the packages of this project it may import
MAY_IMPORT = {
    "frontend": {"frontend", "common", "proto"},
    "catalog": {"catalog", "common", "proto"},
    "order": {"order", "common", "proto"},
    "common": {"common", "proto"},
    "client": {"client"},
    "bench": {"bench", "client", "faults", "stack"},
    "bench/floors": {"frontend", "common", "proto"},  # run in the images of the services
    "faults": {"faults", "client", "common", "proto", "stack"},
    "stack": {"stack", "catalog", "order", "common", "proto", "faults"},
}
PACKAGES = {package for package in MAY_IMPORT if "/" not in package}
OURS = {*PACKAGES, "proto", "tests"}

MODULES = [path for package in sorted(PACKAGES) for path in sorted((ROOT / package).rglob("*.py"))]

# What a state machine without I/O can be made of.
PURE = {"__future__", "collections", "dataclasses", "enum", "typing"}

# What opens sockets, and the modules that may: those that put a process together.
OPENERS = {"RpcServer", "ReplicaPeer", "connect_redis", "insecure_channel", "open_channel"}
MAY_OPEN = {
    "catalog/__main__.py",
    "order/__main__.py",
    "frontend/parts.py",
    "common/rpc_client.py",  # `open_channel` itself
    "common/replicas.py",  # a peer opens its channel anew when another replica answers
    "common/health.py",  # an entry: the probe of the containers
    "stack/observer_script.py",  # an entry: runs by itself in a container
    "bench/floors/web.py",  # another
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text("utf-8"), str(path)))


def package_of(path: Path) -> str:
    """The innermost package that has rules."""
    folders = [
        folder.relative_to(ROOT).as_posix() for folder in path.parents if ROOT in folder.parents
    ]
    return next(folder for folder in folders if folder in MAY_IMPORT)


def imported(path: Path) -> set[str]:
    """The top-level packages that a module imports, wherever it does."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            names.add(str(node.module))
    return {name.partition(".")[0] for name in names}


def taken_from_os(path: Path) -> set[str]:
    """What a module uses of `os`; a WSGI environment is called `environ` too."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names |= {node.attr} if node.value.id == "os" else set()
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            names |= {alias.name for alias in node.names}
    return names


def names_used(path: Path) -> set[str]:
    """Every name and attribute a module mentions in code."""
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in nodes(path)
        if isinstance(node, ast.Name | ast.Attribute)
    }


@every_module
def test_packages_import_only_what_they_may(path: Path) -> None:
    assert imported(path) & OURS <= MAY_IMPORT[package_of(path)]


@pytest.mark.parametrize("path", sorted((ROOT / "client").rglob("*.py")), ids=name_of)
def test_the_client_speaks_http_only(path: Path) -> None:
    assert not imported(path) & {"grpc", "redis", "sqlite3"}


def test_the_state_machine_of_a_replica_is_pure() -> None:
    assert imported(ROOT / "order" / "leadership" / "replica.py") <= PURE


@every_module
def test_the_environment_is_read_in_settings_only(path: Path) -> None:
    # Each process that `make local` starts gets the environment of this one.
    if path.name != "settings.py" and name_of(path) != "stack/local.py":
        assert not taken_from_os(path) & {"environ", "environb", "getenv", "getenvb"}


@every_module
def test_sockets_are_opened_where_processes_are_put_together(path: Path) -> None:
    if name_of(path) not in MAY_OPEN:
        called = {
            node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
            for node in nodes(path)
            if isinstance(node, ast.Call)
        }
        assert not called & OPENERS


@every_module
def test_statuses_of_grpc_are_named_in_the_error_table_only(path: Path) -> None:
    if name_of(path) != "common/errors.py":
        assert "StatusCode" not in names_used(path)


@every_module
def test_no_module_is_long(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_the_rules_are_tested_on_every_package() -> None:
    assert {package_of(path) for path in MODULES} == set(MAY_IMPORT)


def test_the_client_needs_the_standard_library_only() -> None:
    """`client.cli` is imported where nothing is installed."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "client", "session", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
