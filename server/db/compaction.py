"""Overwriting what deleted rows leave behind in the database's files.

SQLite overwrites deleted content at once (PRAGMA secure_delete); its WAL keeps older pages until a checkpoint.
PostgreSQL keeps deleted rows until their space is used again. Here the tables are rewritten, which only their owner may
do. Neither reaches PostgreSQL's own WAL, its archives, backups, or a disk's spare sectors.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

WAIT = "2s"  # for a table that listeners are using


def compact(engine: Engine, tables: Iterable[str]) -> bool:
    """Rewrite tables, or the whole file of SQLite; False if this role may not, or they are in use."""
    with engine.execution_options(alone=True).connect() as connection:
        try:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("VACUUM")
                return _truncate_wal(connection)
            return _rewrite(connection, tables)
        except DBAPIError:
            return False


def truncate_wal(engine: Engine) -> None:
    """Empty SQLite's WAL, as far as no reader needs it; no effect on PostgreSQL."""
    if engine.dialect.name == "sqlite":
        with engine.execution_options(alone=True).connect() as connection:
            _truncate_wal(connection)


def _truncate_wal(connection: Connection) -> bool:
    busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    return not busy


def _rewrite(connection: Connection, tables: Iterable[str]) -> bool:
    names = sorted(tables)
    owned = text("SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class WHERE relname = ANY(:names)")
    if not connection.scalar(owned, {"names": names}):
        return False
    connection.exec_driver_sql(f"SET lock_timeout = '{WAIT}'")
    try:
        for name in names:
            connection.exec_driver_sql(f'VACUUM (FULL) "{name}"')
    finally:
        connection.exec_driver_sql("RESET lock_timeout")
    return True
