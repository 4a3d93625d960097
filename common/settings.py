"""Settings: read from the environment once per service, into one frozen, validated object."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails
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


def _parse_addresses(value: Any) -> Any:
    """`catalog:50051,catalog-2:50051` as ("catalog:50051", "catalog-2:50051")."""
    if not isinstance(value, str):
        return value
    addresses = tuple(part.strip() for part in value.split(","))
    for address in addresses:
        if not _is_address(address):
            raise ValueError(f"{address!r} is not of the form host:port")
        if addresses.count(address) > 1:
            raise ValueError(f"{address} is named twice")
    return addresses


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(_HOST.fullmatch(host)) and port.isdecimal() and int(port) < 65536


def _check_address(value: Any) -> Any:
    if isinstance(value, str) and not _is_address(value):
        raise ValueError(f"{value!r} is not of the form host:port")
    return value


def _check_redis_url(value: Any) -> Any:
    if isinstance(value, str) and (wrong := _wrong_in_redis_url(value)):
        raise ValueError(f"{wrong}; expected redis://user:password@host:port/database")
    return value


def _wrong_in_redis_url(text: str) -> str:
    """What is wrong, or an empty string. It quotes nothing: any part can belong to the password."""
    try:
        parts = urlsplit(text)
        # Reading the port checks it.
        has_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "no host and port can be read from it"
    is_unix = parts.scheme == "unix"
    database = "" if is_unix else parts.path.strip("/")
    wrong = {
        "it begins with neither redis:// nor rediss:// nor unix://": (
            parts.scheme not in ("redis", "rediss", "unix")
        ),
        # A query could change the timeouts.
        "it may have no query (?…) and no #; a password writes them as %3F and %23": bool(
            parts.query or parts.fragment
        ),
        "it names no socket": is_unix and not parts.path,
        "it names no host, or port 0": not is_unix and not has_address,
        "its path is not the number of a database": database and not database.isdecimal(),
    }
    return next((reason for reason, is_wrong in wrong.items() if is_wrong), "")


Address = Annotated[str, BeforeValidator(_check_address)]
Addresses = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_addresses)]
# It may have a password, so it is never shown: see `_is_secret`.
RedisUrl = Annotated[str, BeforeValidator(_check_redis_url), Field(repr=False)]
Replicas = Annotated[dict[int, str], NoDecode, BeforeValidator(_parse_replicas)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]

DEFAULT_REPLICAS: Mapping[int, str] = {
    1: "order-1:50051",
    2: "order-2:50051",
    3: "order-3:50051",
}


DEFAULT_CATALOG = ("catalog:50051",)
CATALOG_DESCRIPTION = "the catalog; or several, as `host:port,…`, of which one is active"


class ServiceSettings(BaseSettings):
    """The settings of every service. The variable's name is the field's, in capitals."""

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

# Variables with this prefix make a service fail on purpose. Only tests set them.
_RIG_PREFIX = "BOURSE_RIG_"


def load_settings(kind: type[AnySettings], service: str) -> AnySettings:
    """The settings in the environment; a wrong one ends the process with one clear line."""
    if rigged := sorted(name for name in os.environ if name.startswith(_RIG_PREFIX)):
        print(f"{service}: {', '.join(rigged)} set: that is for tests only", file=sys.stderr)
        raise SystemExit(2)
    _unset_empty(kind)
    try:
        return kind()
    except ValidationError as error:
        print(f"{service}: {describe(error, kind)}", file=sys.stderr)
        raise SystemExit(2) from None


def _unset_empty(kind: type[ServiceSettings]) -> None:
    """Removes empty variables, so that these settings have their defaults.

    gunicorn reads WEB_CONCURRENCY itself, and fails if it is empty.
    """
    for variable in [name for name, value in os.environ.items() if not value]:
        if variable.lower() in kind.model_fields:
            del os.environ[variable]


def describe(error: ValidationError, kind: type[ServiceSettings]) -> str:
    """Every wrong setting in one line: its variable, the value found and what is wrong.

    A value that may hold a password is not shown.
    """
    return "; ".join(_describe_one(detail, kind) for detail in error.errors())


def _describe_one(detail: ErrorDetails, kind: type[ServiceSettings]) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:  # several settings together are wrong: the input is all of them
        return f"settings: {message}"
    name = str(detail["loc"][0])
    if detail["type"] == "missing":  # here, too, the input is all settings
        return f"setting {name.upper()}: it is not set, and has no default"
    shown = "(not shown)" if _is_secret(name, kind) else repr(detail["input"])
    return f"setting {name.upper()}={shown}: {message}"


def _is_secret(name: str, kind: type[ServiceSettings]) -> bool:
    """A setting that is not in the settings' own `repr` is never shown."""
    return not kind.model_fields[name].repr
