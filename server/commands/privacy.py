"""`rootnote server` erase, disclose, purge: requests of listeners, and the deletion of identities."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.commands.common import opened, rehearsal_option, study_argument, yes_option

if TYPE_CHECKING:
    from server.db.models import Assignment
    from server.privacy import retention
    from server.settings import Settings

person_argument = click.argument("person", metavar="PERSON")
worker_option = click.option("--worker", is_flag=True, help="PERSON is a worker's id at the marketplace.")


@click.command()
@person_argument
@study_argument
@worker_option
@click.option("--reason", default="on request", show_default=True, help="The reason, for the log.")
@yes_option
@rehearsal_option
def erase(person: str, folder: Path, worker: bool, reason: str, yes: bool, rehearsal: bool) -> None:
    """Delete all answers of one listener, at their request.

    The listener is still paid.

    PERSON is a completion code or a pseudonym.

    Example: rootnote server erase 7KQ2M9XW4P my-study
    """
    from server.assignments.experiment import utc_now
    from server.audit.actor import current_actor
    from server.db import database
    from server.db.models import Assignment, VaultEntry
    from server.privacy import erasure
    from server.privacy.erasure import Journal
    from server.settings import read_settings

    with opened(folder, rehearsal, secret=True) as (study, engine):
        settings = read_settings(study, os.environ, rehearsal=rehearsal)
        with database.reading(engine) as session:
            assignment = _find(session, settings, person, worker)
            pseudonym, number, erased_at = assignment.pseudonym, assignment.id, assignment.erased_at
        if erased_at is not None:
            click.echo(f"Assignment {pseudonym} was already erased on {erased_at:%Y-%m-%d %H:%M} UTC.")
            return
        if not yes:
            click.confirm(f"Erase all answers of assignment {pseudonym} permanently?", abort=True)
        with database.writing(engine) as session, session.begin():
            found = session.get_one(Assignment, number, with_for_update=True)
            erasure.erase(session, Journal(settings.erasures_of(study)), found, utc_now(), current_actor(), reason)
            erasure.delete_erased_identities(session, study.config)
            in_vault = session.get(VaultEntry, found.listener.pseudonym) is not None
        _compact(engine)
    click.echo(f"Erased the answers of assignment {pseudonym}.")
    if in_vault:
        click.echo("Their marketplace id stays encrypted until they are paid, and is then deleted.")


@click.command()
@person_argument
@study_argument
@worker_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write (default: print it).")
@rehearsal_option
def disclose(person: str, folder: Path, worker: bool, out: Path | None, rehearsal: bool) -> None:
    """Write everything that is stored about one person, as JSON to send to them.

    PERSON is a completion code or a pseudonym.

    Example: rootnote server disclose 7KQ2M9XW4P my-study --out answer.json
    """
    from embeddings.provenance import replacing
    from server.assignments.experiment import utc_now
    from server.audit import study_control
    from server.audit.actor import current_actor
    from server.db import database
    from server.privacy import subject_access
    from server.settings import read_settings

    with opened(folder, rehearsal, secret=True) as (study, engine):
        settings = read_settings(study, os.environ, rehearsal=rehearsal)
        with database.writing(engine) as session, session.begin():
            found = _find(session, settings, person, worker)
            data = subject_access.personal_data(session, study.config, settings.vault, found, utc_now())
            study_control.write_log(
                session, current_actor(), "disclosed a listener's data", utc_now(), detail=found.pseudonym
            )
    text = json.dumps(data, indent=2, ensure_ascii=False)
    if out is None:
        click.echo(text)
        return
    with replacing(out, private=True) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    click.echo(f"Wrote {out}. It is about one person: send it to that person only, then delete it.")


def _compact(engine: Any) -> None:
    """Overwrite what was deleted in the database's files, or say who can."""
    from server.db.compaction import compact
    from server.privacy.erasure import DELETED
    from server.privacy.retention import IDENTIFYING

    if not compact(engine, {table.__tablename__ for table in (*DELETED, *IDENTIFYING)}):
        click.echo(
            "The database's files may still contain the deleted rows. When nobody uses it, the owner of its tables can "
            "overwrite them: VACUUM (FULL) in PostgreSQL, VACUUM in SQLite."
        )


def _find(session: Any, settings: Settings, person: str, worker: bool) -> Assignment:
    from server.identity.tokens import TokenSigner
    from server.privacy import subject_access

    found = subject_access.find(session, TokenSigner(settings.secret), person, worker=worker)
    if found is None:
        kind = "worker id" if worker else "completion code or pseudonym"
        raise RootnoteError(f"no listener has the {kind} '{person}'.")
    return found


@click.command()
@study_argument
@click.option("--now", "at_once", is_flag=True, help="Do not wait until they are due and everyone is paid.")
@click.option("--reason", default="", help="The reason, for the log.")
@yes_option
@rehearsal_option
def purge(folder: Path, at_once: bool, reason: str, yes: bool, rehearsal: bool) -> None:
    """Delete the identities of listeners, if they are due.

    They are due when privacy.identity_days have passed since the last payment or the closing of the study. The server
    deletes them automatically; use --now to delete them earlier.
    """
    from server.assignments.experiment import utc_now
    from server.audit.actor import current_actor
    from server.db import database
    from server.identity.tokens import TokenSigner
    from server.privacy import retention
    from server.settings import read_settings

    with opened(folder, rehearsal, secret=True) as (study, engine):
        settings = read_settings(study, os.environ, rehearsal=rehearsal)
        with database.reading(engine) as session:
            state = retention.status(session, study.config, utc_now())
            reason_against = retention.blocking_reason(session, study.config, utc_now())
            unpaid = retention.count_unpaid(session, study.config)
        if not at_once and not _is_due(state):
            click.echo(_why_not_due(state))
            return
        if reason_against:
            raise RootnoteError(f"identities are still needed: {reason_against}.")
        if at_once and not yes:
            question = f"Delete the identities of {counted(state.stored, 'participant')} permanently?"
            if unpaid:
                question += f" {counted(unpaid, 'listener has', 'listeners have')} not been paid, and then cannot be."
            click.confirm(question, abort=True)
        with database.writing(engine) as session, session.begin():
            if found := retention.blocking_reason(session, study.config, utc_now()):
                raise RootnoteError(f"identities are still needed: {found}.")
            deleted = retention.purge(session, TokenSigner(settings.secret), utc_now(), current_actor(), reason)
        _compact(engine)
    click.echo(f"Deleted the identities of {counted(deleted, 'participant')}.")
    click.echo("Earlier backups still contain them: delete those too.")


def _is_due(state: retention.RetentionStatus) -> bool:
    from server.assignments.experiment import utc_now

    return bool(state.stored) and state.due is not None and state.due <= utc_now()


def _why_not_due(state: retention.RetentionStatus) -> str:
    if not state.stored:
        return "No identities are stored."
    if state.due is None:
        return f"Nothing is due: {state.waiting}."
    people = counted(state.stored, "participant")
    return f"The identities of {people} are due for deletion at {state.due:%Y-%m-%d %H:%M} UTC."
