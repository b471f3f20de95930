"""The witness: a file outside the database that reveals an earlier state of it.

Someone who owns the database can put back an earlier copy, log and sealed end together, or delete the newest answers.
So after each commit a sealed line is appended to a file next to the journal of erasures: the new end of the log, or an
answer that was saved (its run's pseudonym and its number, never the choice). Everything in the file must be in the
database, except what listeners had erased, which the log says.

Each line names the database (by a hash of its address), because a copied study folder may bring a file of another one.
Servers on several hosts have a file each, and each must agree with the database. A file that cannot be written stops
nothing: it is reported by the doctor and in the server's log. `server restore` writes a line that excuses what the
backup lacks; the next start logs it and begins a new baseline (`server.audit.resuming`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.audit.seals import SealKeys, keys_of
from server.db import append_only
from server.db.database import WITNESS_OPTION

PENDING = "rootnote_witness"
ANSWER, LOG, BEGAN, RESTORED, RESUMED = "answer", "log", "began", "restored", "resumed"
MARKS = (BEGAN, RESTORED, RESUMED)
log = logging.getLogger(__name__)


@dataclass
class WitnessRecord:
    """What a witness has recorded of one database.

    `began`: since when (ISO time), "" if it has recorded nothing; `ends`: ends of the log, as (number, hash);
    `answers`: saved answers, as (pseudonym, item); `restored`: the end of the log of a backup that was restored and
    not resumed yet; `forged`: numbers of lines with a wrong seal.
    """

    began: str = ""
    ends: set[tuple[int, str]] = field(default_factory=set)
    answers: set[tuple[str, str]] = field(default_factory=set)
    restored: dict[str, Any] | None = None
    forged: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Witness:
    """The file of one database's server; `database` names it without revealing its address."""

    path: Path
    database: str

    @property
    def is_empty(self) -> bool:
        """Whether the file has recorded nothing of this database; needs no secret."""
        return not any(values.get("database") == self.database for _, values in self._lines(marks_only=True))

    def append(self, keys: SealKeys, records: Iterable[dict[str, Any]], *, sync: bool = True) -> None:
        """Append sealed lines.

        Raises:
            OSError: if the file cannot be written.
        """
        lines = []
        for record in records:
            values = {"database": self.database, **record}
            lines.append(json.dumps({**values, "seal": keys.seal("witness", _text(values))}))
        append_only.append(self.path, "".join(f"{line}\n" for line in lines).encode(), sync=sync)

    def read(self, keys: Sequence[SealKeys], *, marks_only: bool = False) -> WitnessRecord:
        """What the file has recorded of this database; a missing file has recorded nothing.

        Args:
            keys: the current ones first, then former ones.
            marks_only: skip answers and ends of the log, which are many.

        Raises:
            RootnoteError: if the file cannot be read.
        """
        found = WitnessRecord()
        for number, values in self._lines(marks_only):
            if values.get("database") != self.database:
                continue
            seal = values.pop("seal", None)
            if any(one.is_seal("witness", _text(values), seal) for one in keys):
                _add(found, values)
            else:
                found.forged.append(number)
        return found

    def _lines(self, marks_only: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        try:
            lines = self.path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise RootnoteError(f"the witness {self.path} cannot be read: {error}.") from None
        for number, line in enumerate(lines, start=1):
            if marks_only and not any(f'"what": "{mark}"' in line for mark in MARKS):
                continue
            try:
                values = json.loads(line)
            except ValueError:
                continue  # a crash of the machine may leave such a line
            if isinstance(values, dict):
                yield number, values


def _text(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _add(found: WitnessRecord, values: dict[str, Any]) -> None:
    match values["what"]:
        case "answer":
            found.answers.add((values["run"], values["item"]))
        case "restored":
            found.restored = values
        case "resumed":
            kept = values["restored"]
            found.ends = {end for end in found.ends if end[0] <= kept}
            found.answers.clear()
            found.restored = None
        case "began":
            found.began = found.began or values["at"]
    if values["what"] in (LOG, BEGAN, RESUMED) and values["number"]:
        found.ends.add((values["number"], values["hash"]))


def name_database(url: URL) -> str:
    """A name of a database's address, the same for every user and password."""
    if url.drivername == "sqlite":
        place = str(Path(str(url.database)).resolve())
    else:
        place = f"{url.host or url.query.get('host', '')}:{url.port or 5432}/{url.database}"
    return hashlib.sha256(f"{url.get_backend_name()} {place}".encode()).hexdigest()[:16]


def witness_of(session: Session) -> Witness | None:
    """The witness of a session's engine; None if it has none (a rehearsal, or a command without the secret)."""
    bind = session.get_bind()
    path = bind.get_execution_options().get(WITNESS_OPTION)
    return Witness(path, name_database(bind.engine.url)) if path else None


# ------------------------------------------------------------------ recording, after the commit


def note(session: Session, records: Iterable[dict[str, Any]]) -> None:
    """Record something once the session's transaction is committed."""
    if session.get_bind().get_execution_options().get(WITNESS_OPTION) and keys_of(session) is not None:
        session.info.setdefault(PENDING, []).extend(records)


def note_entry(session: Session, number: int, digest: str) -> None:
    """Record the new end of the log."""
    note(session, [{"what": LOG, "number": number, "hash": digest}])


def note_answer(session: Session, run: str, item: str) -> None:
    """Record that an answer was saved."""
    note(session, [{"what": ANSWER, "run": run, "item": item}])


@event.listens_for(Session, "after_commit")
def _write_pending(session: Session) -> None:
    if session.in_nested_transaction():
        return
    records = session.info.pop(PENDING, None)
    found, keys = (witness_of(session), keys_of(session)) if records else (None, None)
    if found is None or keys is None:
        return
    try:
        # An answer does not wait for the disk: what a crash of the machine loses here accuses nobody.
        found.append(keys, records, sync=any(record["what"] != ANSWER for record in records))
    except OSError as error:
        log.error("the witness cannot be written (%s)", error.strerror)


@event.listens_for(Session, "after_rollback")
def _forget_pending(session: Session) -> None:
    session.info.pop(PENDING, None)
