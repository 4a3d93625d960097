"""The catalog's settings."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from common.settings import RpcServiceSettings

_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_DATABASE_URL = re.compile(
    rf"postgres(?:ql)?://(?:[^@/?#]*@)?{_HOST}(?:,{_HOST})*/[^/?#]+(?:\?.*)?"
)


class Durability(StrEnum):
    """Where an order must be before it is acknowledged."""

    REPLICATED = "replicated"  # on the disks of the node that takes writes, and of a standby
    MANAGED = "managed"  # wherever the service that runs the database puts it
    SINGLE = "single"  # on the disk of the only node; whoever loses that loses orders


def _check_database_url(value: Any) -> Any:
    """It quotes nothing: any part can belong to the password."""
    if isinstance(value, str) and value and not _DATABASE_URL.fullmatch(value):
        raise ValueError(
            "expected postgresql://user:password@host:port,host:port/database?parameter=value"
        )
    return value


# It may have a password, so it is never shown.
DatabaseUrl = Annotated[str, BeforeValidator(_check_database_url), Field(repr=False)]


class CatalogSettings(RpcServiceSettings):
    catalog_threadpool_size: int = Field(
        default=32,
        ge=2,  # streams are kept below it, so that lookups and trades find a thread
        le=1_000,
        description="calls the catalog serves at once",
    )
    data_dir: Path = Field(
        default=Path("data/catalog"), description="directory of the service's data"
    )
    stocks_file: Path = Field(
        default=Path(__file__).with_name("stockDB.txt"),
        description="the initial stocks, read when `DATA_DIR` is empty",
    )
    database_url: DatabaseUrl = Field(
        default="",
        description="the PostgreSQL to keep the data in, with every node of it; empty: SQLite in "
        "`DATA_DIR`",
    )
    database_password_file: str = Field(
        default="",
        description="file with the password of the user in `DATABASE_URL`, read at each connection",
    )
    database_durability: Durability = Field(
        default=Durability.REPLICATED,
        description="`replicated`: only with a synchronous standby; `managed`: as the service "
        "that runs the database has it; `single`: on one disk",
    )
    office_s: float = Field(
        default=1.0,
        ge=0.2,
        le=60,
        description="for how long one transaction keeps a catalog the active one; another takes "
        "over after a quarter more. The same in every catalog",
    )
