"""Database addresses: reading one, and showing one without its password."""

from __future__ import annotations

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

POSTGRESQL = "postgresql+psycopg"


def parse_database_url(text: str) -> URL:
    """Read a PostgreSQL or SQLite address.

    Raises:
        ValueError: if it is neither; the message completes "the environment variable NAME …" and never repeats the
            address, which may contain a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(
            "is not a database address; write it like postgresql://user:password@host/name or "
            "sqlite:////folder/file.sqlite3."
        ) from None
    if url.drivername in ("postgresql", "postgres", POSTGRESQL):
        return url.set(drivername=POSTGRESQL)
    if url.drivername == "sqlite" and url.database not in (None, "", ":memory:"):
        return url
    raise ValueError(
        f"names neither a PostgreSQL database nor a SQLite file ('{url.drivername}'); use postgresql://… or "
        "sqlite:////folder/file.sqlite3."
    )


def display_url(url: URL) -> str:
    """The address of a database without its password; of SQLite, the path of its file."""
    return str(url.database) if url.drivername == "sqlite" else url.render_as_string(hide_password=True)
