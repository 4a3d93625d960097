"""Sends commands to Redis for requests, over connections that cost little to use."""

from __future__ import annotations

import threading
from typing import Any

import redis


class OwnConnections:
    """Commands to Redis over a connection that each thread keeps to itself.

    A pool lends connections, and checks before each use whether they still live. That is half the
    cost of a command. Here a dead connection is noticed when it is used. Then the command is sent
    once more over a new one, as the client itself would do.

    A primary that becomes a replica keeps its connections. So a connection is closed when the
    server says that it is a replica: the name may already lead to the new primary.

    Args:
        client: from `connect_redis`. Its pool limits the number of connections, and closes them.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._of_thread = threading.local()

    def execute_command(self, *arguments: str | int) -> Any:
        """The answer to one command. Raises `redis.RedisError`."""
        connection = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = self._of_thread.connection = self._pool.get_connection()
        try:
            return _ask(connection, arguments)
        except redis.ConnectionError:
            return _ask(connection, arguments)


def _ask(connection: Any, arguments: tuple[str | int, ...]) -> Any:
    """Sends a command and reads the answer. A connection that has failed connects again."""
    connection.send_command(*arguments)
    try:
        return connection.read_response()
    except redis.ReadOnlyError:
        connection.disconnect()
        raise
