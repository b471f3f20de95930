"""`rootnote server audit` and `rootnote server consents`: log and seals, and what listeners agreed to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.commands.common import json_option, opened, rehearsal_option, study_argument

if TYPE_CHECKING:
    from server.audit.hash_chain import ChainEnd
    from server.audit.verification import Verification
    from server.audit.witness import WitnessRecord
    from server.db.models import LogEntry
    from study.config import Study

LAST_ENTRIES = 20


@click.command()
@study_argument
@rehearsal_option
@click.option(
    "--verify", is_flag=True, help="Check the whole log and all answers; exit with status 1 if anything was changed."
)
@click.option(
    "--noted", metavar="NUMBER:HASH", help="An end of the log that you recorded elsewhere, and that must be in it."
)
@click.option(
    "--restored",
    metavar="REASON",
    help="Log that an earlier copy of the database was put back without `server restore`, such as by its provider.",
)
@click.option("--all", "everything", is_flag=True, help=f"Show every entry, not only the last {LAST_ENTRIES}.")
@json_option
def audit(
    folder: Path,
    rehearsal: bool,
    verify: bool,
    noted: str | None,
    restored: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Show the log of what researchers and commands did, or --verify that log and answers are unchanged.

    --verify also compares them with the witness, witness.jsonl next to the journal of erasures, if there is one on
    this machine: it reveals deleted answers, and an earlier copy of the database that was put back.

    Without --noted, --verify looks for the end of the log in export.json, if the study's folder contains one.

    Example: rootnote server audit my-study --verify --noted "$(cat noted.txt)"
    """
    from sqlalchemy import select

    from server.audit import hash_chain, verification
    from server.db import database
    from server.db.models import LogEntry
    from server.settings import former_secrets

    with opened(folder, rehearsal, secret=True) as (study, engine):
        secrets = [str(engine.get_execution_options()[database.LOG_SECRET_OPTION]), *former_secrets(os.environ)]
        if restored is not None:
            click.echo(_record_restore(engine, restored))
            return
        # Before the snapshot: what is recorded was committed earlier.
        recorded = _read_witness(engine, secrets) if verify or noted else None
        with database.snapshot(engine) as session:
            if verify or noted:
                known_end = _read_end(noted) if noted or rehearsal else _exported_end(study)
                _print_verification(verification.verify(session, secrets, known_end, recorded), as_json)
                return
            last = select(LogEntry).order_by(LogEntry.id.desc()).limit(None if everything else LAST_ENTRIES)
            rows, end = list(session.scalars(last))[::-1], hash_chain.end(session)
    if as_json:
        click.echo(json.dumps({"entries": [_entry(row) for row in rows], "end": str(end)}))
        return
    for row in rows:
        click.echo(_line(row))
    click.echo(f"The log ends at {end}. Record this elsewhere, for `rootnote server audit --noted`.")


def _read_witness(engine: Any, secrets: list[str]) -> WitnessRecord | None:
    from server.audit.seals import SealKeys
    from server.audit.witness import witness_of
    from server.db import database

    with database.reading(engine) as session:
        found = witness_of(session)
    return found.read([SealKeys(one) for one in secrets]) if found else None


def _record_restore(engine: Any, reason: str) -> str:
    from server.assignments.experiment import utc_now
    from server.audit import resuming
    from server.audit.actor import current_actor
    from server.audit.seals import require_keys
    from server.audit.witness import witness_of
    from server.db import database

    with database.writing(engine) as session, session.begin():
        found = witness_of(session)
        if found is None:
            raise RootnoteError("a rehearsal has no witness; --restored is for the real database.")
        resuming.record_restore(
            session, found, require_keys(session), who=current_actor(), file="without `server restore`", reason=reason
        )
    with database.writing(engine) as session, session.begin():
        resuming.resume(session, utc_now())
    return "Logged that the database was restored. The witness accepts its present state."


