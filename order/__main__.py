"""`python -m order`: one replica of the order service."""

from __future__ import annotations

import logging
import logging.config
import os
import sys
import threading
import time
from typing import NoReturn

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from common import rpc_client, rpc_server
from common.errors import BourseError, Contradiction, Damaged
from common.logs import logging_config
from common.redis_credentials import with_password_file
from common.replicas import ReplicaPeer
from common.runtime import stop_event, wait_until_stopped
from common.settings import load_settings
from order.leadership.identity import LogIdentity
from order.leadership.node import Node
from order.leadership.promotion import Promotion
from order.leadership.replica import Replica
from order.leadership.watchdog import Progress, Watchdog
from order.log.catchup import catch_up
from order.log.ledger import Ledger
from order.log.log import OrderLog, open_log, set_aside
from order.log.replication import Replicator
from order.service import OrderServicer
from order.settings import OrderSettings
from order.trading.catalog_client import CatalogClient
from order.trading.pipeline import Pipeline
from order.trading.publisher import Publisher, RedisPublisher, UpdateHub
from order.trading.queue import TradeQueue
from proto import bourse_pb2, bourse_pb2_grpc

logger = logging.getLogger("order")

_LOG_NAME = "orders.db"
_BATCH_LIMIT = 256
_JOIN_TIMEOUT_S = 5.0
_SERVICE = bourse_pb2.DESCRIPTOR.services_by_name["OrderService"].full_name


class Service:
    """The parts of a replica, built and wired; started and stopped in order."""

    def __init__(self, settings: OrderSettings, log: OrderLog, stopping: threading.Event) -> None:
        self._settings = settings
        self._log = log
        self._stopping = stopping
        self._ready = threading.Event()
        self.failed = False
        self.wrong_log_because = ""
        self._node = Node(Replica(settings.order_id, log.last_number, log.digest))
        self._ledger = Ledger(log, self._node)
        self._catalog = rpc_client.Peer(
            "the catalog", settings.catalog_address, bourse_pb2_grpc.CatalogServiceStub
        )
        catalog = CatalogClient(self._catalog, settings.pull_timeout_s)
        self._peers = [
            ReplicaPeer(replica_id, address)
            for replica_id, address in settings.order_replicas.items()
            if replica_id != settings.order_id
        ]
        self._identity = LogIdentity(
            self._node,
            catalog,
            self._peers,
            first_digest=lambda: log.first_digest,
            replica_count=len(settings.order_replicas),
            peer_timeout_s=settings.peer_timeout_s,
            on_change=lambda _matches: self._say_serving(),
            on_wrong_log=self._give_up_log,
        )
        self._redis_publisher = RedisPublisher(_publishing_client(settings))
        hub = UpdateHub()
        self._stream_publisher = Publisher([hub])
        publisher = Publisher([hub, self._redis_publisher])
        self._queue = TradeQueue(_BATCH_LIMIT, _BATCH_LIMIT, time.monotonic)
        self._replicator = Replicator(
            self._node,
            log,
            self._ledger,
            self._peers,
            replication_timeout_s=settings.replication_timeout_s,
            catch_up_timeout_s=settings.peer_timeout_s,
            interval_s=settings.catch_up_interval_s,
        )
        progress = Progress()
        promotion = Promotion(
            self._node,
            catalog,
            self._ledger,
            publisher.publish,
            self._identity,
            progress=progress,
            fence_timeout_s=settings.fence_timeout_s,
            patience_s=settings.commit_patience_s,
            halt=self.halt,
        )
        self._watchdog = Watchdog(progress, promotion.give_up, settings.stuck_after_s)
        pipeline = Pipeline(
            node=self._node,
            queue=self._queue,
            catalog=catalog,
            ledger=self._ledger,
            followers=self._replicator,
            publisher=publisher,
            resign=promotion.resign,
            identity=self._identity,
            progress=progress,
            attempt_timeout_s=settings.commit_attempt_timeout_s,
            patience_s=settings.commit_patience_s,
            halt=self.halt,
        )
        self._pipeline_thread = threading.Thread(target=pipeline.run, name="pipeline", daemon=True)
        self._server = rpc_server.RpcServer(
            settings.listen_address,
            settings.order_threadpool_size,
            queue_limit=settings.order_threadpool_size,
        )
        bourse_pb2_grpc.add_OrderServiceServicer_to_server(
            OrderServicer(
                node=self._node,
                log=log,
                ledger=self._ledger,
                queue=self._queue,
                promotion=promotion,
                replica_ids=settings.order_replicas,
                replicator=self._replicator,
                hub=hub,
                stream_publisher=self._stream_publisher,
                limits=settings.call_limits,
                is_ready=self._is_ready,
                may_serve_orders=lambda: self._identity.may_serve_orders,
                is_stopping=stopping.is_set,
            ),
            self._server.grpc_server,
        )

    def halt(self, reason: str) -> None:
        """Stops the whole process: going on would serve data that contradicts itself."""
        logger.critical("stopping for good: %s", reason)
        self.failed = True
        self._stopping.set()

    def _give_up_log(self, reason: str) -> None:
        """Stops, for the process to begin anew without this log."""
        self.wrong_log_because = reason
        self._stopping.set()

    def _is_ready(self) -> bool:
        return self._ready.is_set() and self._identity.matches

    def _say_serving(self) -> None:
        self._server.set_serving(self._is_ready())

    def start(self) -> None:
        """Serves peers at once, and says it is ready when it has caught up.

        Raises:
            Unavailable: the address cannot be bound.
        """
        port = self._server.start([_SERVICE])
        self._redis_publisher.start()
        self._pipeline_thread.start()
        self._watchdog.start()
        self._replicator.start()
        logger.info("listening on port %d, last number %d", port, self._log.last_number)
        self._identity.look()
        if self._identity.matches:
            self._catch_up()
        self._ready.set()
        self._say_serving()
        self._identity.start()
        if self._is_ready():
            logger.info("ready, last number %d", self._node.view().position)

    def _catch_up(self) -> None:
        try:
            catch_up(
                self._node,
                self._ledger,
                self._peers,
                peer_timeout_s=self._settings.peer_timeout_s,
                pull_timeout_s=self._settings.pull_timeout_s,
                publish=self._stream_publisher.publish,
                is_stopping=self._stopping.is_set,
            )
        except Contradiction as denial:
            logger.critical("the leader's log contradicts this one: %s", denial)
        except Damaged as error:
            self.halt(error.message)

    def stop(self) -> bool:
        """Lets trades in flight finish, then closes everything in the order of their way.

        False if a batch does not end, because the disk hangs: then nothing is closed. What the
        batch holds up is in the catalog's journal.
        """
        self._server.stop(self._settings.shutdown_grace_s)
        epoch = self._node.view().epoch
        self._node.step(lambda replica: replica.step_down(epoch), "stopping")
        self._queue.close()
        self._pipeline_thread.join(_JOIN_TIMEOUT_S)
        if self._pipeline_thread.is_alive():
            return False
        self._watchdog.stop()
        self._identity.stop()
        self._replicator.stop()
        self._redis_publisher.stop()
        for peer in self._peers:
            peer.close()
        self._catalog.close()
        self._log.close()
        return True


