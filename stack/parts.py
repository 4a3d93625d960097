"""The parts of the service by name, and the error of everything that runs them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # where compose.yaml is

ORDER_IDS = (1, 2, 3)
ORDER_SERVICES = tuple(f"order-{replica_id}" for replica_id in ORDER_IDS)
SERVICES = ("edge", "frontend", "catalog", *ORDER_SERVICES, "redis")

# Those that compose.ha.yaml adds.
POSTGRES_SERVICES = ("postgres-1", "postgres-2", "postgres-3")
ETCD_SERVICES = ("etcd-1", "etcd-2", "etcd-3")
ONE_SHOTS = ("database-passwords", "database-init")  # they do their work and end
HA_SERVICES = ("catalog-2", *POSTGRES_SERVICES, *ETCD_SERVICES)


class StackError(Exception):
    """What could not be done with the stack, and why."""