def _entry(row: LogEntry) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in ("number", "who", "what", "detail", "reason")}
    return values | {"at": row.at.isoformat()}


def _line(row: LogEntry) -> str:
    note = "; ".join(text for text in (row.detail, row.reason) if text)
    number = "-" if row.number is None else row.number
    return f"{number:>5}  {row.at:%Y-%m-%d %H:%M:%S}  {row.who}  {row.what}" + (f" ({note})" if note else "")


def _read_end(noted: str | None) -> ChainEnd | None:
    from server.audit.hash_chain import ChainEnd

    if noted is None:
        return None
    number, _, digest = noted.partition(":")
    if not (number.isascii() and number.isdigit()) or len(digest) != 64:
        raise RootnoteError(f"--noted is '{noted}'; it must be NUMBER:HASH, as `rootnote server audit` prints it.")
    return ChainEnd(int(number), digest)


def _exported_end(study: Study) -> ChainEnd | None:
    """The end of the log that the last export recorded in the study's folder."""
    from study.export_manifest import read_manifest

    exported = read_manifest(study.folder)
    return _read_end(exported.log) if exported and exported.log and not exported.log.startswith("0:") else None


def _print_verification(result: Verification, as_json: bool) -> None:
    if as_json:
        values = {"entries": result.entries, "answers": result.answers, "end": str(result.end)}
        click.echo(json.dumps({**values, "faults": result.faults, "notes": result.notes}))
    for fault in () if as_json else result.faults:
        click.echo(fault)
    for note in () if as_json else result.notes:
        click.echo(note)
    if result.faults:
        raise RootnoteError(
            f"the log or the answers have been changed; the check found {counted(len(result.faults), 'fault')}."
        )
    if not as_json:
        entries, answers = counted(result.entries, "entry", "entries"), counted(result.answers, "answer")
        click.echo(f"The log ({entries}) and {answers} are unchanged. The log ends at {result.end}.")
        if result.began:
            unsealed = counted(result.unsealed, "unsealed entry", "unsealed entries")
            earlier = f", after {unsealed}" if result.unsealed else ""
            click.echo(f"The chain began at {result.began:%Y-%m-%d %H:%M} UTC{earlier}.")


@click.command(name="consents")
@study_argument
@rehearsal_option
@click.option("--listeners", is_flag=True, help="List the version that each assignment agreed to, as CSV.")
@click.option(
    "--show", metavar="HASH", help="Print the text of a version (the first characters of its hash are enough)."
)
@json_option
def consents_(folder: Path, rehearsal: bool, listeners: bool, show: str | None, as_json: bool) -> None:
    """List the versions of the consent text.

    For each version: when it was first shown, and how many listeners agreed to it.
    """
    from server.db import database
    from server.privacy import consent_texts

    with opened(folder, rehearsal) as (_, engine), database.reading(engine) as session:
        found, agreed = consent_texts.versions(session), consent_texts.agreed_to(session) if listeners else []
    if show:
        texts = [one.text for one in found if one.hash.startswith(show)]
        if len(texts) != 1:
            number = counted(len(texts), "version has", "versions have") if texts else "no version has"
            raise RootnoteError(f"{number} a hash that begins with '{show}'; `rootnote server consents` lists all.")
        click.echo(texts[0], nl=False)
        return
    if listeners:
        click.echo("assignment,version,consented_at")
        for pseudonym, version, at in agreed:
            click.echo(f"{pseudonym},{version},{at.isoformat(timespec='seconds')}")
        return
    if as_json:
        names = ("hash", "language", "number", "agreed")
        versions = [{name: getattr(one, name) for name in names} | {"since": one.since.isoformat()} for one in found]
        click.echo(json.dumps(versions))
        return
    for one in found:
        since = f"{one.since:%Y-%m-%d %H:%M} UTC"
        click.echo(f"{one.language} version {one.number}  since {since}  {one.agreed} agreed  {one.hash}")
    if not found:
        click.echo("No consent text has been shown yet.")
