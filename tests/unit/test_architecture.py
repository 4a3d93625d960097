"""What may import what, and other rules that a file shows by itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# folder → what of this project its modules may import; the innermost folder that is named counts
SERVICE = {"common", "proto"}
MAY_IMPORT = {
    "common": SERVICE,
    "catalog": {"catalog", *SERVICE},
    "order": {"order", *SERVICE},
    "frontend": {"frontend", *SERVICE},
    "stack": {"stack", *SERVICE},
    # Writes the services' own databases: their code says once what stands in them.
    "stack/fill.py": {"stack", "catalog", "order", *SERVICE},
    # Tools import no tool, save what `client.api` is for.
    "client": {"client", "stack.numbers", "stack.terminal", "stack.waiting"},
    "faults": {"faults", "stack", "client.api", "proto"},
    "bench": {"bench", "stack", "client.api", "proto"},
    # They run by themselves, in the images of the services.
    "bench/copies/floors": {"frontend", *SERVICE},
    # It shares nothing with the service that it is compared with.
    "bench/copies/rival": set(),
}
PACKAGES = sorted({place.partition("/")[0] for place in MAY_IMPORT})
OURS = {*PACKAGES, "proto", "tests"}
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

# A room is found by its name and read at one glance.
MOST_MODULES = 14
MORE_MODULES = {
    "common": 18,  # small ones, of one idea each, that three services share
    "stack": 15,  # likewise, of the tools
}
ROOMS = sorted(
    {path.parent for path in [*MODULES, *(ROOT / "tests" / "unit").rglob("*.py")]},
)

# Where scripts are that are no Python, by how their names end.
SCRIPTS = {
    ".sh": {"bench/copies/rival", "edge", "postgres", "stack", "tests/terraform"},
    ".lua": {"frontend/quotes/scripts", "bench/measuring"},
}

# What a state machine without I/O can be made of.
PURE = {"__future__", "collections", "dataclasses", "enum", "typing"}

# What opens sockets, and the modules that may: those that put a process together.
OPENERS = {
    "CatalogPeer",
    "Peer",
    "ReplicaPeer",
    "RpcServer",
    "connect_redis",
    "insecure_channel",
    "open_catalog",
    "open_channel",
}
MAY_OPEN = {
    "catalog/__main__.py",
    "order/parts.py",
    "frontend/parts.py",
    "common/rpc_client.py",  # `open_channel` itself, and the peer that opens one anew
    "common/catalogs.py",  # a peer for each catalog, and for the only one
    "common/health.py",  # an entry: the probe of the containers
    "stack/observer_script.py",  # an entry: runs by itself in a container
    "bench/copies/floors/web.py",  # another
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text("utf-8"), str(path)))


def rule_of(path: Path) -> str:
    """The innermost place with a rule."""
    places = [name_of(place) for place in (path, *path.parents) if ROOT in place.parents]
    return next(place for place in places if place in MAY_IMPORT)


def imported(path: Path) -> set[str]:
    """The modules that a module imports, wherever it does; `from a import b` is both, a and a.b."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def lies_in(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def tops(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


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
def test_modules_import_only_what_they_may(path: Path) -> None:
    ours = {module for module in imported(path) if module.partition(".")[0] in OURS}
    allowed = MAY_IMPORT[rule_of(path)]
    assert not {module for module in ours if not lies_in(module, allowed)}


@pytest.mark.parametrize("path", sorted((ROOT / "client").rglob("*.py")), ids=name_of)
def test_the_client_speaks_http_only(path: Path) -> None:
    assert not tops(imported(path)) & {"grpc", "redis", "sqlite3"}


@pytest.mark.parametrize("name", ["order/leadership/replica.py", "catalog/postgres/tenure.py"])
def test_a_state_machine_is_pure(name: str) -> None:
    assert tops(imported(ROOT / name)) <= PURE


@every_module
def test_the_environment_is_read_in_settings_only(path: Path) -> None:
    # Each process that `make local` starts gets the environment of `make local` itself.
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


# `HTTP/1.1 404` and `404 Not Found`, as a part of a text.
_STATUS_LINE = re.compile(r"HTTP/1\.[01] \d{3}|^[2-5]\d\d [A-Z]")
_SERVICES = ("catalog", "common", "frontend", "order")


def status_literals(source: str) -> list[object]:
    """The literals of a module that are statuses of HTTP, as far as their place tells it.

    Those are numbers that are compared, returned, handed over or in a collection of numbers, or
    have a name with `status` in it.
    """
    suspects: list[ast.AST | None] = []
    texts: list[object] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Compare():
                suspects += [node.left, *node.comparators]
            case ast.Return():
                suspects.append(node.value)
            case ast.Call():
                suspects += [*node.args, *(keyword.value for keyword in node.keywords)]
            case ast.Tuple(elts=some) | ast.List(elts=some) | ast.Set(elts=some):
                if all(_is_whole_number(one) for one in some):
                    suspects += some
            case (
                ast.Assign(targets=[target], value=value)
                | ast.AnnAssign(target=target, value=value)
            ):
                suspects += [value] if "status" in ast.unparse(target).lower() else []
            case ast.Constant(value=str() | bytes() as text):
                line = text if isinstance(text, str) else text.decode("latin-1")
                texts += [text] if _STATUS_LINE.search(line) else []
    known = {status.value for status in HTTPStatus if status >= HTTPStatus.OK}
    numbers = [one.value for one in suspects if isinstance(one, ast.Constant)]
    return [value for value in numbers if type(value) is int and value in known] + texts


def _is_whole_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


@pytest.mark.parametrize(
    "path", [one for one in MODULES if name_of(one).startswith(_SERVICES)], ids=name_of
)
def test_statuses_of_http_have_names(path: Path) -> None:
    assert status_literals(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("if answer.status != 200: pass", [200]),
        ("def f(): return 503", [503]),
        ("abort(404)", [404]),
        ("answer(body, status=422)", [422]),
        ("DECIDED = (200, 404)", [200, 404]),
        ("default_status: int = 500", [500]),
        ("head = b'HTTP/1.1 400 Bad Request'", [b"HTTP/1.1 400 Bad Request"]),
        ("refuse(f'503 Service Unavailable{end}')", ["503 Service Unavailable"]),
        ("OPTIONS = [('grpc.backoff_ms', 500)]; text[:200]; CHUNK_ROWS = 500", []),
    ],
)
def test_a_status_without_a_name_is_found(line: str, found: list[object]) -> None:
    assert status_literals(line) == found


@every_module
def test_no_module_is_long(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_every_folder_of_code_has_a_rule() -> None:
    """`tests` may import anything, and nothing imports it; `proto` holds what is generated."""
    folders = {Path(name).parts[0] for name in tracked("*.py") if len(Path(name).parts) > 1}
    assert folders == OURS
    assert {rule_of(path) for path in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_no_folder_has_many_modules(room: Path) -> None:
    modules = [path.name for path in room.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MORE_MODULES.get(name_of(room), MOST_MODULES), modules


@pytest.mark.parametrize("suffix", SCRIPTS)
def test_scripts_are_where_they_belong(suffix: str) -> None:
    assert {Path(name).parent.as_posix() for name in tracked(f"*{suffix}")} <= SCRIPTS[suffix]


def tracked(pattern: str) -> list[str]:
    """Files of the working tree, those that are not added yet as well."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).exists()]


def test_the_client_needs_the_standard_library_only() -> None:
    """`python -m client` runs where nothing is installed."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "client", "session", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
