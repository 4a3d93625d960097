"""How a service says to Redis who it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import redis
from redis.credentials import CredentialProvider


class PasswordFile(CredentialProvider):
    """The password that a file holds when a connection is made.

    It may come later than this process, and change.
    """

    def __init__(self, user: str, path: str) -> None:
        self._user = user
        self._path = path

    def get_credentials(self) -> tuple[str, str]:
        """Raises `redis.ConnectionError`: without its password Redis cannot be had."""
        try:
            with open(self._path, encoding="ascii") as file:
                password = file.read().strip()
        except (OSError, ValueError) as error:
            raise redis.ConnectionError(f"no password for Redis: {error}") from error
        if not password:
            raise redis.ConnectionError(f"no password for Redis: {self._path} is empty")
        return self._user, password


def with_password_file(url: str, path: str) -> tuple[str, Mapping[str, Any]]:
    """A Redis URL and the options for its client: with the URL's user and the file's password.

    Without a path the URL stays as it is.
    """
    if not path:
        return url, {}
    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    user = unquote(parts.username or "default")
    return bare, {"credential_provider": PasswordFile(user, path)}
