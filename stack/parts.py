"""The parts of the service by name, and the error of everything that runs them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # where compose.yaml is

ORDER_IDS = (1, 2, 3)
ORDER_SERVICES = tuple(f"order-{replica_id}" for replica_id in ORDER_IDS)
SERVICES = ("edge", "frontend", "catalog", *ORDER_SERVICES, "redis")


class StackError(Exception):
    """What could not be done with the stack, and why."""
