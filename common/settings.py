"""Settings: read from the environment once per service, into one frozen, validated object."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


# A name, an IPv4 address, or an IPv6 address in brackets.
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


def _parse_replicas(value: Any) -> Any:
    """`1=order-1:50051,2=order-2:50051` as {1: "order-1:50051", 2: "order-2:50051"}."""
    if not isinstance(value, str):
        return value
    replicas: dict[int, str] = {}
    for part in value.split(","):
        identifier, _, address = part.strip().partition("=")
        if not identifier.isdecimal() or int(identifier) < 1 or not _is_address(address):
            raise ValueError(f"{part.strip()!r} is not of the form id=host:port, id from 1 up")
        if int(identifier) in replicas:
            raise ValueError(f"replica {identifier} is named twice")
        replicas[int(identifier)] = address
    return replicas


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(_HOST.fullmatch(host)) and port.isdecimal() and int(port) < 65536


def _check_address(value: Any) -> Any:
    if isinstance(value, str) and not _is_address(value):
        raise ValueError(f"{value!r} is not of the form host:port")
    return value


def _check_redis_url(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not _is_redis_url(value):
        raise ValueError("not of the form redis://host:port/database")
    return value


def _is_redis_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # Reading the port checks it.
        has_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    if parts.scheme == "unix":
        return bool(parts.path)
    if parts.query:
        return False  # it could undo the timeouts that answers in time rest on
    database = parts.path.strip("/")
    return (
        parts.scheme in ("redis", "rediss")
        and has_address
        and (not database or database.isdecimal())
    )


def _check_directory(value: Any) -> Any:
    if value == "":  # which would be the working directory, and that is on no volume
        raise ValueError("no directory is named")
    return value


Address = Annotated[str, BeforeValidator(_check_address)]
RedisUrl = Annotated[str, BeforeValidator(_check_redis_url)]
Replicas = Annotated[dict[int, str], NoDecode, BeforeValidator(_parse_replicas)]
Directory = Annotated[Path, BeforeValidator(_check_directory)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]

DEFAULT_REPLICAS: Mapping[int, str] = {
    1: "order-1:50051",
    2: "order-2:50051",
    3: "order-3:50051",
}


class ServiceSettings(BaseSettings):
    """What every service is set by. The variable's name is the field's, in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    log_level: LogLevel = Field(
        default=LogLevel.INFO, description="least severe level that is logged"
    )
    log_format: LogFormat = Field(default=LogFormat.TEXT, description="`text` or `json`")
    shutdown_grace_s: Seconds = Field(
        default=10.0, description="how long a stopping service lets requests in flight finish"
    )


class RpcServiceSettings(ServiceSettings):
    listen_address: Address = Field(
        default="0.0.0.0:50051", description="where the gRPC server listens"
    )


AnySettings = TypeVar("AnySettings", bound=ServiceSettings)

# Begins the names of what makes a service fail on purpose, which only tests start one with.
_RIG_PREFIX = "BOURSE_RIG_"


def load_settings(kind: type[AnySettings], service: str) -> AnySettings:
    """The settings in the environment; a wrong one ends the process with one clear line."""
    if rigged := sorted(name for name in os.environ if name.startswith(_RIG_PREFIX)):
        print(f"{service}: {', '.join(rigged)} set: that is for tests only", file=sys.stderr)
        raise SystemExit(2)
    try:
        return kind()
    except ValidationError as error:
        print(f"{service}: {describe(error)}", file=sys.stderr)
        raise SystemExit(2) from None


def describe(error: ValidationError) -> str:
    """Every wrong setting in one line: its variable, the value found and what is wrong."""
    return "; ".join(
        f"setting {str(detail['loc'][0]).upper() if detail['loc'] else '(all)'}"
        f"={detail['input']!r}: {detail['msg'].removeprefix('Value error, ')}"
        for detail in error.errors()
    )
