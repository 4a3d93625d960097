"""`python -m catalog`: settings, parts, run, wait, close. `--help` lists its other commands."""

from __future__ import annotations

import argparse
import logging
import logging.config
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from catalog.leases import Leases
from catalog.recovery import backup, restore
from catalog.service import CatalogService
from catalog.settings import CatalogSettings
from catalog.sqlite.database import Database
from catalog.sqlite.files import CannotOpen
from catalog.sqlite.store import SqliteStore
from catalog.stock_file import MalformedStockFile
from catalog.store import Store
from common.errors import BourseError
from common.logs import logging_config
from common.rpc_server import RpcServer
from common.runtime import stop_event, wait_until_stopped
from common.settings import load_settings
from proto import bourse_pb2, bourse_pb2_grpc

logger = logging.getLogger("catalog")

_QUEUE_LIMIT = 1_000
_SERVICE_NAME = bourse_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name


def main() -> int:
    arguments = parse_arguments(sys.argv[1:])
    settings = load_settings(CatalogSettings, "catalog")
    if arguments.command == "restore":
        return restore.run(settings, arguments.logs, arguments.expect_digest)
    if arguments.command == "backup":
        return backup.run(settings, sys.stdout.buffer)
    if arguments.command in ("init", "migrate"):
        return run_on_database(arguments.command, settings)
    return run(settings)


def run_on_database(command: str, settings: CatalogSettings) -> int:
    if not settings.database_url:
        print(
            f"{command}: DATABASE_URL is not set; in DATA_DIR the catalog does that itself when it "
            "starts",
            file=sys.stderr,
        )
        return 1
    # Only here is psycopg loaded: it takes a part of the time in which a catalog starts.
    from catalog.postgres import commands  # noqa: PLC0415 - see above

    return (commands.run_init if command == "init" else commands.run_migrate)(settings)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m catalog",
        description="Serves the catalog. Its settings are environment variables: see README.md.",
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    restore.add_arguments(
        commands.add_parser(
            "restore",
            help="rebuild a lost catalog from the order logs",
            description="Rebuilds a lost catalog in DATA_DIR from the stocks in STOCKS_FILE and "
            "the logs of order replicas, which must not run. See OPERATIONS.md, Damage and loss.",
        )
    )
    commands.add_parser(
        "backup",
        help="write a copy of the database to standard output, while the catalog serves",
        description="Writes a copy of the database in DATA_DIR, as of one moment and verified, to "
        "standard output. The catalog may serve meanwhile.",
    )
    commands.add_parser(
        "init",
        help="fill an empty PostgreSQL database",
        description="Makes the tables in the empty database that DATABASE_URL names, and fills "
        "them from STOCKS_FILE. No catalog does that by itself.",
    )
    commands.add_parser(
        "migrate",
        help="bring the PostgreSQL database to this version's schema",
        description="Changes the tables in the database that DATABASE_URL names, as far as this "
        "version needs it. A catalog that is active meanwhile stops being so.",
    )
    return parser.parse_args(arguments)


def run(settings: CatalogSettings) -> int:
    stopping = stop_event()
    logging.config.dictConfig(logging_config("catalog", settings))
    try:
        (serve_from_postgres if settings.database_url else serve_from_sqlite)(settings, stopping)
    except (CannotOpen, MalformedStockFile, BourseError) as error:
        logger.critical("%s", error)
        return 1
    else:
        logger.info("stopped, everything is on disk")
        return 0
    finally:
        logging.shutdown()


def serve_from_sqlite(settings: CatalogSettings, stopping: threading.Event) -> None:
    with closing(Database(settings.data_dir, settings.stocks_file)) as database:
        # Made after the database is locked: from then on no earlier catalog can grant a lease.
        leases = Leases(clock=time.monotonic)
        store = SqliteStore(database, time.time, leases)
        with listening(settings, lambda: store) as (server, port):
            server.set_serving(True)
            logger.info("serving on port %d, data in %s", port, settings.data_dir)
            wait_until_stopped(stopping)
            logger.info("stopping")


def serve_from_postgres(settings: CatalogSettings, stopping: threading.Event) -> None:
    """Serves while this is the active catalog of its database, and stands by while it is not.

    The health service says of the process that it is alive, and of CatalogService whether it is
    active.
    """
    # Only here is psycopg loaded: it takes a part of the time in which a catalog starts.
    from catalog.postgres.address import Address, NotAnAddress  # noqa: PLC0415 - see above
    from catalog.postgres.candidate import Candidate  # noqa: PLC0415
    from catalog.postgres.connection import connect  # noqa: PLC0415

    # What it warns of ends a session, and who used the session says so.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    try:
        address = Address(settings.database_url, settings.database_password_file)
    except NotAnAddress as error:
        raise CannotOpen(f"DATABASE_URL: {error}") from error
    candidate = Candidate(
        connect=lambda avoided: connect(address, settings.database_durability, avoided),
        holder=f"{socket.gethostname()}/{os.getpid()}",
        office_s=settings.office_s,
        clock=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall_clock=time.time,
        wait=stopping.wait,
        on_change=lambda is_active: server.set_active(is_active),  # noqa: PLW0108 - made below
        make_turn=threading.Lock,
    )
    with listening(settings, candidate.current) as (server, port):
        server.set_alive(True)
        logger.info("serving on port %d, data in PostgreSQL", port)
        candidacy = threading.Thread(target=candidate.run, name="candidate")
        candidacy.start()
        wait_until_stopped(stopping)
        logger.info("stopping")
        candidacy.join()  # it leaves the office, so that another catalog takes it at once


@contextmanager
def listening(
    settings: CatalogSettings, current: Callable[[], Store]
) -> Iterator[tuple[RpcServer, int]]:
    """The server and its port; at the end it lets the calls in flight finish."""
    threads = settings.catalog_threadpool_size
    service = CatalogService(
        current, max_streams=max(1, threads // 4), max_update_streams=threads // 8
    )
    server = RpcServer(settings.listen_address, threads, _QUEUE_LIMIT)
    bourse_pb2_grpc.add_CatalogServiceServicer_to_server(service, server.grpc_server)
    port = server.start([_SERVICE_NAME])
    try:
        yield server, port
    finally:
        server.stop(settings.shutdown_grace_s)


if __name__ == "__main__":
    sys.exit(main())
