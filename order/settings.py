"""An order replica's settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field, model_validator

from common.settings import (
    CATALOG_DESCRIPTION,
    DEFAULT_CATALOG,
    DEFAULT_REPLICAS,
    Addresses,
    Count,
    RedisUrl,
    Replicas,
    RpcServiceSettings,
    Seconds,
)

# Threads for calls that are answered from memory.
_ANSWERING_FROM_MEMORY = 8


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many calls of each kind run at once. A call keeps its thread while it waits."""

    trades: int
    lookups: int  # of an order
    appends: int  # rows that a leader sends
    saves: int
    streams: int  # of the log, and as many of updates
    trade_streams: int  # kept by frontends, one for each worker

    @property
    def total(self) -> int:
        calls = self.trades + self.lookups + self.appends + self.saves
        return calls + 2 * self.streams + self.trade_streams


class OrderSettings(RpcServiceSettings):
    order_id: Count = Field(description="this replica's id: one of ORDER_REPLICAS")
    order_replicas: Replicas = Field(
        default=dict(DEFAULT_REPLICAS), description="every order replica, as `id=host:port,…`"
    )
    order_threadpool_size: int = Field(
        default=160, ge=64, le=1024, description="calls a replica serves at once"
    )
    data_dir: Path = Field(default=Path("data/order"), description="where the log is kept")
    catalog_address: Addresses = Field(default=DEFAULT_CATALOG, description=CATALOG_DESCRIPTION)
    redis_url: RedisUrl = Field(
        default="redis://redis:6379/0", description="where invalidations are published"
    )
    redis_password_file: str = Field(
        default="",
        description="file with the password of the user in `REDIS_URL`, read at each connection",
    )
    redis_timeout_s: Seconds = Field(default=0.2, description="one call to Redis")
    commit_attempt_timeout_s: Seconds = Field(
        default=0.5, description="one attempt to send a batch to the catalog"
    )
    commit_patience_s: Seconds = Field(
        default=1.0,
        description="how long a leader tries to reach the catalog before it steps down; "
        "up to 4 s while a catalog takes over",
    )
    fence_timeout_s: Seconds = Field(
        default=0.65,
        description="how long the caller of a candidate waits for it to register its epoch",
    )
    peer_timeout_s: Seconds = Field(
        default=0.5, description="a call to another replica that no trade waits for"
    )
    pull_timeout_s: Seconds = Field(default=1.0, description="each 1,000 rows that are pulled")

    @model_validator(mode="after")
    def _is_one_of_the_replicas(self) -> OrderSettings:
        if self.order_id not in self.order_replicas:
            raise ValueError(f"ORDER_ID {self.order_id} is not one of ORDER_REPLICAS")
        return self

    @property
    def stuck_after_s(self) -> float:
        """Longer than the slowest batch: one in doubt, that pulls the journal. One that waits for
        a catalog to take over can be slower, but it moves at each try."""
        in_doubt_s = self.commit_patience_s + self.commit_attempt_timeout_s
        return in_doubt_s + self.pull_timeout_s + 0.5

    @property
    def call_limits(self) -> CallLimits:
        """They leave some threads for calls that are answered from memory, like IsAlive."""
        others = CallLimits(
            trades=0,
            lookups=self.order_threadpool_size // 5,
            appends=4,
            saves=2,
            streams=8,
            trade_streams=self.order_threadpool_size // 10,
        )
        free = self.order_threadpool_size - _ANSWERING_FROM_MEMORY
        return replace(others, trades=free - others.total)
