"""What the database shows: that it is there, migrated and this study's, and what its role may do."""

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
TOO_MUCH = {
    "is a superuser": "SELECT rolsuper FROM pg_roles WHERE rolname = current_user",
    "may make roles": "SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user",
    "may make databases": "SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user",
    "may make tables": "SELECT has_schema_privilege(current_schema(), 'CREATE')",
    "may drop and alter tables": (
        "SELECT bool_or(pg_has_role(c.relowner, 'MEMBER')) FROM pg_class c "
        "WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'S')"
    ),
    "may truncate tables or set triggers": (
        "SELECT bool_or(has_table_privilege(c.oid, 'TRUNCATE, TRIGGER')) FROM pg_class c "
        "WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')"
    ),
}
LACKING = (
    "SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace "
    "AND c.relkind IN ('r', 'p') AND NOT has_table_privilege(c.oid, :right) ORDER BY 1"
)
SAFE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


def check_database(case: DoctorContext) -> Iterator[Finding]:
    """It is reachable, migrated, of this schedule, and keeps what it acknowledges."""
    url = case.settings.database
    revision = database.require_migrated(case.engine, f"rootnote server migrate {case.command}")
    yield Finding("ok", f"{display_url(url)} is at revision {revision}.")
    with case.engine.connect() as connection:
        schedule = connection.scalar(select(StudyRecord.schedule))
        settings = {} if case.on_sqlite else {name: connection.scalar(text(f"SHOW {name}")) for name in SAFE}
        skew = 0.0 if case.on_sqlite else _skew(connection)
    if schedule not in (None, case.plan.schedule_fingerprint):
        yield Finding(
            "wrong", "The database belongs to another schedule.", "restore the study folder it was begun with"
        )
    for name, value in settings.items():
        if value == "off":
            yield Finding(
                "wrong", f"PostgreSQL's {name} is off: an acknowledged answer may be lost.", f"set {name} = on"
            )
    if abs(skew) > CLOCK_SECONDS:
        yield Finding("wrong", f"The database's clock is {skew:+.0f} s from this machine's.", "synchronise both clocks")


def _skew(connection: Connection) -> float:
    before = time.time()
    there = float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)
    return there - (before + time.time()) / 2


def check_role(case: DoctorContext) -> Iterator[Finding]:
    """The role that serves can use the tables and do nothing else; nobody reads along."""
    if case.on_sqlite:
        yield from _file_of_its_own(Path(str(case.settings.database.database)))
        return
    try:
        database.check_reachable(case.engine)
    except RootnoteError:
        yield Finding("unknown", "Not looked at, because the database cannot be reached.")
        return
    with case.engine.connect() as connection:
        too_much = [what for what, query in TOO_MUCH.items() if connection.scalar(text(query))]
        lacking = {right: list(connection.scalars(text(LACKING), {"right": right})) for right in RIGHTS}
        encrypted = connection.scalar(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    if too_much:
        yield Finding("wrong", f"The database role {_list(too_much)}; a break-in of the server would too.", ROLES)
    for right, tables in lacking.items():
        if tables:
            yield Finding("wrong", f"The database role may not {right} in {_list(tables)}.", ROLES)
    if not too_much and not any(lacking.values()):
        yield Finding("ok", "The database role can use the tables, and neither drop, alter nor make any.")
    if not encrypted and _is_far(case.settings.database.host, case.settings.database.query.get("host")):
        mend = "add ?sslmode=verify-full&sslrootcert=… to ROOTNOTE_DATABASE_URL"
        yield Finding("wrong", "Answers travel to the database unencrypted.", mend)


def _file_of_its_own(path: Path) -> Iterator[Finding]:
    if path.is_file() and path.stat().st_mode & 0o077:
        yield Finding("wrong", f"Others on this machine may read {path}.", f"chmod go= {path}")
    mend = "take PostgreSQL with deploy/postgresql/roles.sql for more than a pilot"
    yield Finding("look", "SQLite has no roles: a break-in of the server may change every table.", mend)


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _is_far(host: str | None, query: Any) -> bool:
    """Whether the database is reached by a public network: no socket, no address of a private one."""
    name = host or (query if isinstance(query, str) else "")
    if not name or name.startswith("/"):
        return False
    return not is_private(name)


def is_private(host: str) -> bool:
    """Whether every address of `host` is this machine's or a private network's.

    Raises:
        OSError: where the name has no address.
    """
    found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(address).is_private for address in found)
