"""Whether a database can keep what the catalog promises."""

from __future__ import annotations

from typing import NamedTuple

from catalog.postgres.bounded import Bounded
from catalog.postgres.session import SessionLost
from catalog.postgres.statements import VERSION
from catalog.settings import Durability

_OLDEST = 150_000  # PostgreSQL 15, as `server_version_num`

_LOOK = """
SELECT current_setting('server_version_num')::integer,
       pg_encoding_to_char(encoding),
       datlocprovider = 'b' OR (datlocprovider = 'c' AND datcollate IN ('C', 'POSIX')),
       current_setting('fsync') = 'on',
       current_setting('synchronous_standby_names') <> '',
       (SELECT count(*) FROM pg_stat_replication
        WHERE coalesce(sync_state, 'not for us to see') <> 'async') > 0
FROM pg_database WHERE datname = current_database()
"""

NO_STANDBY = (
    "no synchronous standby: DATABASE_DURABILITY=replicated needs synchronous_standby_names to "
    "name one, and it to be connected"
)


class Unfit(SessionLost):
    """This database must not be used as it is; the message says why."""


class _Seen(NamedTuple):
    version: int
    encoding: str
    sorts_by_bytes: bool
    is_on_disk: bool
    waits_for_standby: bool
    has_standby: bool


def check_fit(connection: Bounded, durability: Durability) -> None:
    """Raises Unfit if the database cannot keep what the catalog promises."""
    row = connection.execute(_LOOK).fetchone()
    if row is None:
        raise Unfit("the database is being dropped")
    if wrong := _wrong(_Seen(*row), durability):
        raise Unfit(wrong)


def _wrong(seen: _Seen, durability: Durability) -> str:
    """What is wrong, or an empty string."""
    wrong = {
        "the catalog needs PostgreSQL 15 or later": seen.version < _OLDEST,
        f"the database has the encoding {seen.encoding}, it must be UTF8": seen.encoding != "UTF8",
        # Else an update of the server's operating system can change the order, and break indexes.
        "the database must sort by bytes: create it with TEMPLATE template0 LOCALE 'C'": (
            not seen.sorts_by_bytes
        ),
        "the server runs with fsync=off: what it commits is not on its disk": (
            not seen.is_on_disk and durability is not Durability.MANAGED
        ),
        NO_STANDBY: (
            durability is Durability.REPLICATED
            and not (seen.waits_for_standby and seen.has_standby)
        ),
    }
    return next((reason for reason, is_wrong in wrong.items() if is_wrong), "")


def check_version(found: int) -> None:
    """Raises Unfit unless the database has this catalog's schema."""
    if found < VERSION:
        raise Unfit(
            f"the database has schema version {found}, this catalog needs {VERSION}: "
            "run `python -m catalog migrate`"
        )
    if found > VERSION:
        raise Unfit(f"schema version {found}, but this catalog knows versions up to {VERSION} only")
