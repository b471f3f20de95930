"""`rootnote server` erase, disclose, purge: what people ask for by e-mail, and the deletion of identities."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embeddings.errors import RootnoteError
from server.commands.common import opened, rehearsal_option, study_argument, yes_option

if TYPE_CHECKING:
    from server.db.models import Assignment
    from server.privacy import retention
    from server.settings import Settings
    from study.config import Study

whom_argument = click.argument("whom", metavar="WHOM")
worker_option = click.option("--worker", is_flag=True, help="WHOM is an id at the marketplace.")


@click.command()
@whom_argument
@study_argument
@worker_option
@click.option("--reason", default="asked for", show_default=True, help="Why, for the log.")
@yes_option
@rehearsal_option
def erase(whom: str, folder: Path, worker: bool, reason: str, yes: bool, rehearsal: bool) -> None:
    """Delete everything that one listener answered, as they asked; they are paid all the same.

    WHOM is a completion code or a pseudonym. Example: rootnote server erase 7KQ2M9XW4P my-study
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
            assignment = _find(session, settings, whom, worker)
            pseudonym, number, before = assignment.pseudonym, assignment.id, assignment.erased_at
        if before is not None:
            click.echo(f"Assignment {pseudonym} was erased on {before:%Y-%m-%d %H:%M} UTC.")
            return
        if not yes:
            click.confirm(f"Erase all answers of assignment {pseudonym} for good?", abort=True)
        with database.writing(engine) as session, session.begin():
            found = session.get_one(Assignment, number, with_for_update=True)
            erasure.erase(session, Journal(settings.erasures_of(study)), found, utc_now(), current_actor(), reason)
            erasure.forget_the_erased(session, study.config.pay)
            known = session.get(VaultEntry, found.listener.pseudonym) is not None
    click.echo(f"The answers of assignment {pseudonym} are erased.")
    if known:
        click.echo("Their identifier stays sealed until they are paid, and is deleted then.")


@click.command()
@whom_argument
@study_argument
@worker_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write (default: print it).")
@rehearsal_option
def disclose(whom: str, folder: Path, worker: bool, out: Path | None, rehearsal: bool) -> None:
    """Everything that is kept of one person, as JSON for them.

    WHOM is a completion code or a pseudonym. Example: rootnote server disclose 7KQ2M9XW4P my-study --out answer.json
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
            found = _find(session, settings, whom, worker)
            told = subject_access.personal_data(session, study.config, settings.vault, found, utc_now())
            study_control.write_log(
                session, current_actor(), "disclosed a listener's data", utc_now(), detail=found.pseudonym
            )
    text = json.dumps(told, indent=2, ensure_ascii=False)
    if out is None:
        click.echo(text)
        return
    with replacing(out) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    out.chmod(0o600)
    click.echo(f"Written: {out}. It is about one person: send it to nobody else, and delete it then.")


def _find(session: Any, settings: Settings, whom: str, worker: bool) -> Assignment:
    from server.identity.tokens import TokenSigner
    from server.privacy import subject_access

    found = subject_access.find(session, TokenSigner(settings.secret), whom, worker=worker)
    if found is None:
        what = "worker" if worker else "completion code or pseudonym"
        raise RootnoteError(f"nobody took part with the {what} '{whom}'.")
    return found


@click.command()
@study_argument
@click.option("--now", "at_once", is_flag=True, help="Though they are not due yet, and though somebody is not paid.")
@click.option("--reason", default="", help="Why, for the log.")
@yes_option
@rehearsal_option
def purge(folder: Path, at_once: bool, reason: str, yes: bool, rehearsal: bool) -> None:
    """Delete who listeners are, where that is due: privacy.identity_days after the last payment."""
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
            blocked, owed = retention.blocked(session, utc_now()), retention.owed(session, study.config)
        if not at_once and _tell_not_due(study, state):
            return
        if blocked:
            raise RootnoteError(f"identities are needed still: {blocked}.")
        if at_once and not yes:
            unpaid = f" {owed} are not paid, and cannot be paid afterwards." if owed else ""
            click.confirm(f"Delete for good who {state.kept} people are?{unpaid}", abort=True)
        with database.writing(engine) as session, session.begin():
            if found := retention.blocked(session, utc_now()):
                raise RootnoteError(f"identities are needed still: {found}.")
            gone = retention.purge(session, TokenSigner(settings.secret), utc_now(), current_actor(), reason)
    click.echo(f"Who {gone} people are is deleted. Backups made before hold it still: delete them too.")


def _tell_not_due(study: Study, state: retention.RetentionStatus) -> bool:
    """Say why nothing is to be done; False where it is due."""
    from server.assignments.experiment import utc_now

    if state.kept and state.due is not None and state.due <= utc_now():
        return False
    if not state.kept:
        click.echo("Nothing is kept that tells who anybody is.")
    elif state.due is None:
        click.echo(f"Nothing is due: {state.waiting}.")
    else:
        click.echo(f"Who {state.kept} people are is due to be deleted at {state.due:%Y-%m-%d %H:%M} UTC.")
    return True
