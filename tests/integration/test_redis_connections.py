"""Passwords in files: they are read for each connection, and are needed for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from common.redis_connections import connect_redis, with_password_file
from tests.support.redis_server import RedisServer, running_redis


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


def set_password(server: RedisServer, password: str) -> None:
    """Sets the password, and closes the connections that used the old one."""
    with server.client() as operator:
        operator.execute_command("ACL", "SETUSER", "side", "RESET")
        operator.execute_command("ACL", "SETUSER", "side", "ON", f">{password}", "+ping")
        operator.execute_command("CLIENT", "KILL", "USER", "side")


def connected(server: RedisServer, file: Path) -> redis.Redis:
    url = server.url.replace("redis://", "redis://side@")
    return connect_redis(url, 2, 2, password_file=str(file))


def test_a_file_may_come_later_and_change(server: RedisServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    set_password(server, "first")
    with connected(server, file) as client:
        with pytest.raises(redis.ConnectionError, match=str(file)):
            client.ping()
        file.write_text("first\n")
        assert client.ping()
        set_password(server, "second")
        with pytest.raises(redis.AuthenticationError):
            client.ping()
        file.write_text("second\n")
        assert client.ping()


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"])
def test_a_file_without_a_password(server: RedisServer, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password").write_bytes(content)
    with (
        connected(server, tmp_path / "password") as client,
        pytest.raises(redis.ConnectionError, match="no password for Redis"),
    ):
        client.ping()


@pytest.mark.parametrize(
    ("url", "bare", "user"),
    [
        ("redis://side@host:1/2", "redis://host:1/2", "side"),
        ("redis://a%40b:old@host:1/2", "redis://host:1/2", "a@b"),
        ("redis://host:1/2", "redis://host:1/2", "default"),
    ],
)
def test_the_url_names_the_user(tmp_path: Path, url: str, bare: str, user: str) -> None:
    (tmp_path / "password").write_text("secret")
    cleaned, options = with_password_file(url, str(tmp_path / "password"))
    assert cleaned == bare
    assert options["credential_provider"].get_credentials() == (user, "secret")


def test_without_a_file_the_url_says_it_all() -> None:
    assert with_password_file("redis://me:secret@host", "") == ("redis://me:secret@host", {})
