"""Checks of the database: that it can be reached, is migrated and belongs to this study, and what its role may do."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, text

from embeddings.errors import RootnoteError
from server.db import database
from server.db.models import StudyRecord
from server.db.urls import display_url
from server.doctor.check import DoctorContext, Finding

CLOCK_SECONDS = 2.0
ROLES = "run deploy/postgresql/roles.sql, migrate as rootnote_owner and serve as rootnote_app"
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
EXCESSIVE_RIGHTS = {
    "can do anything (it is a superuser)": "SELECT rolsuper FROM pg_roles WHERE rolname = current_user",
    "can create roles": "SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user",
    "can create databases": "SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user",
    "can create tables": "SELECT has_schema_privilege(current_schema(), 'CREATE')",
    "can drop and alter tables": (
        "SELECT bool_or(pg_has_role(c.relowner, 'MEMBER')) FROM pg_class c "
        "WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'S')"
    ),
    "can truncate tables or set triggers": (
        "SELECT bool_or(has_table_privilege(c.oid, 'TRUNCATE, TRIGGER')) FROM pg_class c "
        "WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')"
    ),
}
TABLES_WITHOUT_RIGHT = (
    "SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace "
    "AND c.relkind IN ('r', 'p') AND NOT has_table_privilege(c.oid, :right) ORDER BY 1"
)
DURABILITY_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")


def check_database(deployment: DoctorContext) -> Iterator[Finding]:
    """It can be reached, is migrated, belongs to this schedule, and loses nothing that it has acknowledged."""
    url = deployment.settings.database
    revision = database.require_migrated(deployment.engine, f"rootnote server migrate {deployment.folder}")
    yield Finding("ok", f"{display_url(url)} is at revision {revision}.")
    with deployment.engine.connect() as connection:
        schedule = connection.scalar(select(StudyRecord.schedule))
        settings = (
            {}
            if deployment.on_sqlite
            else {name: connection.scalar(text(f"SHOW {name}")) for name in DURABILITY_SETTINGS}
        )
        skew = 0.0 if deployment.on_sqlite else _skew(connection)
    if schedule not in (None, deployment.plan.schedule_fingerprint):
        yield Finding(
            "error", "The database belongs to another schedule.", "restore the study folder that it was created with"
        )
    for name, value in settings.items():
        if value == "off":
            yield Finding(
                "error", f"PostgreSQL's {name} is off, so an acknowledged answer may be lost.", f"set {name} = on"
            )
    if abs(skew) > CLOCK_SECONDS:
        yield Finding(
            "error", f"The database's clock differs from this machine's by {skew:+.0f} s.", "synchronise both clocks"
        )


def _skew(connection: Connection) -> float:
    before = time.time()
    database_time = float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)
    return database_time - (before + time.time()) / 2


def check_role(deployment: DoctorContext) -> Iterator[Finding]:
    """The server's role can use the tables and nothing else, and the connection is encrypted."""
    if deployment.on_sqlite:
        yield from _check_sqlite_file(Path(str(deployment.settings.database.database)))
        return
    try:
        database.check_reachable(deployment.engine)
    except RootnoteError:
        yield Finding("unknown", "Not checked, because the database cannot be reached.")
        return
    with deployment.engine.connect() as connection:
        excessive = [right for right, query in EXCESSIVE_RIGHTS.items() if connection.scalar(text(query))]
        lacking = {right: list(connection.scalars(text(TABLES_WITHOUT_RIGHT), {"right": right})) for right in RIGHTS}
        encrypted = connection.scalar(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    if excessive:
        rights = _list(excessive)
        yield Finding("error", f"The database role {rights}, and so can anyone who breaks into the server.", ROLES)
    for right, tables in lacking.items():
        if tables:
            yield Finding("error", f"The database role may not {right} in {_list(tables)}.", ROLES)
    if not excessive and not any(lacking.values()):
        yield Finding("ok", "The database role can use the tables, and can neither drop, alter nor create any.")
    if not encrypted and _is_public(deployment.settings.database.host, deployment.settings.database.query.get("host")):
        fix = "add ?sslmode=verify-full&sslrootcert=… to ROOTNOTE_DATABASE_URL"
        yield Finding("error", "The connection to the database is not encrypted.", fix)


def _check_sqlite_file(path: Path) -> Iterator[Finding]:
    if path.is_file() and path.stat().st_mode & 0o077:
        yield Finding("error", f"Other users of this machine can read {path}.", f"chmod go= {path}")
    fix = "for more than a pilot, use PostgreSQL with deploy/postgresql/roles.sql"
    yield Finding("warning", "SQLite has no roles, so anyone who breaks into the server can change every table.", fix)


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _is_public(host: str | None, query: Any) -> bool:
    """Whether the database is reached over a public network, not through a socket or a private address."""
    name = host or (query if isinstance(query, str) else "")
    if not name or name.startswith("/"):
        return False
    return not is_private(name)


def is_private(host: str) -> bool:
    """Whether every address of `host` belongs to this machine or a private network.

    Raises:
        OSError: if the name has no address.
    """
    addresses = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(address).is_private for address in addresses)
