"""Backups: one file that contains the whole database, checked when it is written, and how to restore it.

PostgreSQL is dumped by pg_dump (custom format), SQLite by its online backup; both are consistent while listeners
continue. A backup is written under a temporary name, read once completely, and renamed, so that every file with a
backup's name is complete. Names are rootnote-<UTC time>.dump or .sqlite3; other files in the folder are left alone.
A backup contains everything that the database does: keep it as safe.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.engine import URL

from embeddings.errors import RootnoteError
from embeddings.provenance import replacing
from server.db import database
from server.db.urls import display_url

SUFFIXES = {"postgresql+psycopg": ".dump", "sqlite": ".sqlite3"}
BY_PROVIDER = "provider"  # the value of ROOTNOTE_BACKUPS if the database's provider makes the backups
STAMP = "%Y%m%dT%H%M%SZ"


def backup(url: URL, folder: Path, keep: int, now: datetime | None = None) -> Path:
    """Write a backup of `url` into `folder` and delete the oldest ones beyond `keep`; its path.

    Raises:
        RootnoteError: if the database cannot be read, pg_dump is missing or too old, or the folder is full.
    """
    if str(folder) == BY_PROVIDER:
        raise RootnoteError("ROOTNOTE_BACKUPS says that the provider makes the backups; choose a folder with --to.")
    if url.drivername == "sqlite" and not Path(str(url.database)).is_file():
        raise RootnoteError(f"the database {display_url(url)} does not exist yet; there is nothing to back up.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    moment = (now or datetime.now(UTC)).strftime(STAMP)
    path = folder / f"rootnote-{moment}{SUFFIXES[url.drivername]}"
    with replacing(path, private=True) as temporary:
        write = _copy_sqlite if url.drivername == "sqlite" else _dump
        write(url, temporary)
    for old in find_backups(folder)[keep:]:
        old.unlink(missing_ok=True)
    return path


def find_backups(folder: Path) -> list[Path]:
    """The backups in a folder, newest first."""
    found = [path for suffix in SUFFIXES.values() for path in folder.glob(f"rootnote-*{suffix}")]
    return sorted(found, key=lambda path: path.name, reverse=True)


def restore(url: URL, path: Path) -> None:
    """Fill the empty database `url` from a backup.

    Raises:
        RootnoteError: if the file is not a backup, is of another kind of database, or `url` is not empty.
    """
    if not path.is_file():
        raise RootnoteError(f"{path} does not exist.")
    if path.suffix != SUFFIXES[url.drivername]:
        raise RootnoteError(
            f"{path} cannot be restored into {display_url(url)}; choose a backup that ends in "
            f"{SUFFIXES[url.drivername]}, or name another database in ROOTNOTE_DATABASE_URL."
        )
    if url.drivername == "sqlite":
        _restore_sqlite(path, Path(str(url.database)))
    else:
        _require_empty(url)
        arguments = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
        _run("pg_restore", url, *arguments, str(path))


def _dump(url: URL, path: Path) -> None:
    _run("pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", f"--file={path}")
    # Converting it to SQL reads every row: a truncated file or a bad block is found now, not when it is needed.
    _run("pg_restore", None, "--file=-", str(path))


def _run(program: str, url: URL | None, *arguments: str) -> None:
    """Run one of PostgreSQL's programs; the password is in its environment, which no process list shows."""
    found = shutil.which(program)
    if found is None:
        raise RootnoteError(f"{program} is not installed; install PostgreSQL's client (Debian: postgresql-client).")
    command, environment = [found, *arguments[:-1]], dict(os.environ)
    if url is not None:
        address = url.set(drivername="postgresql", password=None)
        command.append(f"--dbname={address.render_as_string(hide_password=False)}")
        environment |= {"PGPASSWORD": str(url.password)} if url.password else {}
    done = subprocess.run(
        [*command, *arguments[-1:]], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if done.returncode != 0:
        raise RootnoteError(f"{program} failed: {_reason(done.stderr.decode(errors='replace'))}.")


def _reason(output: str) -> str:
    """The first error in a program's output, without the program's name; it never quotes a row."""
    lines = [line.strip() for line in output.splitlines() if "error" in line.lower()] or ["it gave no reason"]
    return lines[0].partition("error:")[2].strip().rstrip(".") or lines[0]


def _require_empty(url: URL) -> None:
    engine = database.connect(url)
    try:
        database.check_reachable(engine)
        with engine.connect() as connection:
            tables = inspect(connection).get_table_names()
    finally:
        engine.dispose()
    if tables:
        raise RootnoteError(
            f"the database {display_url(url)} already contains tables; create an empty one and "
            "name it in ROOTNOTE_DATABASE_URL."
        )


def _copy_sqlite(url: URL, path: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"file:{url.database}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)
        _check_sqlite(path)
    except sqlite3.Error as error:
        raise RootnoteError(f"the database {display_url(url)} cannot be backed up ({error}).") from None


def _check_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _restore_sqlite(path: Path, target: Path) -> None:
    # The -wal file of a database that was not closed has its latest answers; it would corrupt another database.
    siblings = [target.with_name(f"{target.name}{ending}") for ending in ("", "-wal", "-shm", "-journal")]
    if found := [path.name for path in siblings if path.exists()]:
        raise RootnoteError(
            f"{target.parent} already contains a database ({', '.join(found)}); move all these files away together, or "
            "name another database in ROOTNOTE_DATABASE_URL."
        )
    with replacing(target, private=True) as temporary:
        shutil.copyfile(path, temporary)
        try:
            _check_sqlite(temporary)
        except sqlite3.Error as error:
            raise RootnoteError(f"{path} is damaged ({error}); take an older backup.") from None
