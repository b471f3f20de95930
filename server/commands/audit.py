"""`rootnote server audit` and `rootnote server consents`: what was done, and what was agreed to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embeddings.errors import RootnoteError
from server.commands.common import json_option, opened, rehearsal_option, study_argument

if TYPE_CHECKING:
    from server.audit import hash_chain
    from server.audit.hash_chain import ChainEnd
    from server.db.models import LogEntry
    from study.config import Study

SHOWN = 20


@click.command()
@study_argument
@rehearsal_option
@click.option("--verify", is_flag=True, help="Check the whole log; status 1 where anything in it was changed.")
@click.option("--noted", metavar="NUMBER:HASH", help="An end of the log that was noted elsewhere, to be found in it.")
@click.option("--all", "everything", is_flag=True, help=f"Every entry, not only the last {SHOWN}.")
@json_option
def audit(folder: Path, rehearsal: bool, verify: bool, noted: str | None, everything: bool, as_json: bool) -> None:
    """Show the log of what researchers and commands did, with its end to be noted elsewhere, or --verify it.

    Without --noted it looks for the end that export.json in the study's folder holds, where there is one.
    Example: rootnote server audit my-study --verify --noted "$(cat noted.txt)"
    """
    from sqlalchemy import select

    from server.audit import hash_chain
    from server.db import database
    from server.db.models import LogEntry
    from server.settings import former_secrets

    with opened(folder, rehearsal, secret=True) as (study, engine), database.snapshot(engine) as session:
        secrets = [str(engine.get_execution_options()[database.LOG_SECRET_OPTION]), *former_secrets(os.environ)]
        if verify or noted:
            found = _read_end(noted) if noted or rehearsal else _exported_end(study)
            _tell(hash_chain.verify(session, secrets, found), as_json)
            return
        last = select(LogEntry).order_by(LogEntry.id.desc()).limit(None if everything else SHOWN)
        rows, end = list(session.scalars(last))[::-1], hash_chain.end(session)
    if as_json:
        click.echo(json.dumps({"entries": [_told(row) for row in rows], "end": str(end)}))
        return
    for row in rows:
        click.echo(_line(row))
    click.echo(f"The log ends at {end}; note this elsewhere, for `rootnote server audit --noted`.")


def _told(row: LogEntry) -> dict[str, Any]:
    told = {name: getattr(row, name) for name in ("number", "who", "what", "detail", "reason")}
    return told | {"at": row.at.isoformat()}


def _line(row: LogEntry) -> str:
    words = "; ".join(text for text in (row.detail, row.reason) if text)
    number = "-" if row.number is None else row.number
    return f"{number:>5}  {row.at:%Y-%m-%d %H:%M:%S}  {row.who}  {row.what}" + (f" ({words})" if words else "")


def _read_end(noted: str | None) -> ChainEnd | None:
    from server.audit.hash_chain import ChainEnd

    if noted is None:
        return None
    number, _, digest = noted.partition(":")
    if not (number.isascii() and number.isdigit()) or len(digest) != 64:
        raise RootnoteError(f"--noted is '{noted}', not NUMBER:HASH as `rootnote server audit` prints it.")
    return ChainEnd(int(number), digest)


def _exported_end(study: Study) -> ChainEnd | None:
    """The end that the last export noted beside the study."""
    from study.export_manifest import read_manifest

    exported = read_manifest(study.folder)
    return _read_end(exported.log) if exported and exported.log and not exported.log.startswith("0:") else None


def _tell(verdict: hash_chain.Verification, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"entries": verdict.entries, "end": str(verdict.end), "faults": verdict.faults}))
    for fault in () if as_json else verdict.faults:
        click.echo(fault)
    if verdict.faults:
        raise RootnoteError(f"the log is not as it was written: {len(verdict.faults)} faults.")
    if not as_json:
        began = f"{verdict.began:%Y-%m-%d %H:%M} UTC" if verdict.began else "not yet"
        click.echo(f"All {verdict.entries} entries are as they were written. The log ends at {verdict.end}.")
        click.echo(f"It was begun {began}, with {verdict.unsealed} entries from before.")


@click.command(name="consents")
@study_argument
@rehearsal_option
@click.option("--listeners", is_flag=True, help="Who agreed to which, by pseudonym of the assignment, as CSV.")
@click.option("--show", metavar="HASH", help="Print the text of a version (the beginning of its hash will do).")
@json_option
def consents_(folder: Path, rehearsal: bool, listeners: bool, show: str | None, as_json: bool) -> None:
    """Every version of the consent text that was shown, since when, and how many agreed to it."""
    from server.db import database
    from server.privacy import consent_texts

    with opened(folder, rehearsal) as (_, engine), database.reading(engine) as session:
        found, agreed = consent_texts.versions(session), consent_texts.agreed_to(session) if listeners else []
    if show:
        texts = [one.text for one in found if one.hash.startswith(show)]
        if len(texts) != 1:
            raise RootnoteError(f"{len(texts)} versions begin with {show}; `rootnote server consents` lists them.")
        click.echo(texts[0], nl=False)
        return
    if listeners:
        click.echo("assignment,version,consented_at")
        for who, which, when in agreed:
            click.echo(f"{who},{which},{when.isoformat(timespec='seconds')}")
        return
    if as_json:
        told = [{name: getattr(one, name) for name in ("hash", "language", "number", "agreed")} for one in found]
        click.echo(json.dumps([row | {"since": one.since.isoformat()} for row, one in zip(told, found, strict=True)]))
        return
    for one in found:
        since = f"{one.since:%Y-%m-%d %H:%M} UTC"
        click.echo(f"{one.language} version {one.number}  since {since}  {one.agreed} agreed  {one.hash}")
    if not found:
        click.echo("No consent text was shown yet.")
