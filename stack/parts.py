"""The parts of the service by name, and the error of everything that runs them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # where compose.yaml is

CATALOGS = ("catalog", "catalog-2")  # the second one with compose.ha.yaml only
ORDER_IDS = (1, 2, 3)
ORDER_SERVICES = tuple(f"order-{replica_id}" for replica_id in ORDER_IDS)
SERVICES = ("edge", "frontend", "catalog", *ORDER_SERVICES, "redis")
# As health checks name what the active one of several catalogs serves.
CATALOG_SERVICE = "bourse.v1.CatalogService"

# Those that compose.ha.yaml adds.
POSTGRES_SERVICES = ("postgres-1", "postgres-2", "postgres-3")
ETCD_SERVICES = ("etcd-1", "etcd-2", "etcd-3")
ONE_SHOTS = ("database-passwords", "database-init")  # they do their work and end
DATABASE_SERVICES = (*POSTGRES_SERVICES, *ETCD_SERVICES)
HA_SERVICES = (CATALOGS[1], *DATABASE_SERVICES)
HA_FILES = (ROOT / "compose.yaml", ROOT / "compose.ha.yaml")

# Where the parts talk to each other: the second one is of compose.ha.yaml. A catalog is on both.
INNER_NETWORKS = ("backend", "database")


class StackError(Exception):
    """What could not be done with the stack, and why."""
