"""The catalog's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from common.settings import RpcServiceSettings


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
