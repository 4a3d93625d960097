"""`python -m catalog`: settings, parts, run, wait, close. `--help` lists its other commands."""

from __future__ import annotations

import argparse
import logging
import logging.config
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing

from catalog.leases import Leases
from catalog.recovery import backup, restore
from catalog.service import CatalogService
from catalog.settings import CatalogSettings
from catalog.sqlite.database import Database
from catalog.sqlite.files import CannotOpen
from catalog.sqlite.store import SqliteStore
from catalog.stock_file import MalformedStockFile
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
    return run(settings)


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
    return parser.parse_args(arguments)


def run(settings: CatalogSettings) -> int:
    stopping = stop_event()
    logging.config.dictConfig(logging_config("catalog", settings))
    try:
        with closing(Database(settings.data_dir, settings.stocks_file)) as database:
            serve(settings, database, stopping)
    except (CannotOpen, MalformedStockFile, BourseError) as error:
        logger.critical("%s", error)
        return 1
    else:
        logger.info("stopped, everything is on disk")
        return 0
    finally:
        logging.shutdown()


def serve(settings: CatalogSettings, database: Database, stopping: threading.Event) -> None:
    """Serves until told to stop, then lets the calls in flight finish."""
    threads = settings.catalog_threadpool_size
    # Made after the database is locked: from then on no earlier catalog can grant a lease.
    leases = Leases(clock=time.monotonic)
    store = SqliteStore(database, time.time, leases)
    service = CatalogService(
        lambda: store, max_streams=max(1, threads // 4), max_update_streams=threads // 8
    )
    server = RpcServer(settings.listen_address, threads, _QUEUE_LIMIT)
    bourse_pb2_grpc.add_CatalogServiceServicer_to_server(service, server.grpc_server)
    port = server.start([_SERVICE_NAME])
    server.set_serving(True)
    logger.info("serving on port %d, data in %s", port, settings.data_dir)
    wait_until_stopped(stopping)
    logger.info("stopping")
    server.stop(settings.shutdown_grace_s)


if __name__ == "__main__":
    sys.exit(main())
