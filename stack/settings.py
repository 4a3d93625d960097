"""The tools read only one thing from the environment: how to find the Docker engine.

Settings of the service in the shell, like CACHE_SIZE, must not change what is measured or tested.
"""

from __future__ import annotations

import os


def for_docker() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if _is_for_docker(name)}


def _is_for_docker(name: str) -> bool:
    return name in {"PATH", "HOME", "XDG_RUNTIME_DIR"} or name.startswith(("DOCKER_", "BUILDKIT_"))
