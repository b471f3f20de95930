"""A database that is only looked at: nothing is created, migrated or changed, not even a file next to it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

CONNECT_SECONDS = 3


def open_read_only(url: URL) -> Engine | None:
    """An engine that cannot write; None if there is no SQLite file yet. Nothing is opened before it is used."""
    if url.drivername != "sqlite":
        arguments = {"connect_timeout": CONNECT_SECONDS, "options": "-c default_transaction_read_only=on"}
        return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    path = Path(str(url.database))
    if not path.is_file():
        return None
    # Without a journal nobody has the database open, and SQLite need not create the journal in order to read.
    unused = not Path(f"{path}-wal").exists()
    address = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if unused else ''}"

    def connect() -> Any:
        return sqlite3.connect(address, uri=True, check_same_thread=False)

    return create_engine("sqlite://", creator=connect, poolclass=NullPool)
