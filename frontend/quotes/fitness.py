"""Whether a Redis can be the cache at all, by what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping


def unfit_because(info: Mapping[str, object]) -> str:
    """Why the server cannot be the cache; empty if it can.

    Args:
        info: the server's answer to INFO, as redis-py reads it.
    """
    policy = info.get("maxmemory_policy", "noeviction")
    reasons = {
        "it is a replica": info.get("role") == "slave",
        "it is a Redis Cluster, whose nodes share the keys of one script": (
            bool(info.get("cluster_enabled"))
        ),
        "it is Dragonfly, where a script must declare its keys": "dragonfly_version" in info,
        f"its maxmemory-policy is {policy}, which may evict a floor": (
            bool(info.get("maxmemory")) and policy != "noeviction"
        ),
    }
    return "; ".join(reason for reason, is_so in reasons.items() if is_so)
