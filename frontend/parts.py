"""Builds the parts of a frontend's worker. No other module builds them."""

from __future__ import annotations

from contextlib import ExitStack

from common.catalogs import TAKEOVER_S, open_catalog
from common.redis_connections import connect_redis
from common.replicas import ReplicaPeer
from frontend.catalog_client import CatalogClient
from frontend.model import Parts, Quotes
from frontend.order_reads import OrderReads
from frontend.quotes.breaker import CircuitBreaker
from frontend.quotes.cache import LRUCache
from frontend.quotes.quotes import CachedQuotes, UncachedQuotes
from frontend.quotes.redis_client import OwnConnections
from frontend.quotes.subscriber import InvalidationSubscriber
from frontend.readiness import ServiceReadiness
from frontend.settings import FrontendSettings
from frontend.trading.election import Election
from frontend.trading.invalidation import CacheInvalidation
from frontend.trading.leader import RIDE_OUT_S, LeaderClient
from frontend.trading.trading import Trading


def build_parts(settings: FrontendSettings, resources: ExitStack) -> Parts:
    """The parts of one worker, with its own connections and threads.

    Args:
        resources: gets everything that must be closed when the worker ends.
    """
    catalog = _open_catalog(settings, resources)
    peers = _open_replicas(settings, resources)
    cache = _open_cache(settings, resources)
    invalidation = CacheInvalidation(cache)
    resources.callback(invalidation.close)
    election = Election(
        peers, settings.probe_timeout_s, settings.election_timeout_s, catalog.is_reachable
    )
    leader = _make_leader_client(settings, election)
    resources.callback(leader.close)
    return Parts(
        trades=Trading(leader, invalidation),
        quotes=_quotes(settings, catalog, cache),
        orders=OrderReads(list(peers.values()), catalog, settings.trade_attempt_timeout_s),
        readiness=ServiceReadiness(catalog.is_reachable, peers.values()),
    )


def _has_several_catalogs(settings: FrontendSettings) -> bool:
    return len(settings.catalog_address) > 1


def _make_leader_client(settings: FrontendSettings, election: Election) -> LeaderClient:
    return LeaderClient(
        election,
        settings.trade_attempt_timeout_s,
        settings.decision_timeout_s,
        # No catalog is active during a takeover. Trades that come then must wait for its end.
        ride_out_s=TAKEOVER_S if _has_several_catalogs(settings) else RIDE_OUT_S,
    )


def _open_catalog(settings: FrontendSettings, resources: ExitStack) -> CatalogClient:
    catalog = open_catalog(settings.catalog_address)
    resources.callback(catalog.close)
    return CatalogClient(
        catalog, settings.lookup_timeout_s, several=_has_several_catalogs(settings)
    )


def _open_replicas(settings: FrontendSettings, resources: ExitStack) -> dict[int, ReplicaPeer]:
    peers: dict[int, ReplicaPeer] = {}
    for replica_id, address in settings.order_replicas.items():
        peers[replica_id] = ReplicaPeer(replica_id, address)
        resources.callback(peers[replica_id].close)
    return peers


def _open_cache(settings: FrontendSettings, resources: ExitStack) -> LRUCache:
    # One for each thread that serves requests, one for the invalidation, two for the subscriber.
    client = connect_redis(
        settings.redis_url,
        settings.redis_timeout_s,
        max_connections=settings.web_threads + 5,
        password_file=settings.redis_password_file,
    )
    resources.callback(client.close)
    cache = LRUCache(OwnConnections(client), settings.cache_size)
    if settings.enable_cache:
        subscriber = InvalidationSubscriber(client, cache)
        # The order matters: a worker can be told to quit at any moment, even during its start.
        resources.callback(subscriber.stop)
        subscriber.start()
    return cache


def _quotes(settings: FrontendSettings, catalog: CatalogClient, cache: LRUCache) -> Quotes:
    if not settings.enable_cache:
        return UncachedQuotes(catalog)
    return CachedQuotes(catalog, cache, CircuitBreaker("the cache"))
