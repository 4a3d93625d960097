"""Commands to Redis on a request's path, over connections that cost little to use."""

from __future__ import annotations

import threading
from typing import Any

import redis


class OwnConnections:
    """Commands to Redis over a connection that each thread keeps to itself.

    A pool hands connections out and takes them back, and looks before each use whether they
    still live: half of what a command costs. Here a dead one is noticed when it is used; like
    the client's own commands, the command is then sent once more, over a new one.

    A server that was a primary keeps its connections when it becomes a replica. So a connection
    is closed when the server says that it is one: the name may lead to the new primary already.

    Args:
        client: from `connect_redis`; its pool bounds the connections, and closes them.
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
    """A connection that failed in between has closed itself, and connects when it is used next."""
    connection.send_command(*arguments)
    try:
        return connection.read_response()
    except redis.ReadOnlyError:
        connection.disconnect()
        raise