def _publishing_client(settings: OrderSettings) -> redis.Redis:
    url, credentials = with_password_file(settings.redis_url, settings.redis_password_file)
    return redis.Redis.from_url(
        url,
        socket_timeout=settings.redis_timeout_s,
        socket_connect_timeout=settings.redis_timeout_s,
        retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        # Its user may publish, and nothing else: not tell who its client is either.
        protocol=2,
        driver_info=None,
        **credentials,
    )


def main() -> int:
    stopping = stop_event()
    settings = load_settings(OrderSettings, "order")
    logging.config.dictConfig(logging_config(f"order-{settings.order_id}", settings))
    try:
        log, damage = open_log(settings.data_dir / _LOG_NAME)
        if damage is not None:
            logger.error("the log is damaged, rebuilding it: %s", damage)
        service = Service(settings, log, stopping)
        service.start()
    except (BourseError, OSError, ValueError) as error:
        logger.critical("cannot start: %s", error)
        return 1
    wait_until_stopped(stopping)
    logger.info("stopping")
    if not service.stop():
        logger.critical("the last batch does not end, leaving without it")
        logging.shutdown()
        os._exit(1)  # an exit in good order would wait for the thread that hangs
    logger.info("stopped, last number %d", log.last_number)
    if service.wrong_log_because:
        _begin_anew(settings, service.wrong_log_because)
    logging.shutdown()
    return 1 if service.failed else 0


def _begin_anew(settings: OrderSettings, reason: str) -> NoReturn:
    """Sets the log aside and becomes a new process, which starts with an empty one."""
    aside = set_aside(settings.data_dir / _LOG_NAME)
    logger.error(
        "this log is not of this catalog, rebuilding it: %s; set aside as %s",
        reason,
        aside.name,
    )
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves


if __name__ == "__main__":
    sys.exit(main())
