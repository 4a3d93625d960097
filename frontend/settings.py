"""The frontend's settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.settings import (
    CATALOG_DESCRIPTION,
    DEFAULT_CATALOG,
    DEFAULT_REPLICAS,
    Address,
    Addresses,
    Count,
    RedisUrl,
    Replicas,
    Seconds,
    ServiceSettings,
)


class FrontendSettings(ServiceSettings):
    http_address: Address = Field(
        default="0.0.0.0:26111", description="where the HTTP server listens"
    )
    web_concurrency: Count = Field(default=2, description="gunicorn workers (processes)")
    web_threads: Count = Field(
        default=32, description="threads of each worker; a request takes one"
    )
    catalog_address: Addresses = Field(default=DEFAULT_CATALOG, description=CATALOG_DESCRIPTION)
    order_replicas: Replicas = Field(
        default=dict(DEFAULT_REPLICAS), description="every order replica, as `id=host:port,…`"
    )
    redis_url: RedisUrl = Field(default="redis://redis:6379/0", description="the cache")
    redis_password_file: str = Field(
        default="",
        description="file with the password of the user in `REDIS_URL`, read at each connection",
    )
    enable_cache: bool = Field(default=True, description="whether lookups use the cache")
    cache_size: Count = Field(default=5, description="stocks the cache holds at most")
    redis_timeout_s: Seconds = Field(default=0.2, description="one call to Redis")
    lookup_timeout_s: Seconds = Field(
        default=2.0,
        description="a lookup, with its repeats; up to 4 s while a catalog takes over",
    )
    trade_attempt_timeout_s: Seconds = Field(
        default=0.75,
        description="how long a trade waits before the leader is asked whether it still leads",
    )
    # A lease's 5 s can follow. Both fit into the 10 s in which each request is answered.
    decision_timeout_s: Annotated[float, Field(gt=0, le=4.5, allow_inf_nan=False)] = Field(
        default=4.5, description="a trade's decision, with its repeats and elections"
    )
    probe_timeout_s: Seconds = Field(
        default=0.15, description="one round of `IsAlive` or `GetLeader` calls"
    )
    election_timeout_s: Seconds = Field(
        default=0.75,
        description="how long one candidate may take to become leader, before the next is asked",
    )
