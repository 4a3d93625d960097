"""A private PostgreSQL for tests: on a free port, in a folder of its own, killed and paused."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from stack.waiting import wait_for
from tests.support.ports import free_ports

_START_TIMEOUT_S = 30.0
_ROLE = "bourse"
# It refuses to run as root; this user is nearly everywhere, and owns nothing.
_ACCOUNT = "nobody" if os.geteuid() == 0 else None


def find_programs() -> Path | None:
    """The folder of `initdb` and `postgres`, of the newest version here; None if there is none."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve()] if on_path else []
    found += sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]),
        reverse=True,
    )
    return found[0].parent if found else None


class PostgresServer:
    """A real server. `start()` after `kill()` comes back on the same port with the same data.

    Args:
        settings: more of them, for the command line.
        primary: whose standby this is, by the name `standby`; it must run.
    """

    def __init__(
        self, settings: Mapping[str, str] | None = None, primary: PostgresServer | None = None
    ) -> None:
        programs = find_programs()
        assert programs is not None, "PostgreSQL is not installed"
        self._programs = programs
        self._settings = dict(settings or {})
        self._names = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_ports(1)
        # In memory, if it can be: every test makes a database, which is many small files.
        shared = Path("/dev/shm")  # noqa: S108 - the folder in it is private
        where = shared if shared.is_dir() else None
        self._home = Path(tempfile.mkdtemp(prefix="bourse-postgres-", dir=where))
        if _ACCOUNT:
            shutil.chown(self._home, _ACCOUNT)
        self.data = self._home / "data"
        if primary is None:
            self._initialize()
        else:
            self._copy(primary)

    def _initialize(self) -> None:
        self._run(
            *("initdb", "--auth=trust", f"--username={_ROLE}", "--encoding=UTF8", "--locale=C"),
            *("--wal-segsize=1", "--no-sync", f"--pgdata={self.data}"),
        )

    def _copy(self, primary: PostgresServer) -> None:
        source = f"host=127.0.0.1 port={primary.port} user={_ROLE} application_name=standby"
        self._run(
            *("pg_basebackup", "--checkpoint=fast", "--no-sync", "--write-recovery-conf"),
            *(f"--dbname={source}", f"--pgdata={self.data}"),
        )

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            user=_ACCOUNT,
            cwd=self._home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._home),
            "shared_buffers": "16MB",
            "max_connections": "50",
            "min_wal_size": "4MB",
            "max_wal_size": "64MB",
            **self._settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.data, *options],
                user=_ACCOUNT,
                cwd=self._home,
                stdout=log,
                stderr=log,
            )
        wait_for(self._answers, _START_TIMEOUT_S, "PostgreSQL does not answer")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        return f"postgresql://{_ROLE}@127.0.0.1:{self.port}/{database}"

    def log(self) -> str:
        return (self._home / "log").read_text()

    def admin(self, database: str = "postgres") -> psycopg.Connection:
        """A connection that no session of a catalog knows of."""
        return psycopg.connect(self.url(database), autocommit=True)

    def new_database(self, like: str = "template0") -> str:
        """A database as empty, or as full, as the one it is like; its name."""
        name = f"test{next(self._names)}"
        with closing(self.admin()) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY wal_log").format(
                    sql.Identifier(name), sql.Identifier(like)
                )
            )
        return name

    def emptied_database(self) -> str:
        """Always the same one, without anything in it: cheaper than a new one."""
        with closing(self.admin()) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return "postgres"

    def drop(self, database: str) -> None:
        with closing(self.admin()) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database))
            )

    def set(self, name: str, value: str) -> None:
        """Changes a setting of the running server for every session."""
        with closing(self.admin()) as connection:
            connection.execute(
                sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
            )
            connection.execute("SELECT pg_reload_conf()")
            wait_for(lambda: self._shows(connection, name, value), 10.0, f"{name} did not change")

    def _shows(self, connection: psycopg.Connection, name: str, value: str) -> bool:
        found = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        return found == (value,)

    def wait_until_commits_wait(self) -> None:
        """For a standby that is not there. After the setting has changed, another process of the
        server notes that, and until then a COMMIT goes through."""
        with closing(self.admin()) as probe, closing(self.admin()) as watcher:
            wait_for(lambda: self._commit_waits(probe, watcher), 10.0, "a COMMIT does not wait")

    def _commit_waits(self, probe: psycopg.Connection, watcher: psycopg.Connection) -> bool:
        sent, process = probe.pgconn, probe.info.backend_pid
        # A COMMIT is waited for if its transaction wrote something.
        sent.send_query(b"SELECT pg_logical_emit_message(true, '', '')")
        sent.flush()
        waits = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
        is_waiting = False
        while sent.is_busy() and not is_waiting:
            is_waiting = watcher.execute(waits, (process,)).fetchone() is not None
            sent.consume_input()
        if is_waiting:
            watcher.execute("SELECT pg_cancel_backend(%s)", (process,))
        while sent.get_result() is not None:
            pass
        return is_waiting

    def kill(self) -> None:
        """All of its processes at once, as when its machine loses power."""
        assert self._process is not None
        for process in (self._process.pid, *self._children()):
            _send(process, signal.SIGKILL)
        self._process.wait()

    def _children(self) -> list[int]:
        assert self._process is not None
        listed = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(child) for child in listed.read_text().split()]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Every process of it stands still, but the kernel goes on accepting what is sent."""
        assert self._process is not None
        stopped = (self._process.pid, *self._children())
        for process in stopped:
            _send(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                _send(process, signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        shutil.rmtree(self._home)


def _send(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass


@contextmanager
def running_server(
    settings: Mapping[str, str] | None = None, primary: PostgresServer | None = None
) -> Iterator[PostgresServer]:
    with closing(PostgresServer(settings, primary)) as server:
        server.start()
        yield server
