"""An order replica's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from common.settings import (
    DEFAULT_REPLICAS,
    Address,
    Count,
    RedisUrl,
    Replicas,
    RpcServiceSettings,
    Seconds,
)


class OrderSettings(RpcServiceSettings):
    order_id: Count = Field(description="this replica's id: one of ORDER_REPLICAS")
    order_replicas: Replicas = Field(
        default=dict(DEFAULT_REPLICAS), description="every order replica, as `id=host:port,…`"
    )
    order_threadpool_size: int = Field(
        default=128, ge=32, le=1024, description="calls a replica serves at once"
    )
    data_dir: Path = Field(default=Path("data/order"), description="where the log is kept")
    catalog_address: Address = Field(default="catalog:50051", description="the catalog")
    redis_url: RedisUrl = Field(
        default="redis://redis:6379/0", description="where invalidations are published"
    )
    redis_password_file: str = Field(
        default="",
        description="file with the password of the user in `REDIS_URL`, read at each connection",
    )
    redis_timeout_s: Seconds = Field(default=0.2, description="one call to Redis")
    commit_attempt_timeout_s: Seconds = Field(
        default=0.5, description="one sending of a batch to the catalog"
    )
    commit_patience_s: Seconds = Field(
        default=1.0, description="how long a leader goes without the catalog before it steps down"
    )
    fence_timeout_s: Seconds = Field(
        default=0.65,
        description="how long a candidate is waited for while it has its epoch registered",
    )
    replication_timeout_s: Seconds = Field(
        default=0.25, description="how long a trade waits for a follower"
    )
    peer_timeout_s: Seconds = Field(
        default=0.5, description="a call to a peer off the path of trades"
    )
    catch_up_interval_s: Seconds = Field(
        default=0.5, description="how often a leader looks for followers that are behind"
    )
    pull_timeout_s: Seconds = Field(
        default=1.0, description="each 1,000 rows of a pull of missing rows"
    )

    @model_validator(mode="after")
    def _is_one_of_the_replicas(self) -> OrderSettings:
        if self.order_id not in self.order_replicas:
            raise ValueError(f"ORDER_ID {self.order_id} is not one of ORDER_REPLICAS")
        return self

    @property
    def stuck_after_s(self) -> float:
        """More than a batch may take that is in doubt, pulls the journal and is replicated."""
        in_doubt_s = self.commit_patience_s + self.commit_attempt_timeout_s
        return in_doubt_s + self.pull_timeout_s + self.replication_timeout_s + 0.25

    @property
    def trade_limit(self) -> int:
        """Trades in flight at once; the rest of the threads answers IsAlive and the like."""
        return self.order_threadpool_size - 2 * self.stream_limit - 8

    @property
    def stream_limit(self) -> int:
        """Of each kind: subscribers of updates must not keep a replica from catching up."""
        return 8
