"""The parts of a replica, built, wired, started and stopped: where to see how they fit together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from common import rpc_server
from common.catalogs import open_catalog
from common.errors import Contradiction, Damaged
from common.redis_connections import connect_redis
from common.replicas import ReplicaPeer
from order.leadership.identity import LogIdentity
from order.leadership.node import Node
from order.leadership.promotion import Promotion
from order.leadership.replica import Replica
from order.leadership.watchdog import Progress, Watchdog
from order.log.catchup import catch_up
from order.log.ledger import Ledger
from order.log.log import OrderLog
from order.log.replication import Follower, Replicator
from order.loops import Loops
from order.service import OrderServicer
from order.settings import OrderSettings
from order.trading.catalog_client import CatalogClient
from order.trading.pipeline import Pipeline
from order.trading.publisher import Publisher, RedisPublisher, UpdateHub
from order.trading.queue import TradeQueue
from proto import bourse_pb2, bourse_pb2_grpc

logger = logging.getLogger(__name__)

_BATCH_LIMIT = 256
_JOIN_TIMEOUT_S = 5.0
# How often a leader asks a follower that has everything where its log ends.
_IDLE_S = 0.5
_SERVICE = bourse_pb2.DESCRIPTOR.services_by_name["OrderService"].full_name


class Service:
    """One replica on its log, until it is told to stop or is over by itself.

    Attributes:
        over: set when it has found that it cannot go on with this log.
        failed: and neither can the process.
    """

    def __init__(
        self, settings: OrderSettings, log: OrderLog, is_signalled: Callable[[], bool]
    ) -> None:
        self.over = threading.Event()
        self.failed = False
        self._settings = settings
        self._log = log
        self._is_signalled = is_signalled
        self._loops = Loops()
        self._ready = threading.Event()
        self._saying = threading.Lock()
        self._node = Node(Replica(settings.order_id, log.last_number, log.digest))
        self._ledger = Ledger(log, self._node)
        self._progress = Progress()
        self._peers = [
            ReplicaPeer(replica_id, address)
            for replica_id, address in settings.order_replicas.items()
            if replica_id != settings.order_id
        ]
        self._catalogs = open_catalog(settings.catalog_address)
        self._catalog = CatalogClient(self._catalogs, settings.pull_timeout_s)
        self._hub = UpdateHub()
        self._redis_publisher = RedisPublisher(
            connect_redis(
                settings.redis_url,
                settings.redis_timeout_s,
                max_connections=1,
                password_file=settings.redis_password_file,
            )
        )
        self._publisher = Publisher([self._hub, self._redis_publisher])
        self._stream_publisher = Publisher([self._hub])
        self._queue = TradeQueue(_BATCH_LIMIT, _BATCH_LIMIT, time.monotonic)
        self._identity = LogIdentity(self._node, self._ledger, self._catalog, self._fit_or_not)
        self._replicator = self._make_replicator()
        self._promotion = self._make_promotion()
        self._watchdog = Watchdog(self._progress, self._promotion.give_up, settings.stuck_after_s)
        self._pipeline_thread = threading.Thread(
            target=self._make_pipeline().run, name="pipeline", daemon=True
        )
        self._server = rpc_server.RpcServer(
            settings.listen_address,
            settings.order_threadpool_size,
            queue_limit=settings.order_threadpool_size,
        )
        bourse_pb2_grpc.add_OrderServiceServicer_to_server(
            self._make_servicer(), self._server.grpc_server
        )

    def start(self) -> None:
        """Serves peers at once, and says it is ready when it has caught up.

        Raises:
            Unavailable: the address cannot be bound.
        """
        port = self._server.start([_SERVICE])
        self._pipeline_thread.start()
        self._loops.start("publisher", self._redis_publisher.run)
        self._loops.start("watchdog", self._watchdog.run)
        self._replicator.start(self._loops)
        logger.info(
            "listening on port %d, last number %d, cluster %s",
            port,
            self._log.last_number,
            self._log.cluster_id or "not known yet",
        )
        self._identity.look()
        if self._identity.matches:
            self._catch_up()
        self._ready.set()
        self._say_serving()
        self._loops.start("identity", self._identity.run)
        if self._is_ready():
            logger.info("ready, last number %d", self._node.view().position)

    def stop(self) -> bool:
        """Lets trades in flight finish, then closes everything in the order of their way.

        False if a batch or a loop does not end, because the disk hangs: then nothing is closed. The
        rows of that batch are in the catalog's journal.
        """
        self._server.stop(self._settings.shutdown_grace_s)
        epoch = self._node.view().epoch
        self._node.step(lambda replica: replica.step_down(epoch), "stopping")
        self._queue.close()
        self._pipeline_thread.join(_JOIN_TIMEOUT_S)
        if self._pipeline_thread.is_alive() or not self._loops.stop(_JOIN_TIMEOUT_S):
            return False
        self._redis_publisher.close()
        for peer in self._peers:
            peer.close()
        self._catalogs.close()
        self._log.close()
        return True

    # ------------------------------------------------------------ what the parts report

    def _halt(self, reason: str) -> None:
        """Ends the whole process: going on would serve data that contradicts itself."""
        logger.critical("stopping for good: %s", reason)
        self.failed = True
        self.over.set()

    def _is_stopping(self) -> bool:
        return self._is_signalled() or self.over.is_set()

    def _is_ready(self) -> bool:
        return self._ready.is_set() and self._identity.matches

    def _fit_or_not(self, matches: bool) -> None:
        """Log and catalog turned out not to belong together, or they do again."""
        self._say_serving()
        if not matches:
            self._promotion.give_up("log and catalog do not belong together")

    def _say_serving(self) -> None:
        with self._saying:  # so that the last word is not an old one
            self._server.set_serving(self._is_ready())

    def _catch_up(self) -> None:
        try:
            catch_up(
                self._node,
                self._ledger,
                self._peers,
                peer_timeout_s=self._settings.peer_timeout_s,
                pull_timeout_s=self._settings.pull_timeout_s,
                publish=self._stream_publisher.publish,
                is_stopping=self._is_stopping,
            )
        except Contradiction as denial:
            logger.critical("the leader's log contradicts this one: %s", denial)
        except Damaged as error:
            self._halt(error.message)

    # ------------------------------------------------------------ building

    def _make_replicator(self) -> Replicator:
        timeout_s = self._settings.peer_timeout_s
        followers = [
            Follower(peer, self._node, self._log, timeout_s=timeout_s, idle_s=_IDLE_S)
            for peer in self._peers
        ]
        return Replicator(self._node, followers)

    def _make_promotion(self) -> Promotion:
        return Promotion(
            self._node,
            self._catalog,
            self._ledger,
            self._publisher.publish,
            self._identity.contradicted,
            progress=self._progress,
            fence_timeout_s=self._settings.fence_timeout_s,
            patience_s=self._settings.commit_patience_s,
            halt=self._halt,
        )

    def _make_pipeline(self) -> Pipeline:
        return Pipeline(
            node=self._node,
            queue=self._queue,
            catalog=self._catalog,
            ledger=self._ledger,
            wake_followers=self._replicator.wake,
            publish=self._publisher.publish,
            resign=self._promotion.resign,
            contradicted=self._identity.contradicted,
            progress=self._progress,
            attempt_timeout_s=self._settings.commit_attempt_timeout_s,
            patience_s=self._settings.commit_patience_s,
            halt=self._halt,
        )

    def _make_servicer(self) -> OrderServicer:
        return OrderServicer(
            node=self._node,
            log=self._log,
            ledger=self._ledger,
            queue=self._queue,
            promotion=self._promotion,
            replica_ids=self._settings.order_replicas,
            replicator=self._replicator,
            hub=self._hub,
            stream_publisher=self._stream_publisher,
            limits=self._settings.call_limits,
            is_ready=self._is_ready,
            check_orders=self._identity.check_orders,
            is_stopping=self._is_stopping,
        )
