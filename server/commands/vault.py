"""`rootnote server vault`: new-key, rotate."""

from __future__ import annotations

import os
from pathlib import Path

import click

from embeddings.errors import RootnoteError
from embeddings.lazy_group import LazyGroup
from server.commands.common import opened, rehearsal_option, study_argument


@click.group(cls=LazyGroup)
def vault() -> None:
    """The key under which workers' ids are kept."""


@vault.command()
def new_key() -> None:
    """Print a new key, for ROOTNOTE_VAULT_KEY."""
    from server.identity import vault as privacy

    click.echo(privacy.new_key())


@vault.command()
@study_argument
@rehearsal_option
def rotate(folder: Path, rehearsal: bool) -> None:
    """Encrypt everything anew under the first of the keys in ROOTNOTE_VAULT_KEY."""
    from server.assignments.experiment import utc_now
    from server.audit import study_control
    from server.audit.actor import current_actor
    from server.db import database
    from server.identity import vault as privacy
    from server.settings import read_settings

    with opened(folder, rehearsal, secret=True) as (study, engine):
        found = read_settings(study, os.environ, rehearsal=rehearsal).vault
        if found is None:
            raise RootnoteError(privacy.NEEDED)
        with database.writing(engine) as session, session.begin():
            number = privacy.rotate(session, found, utc_now())
            study_control.write_log(
                session, current_actor(), "rotated the vault's key", utc_now(), detail=f"{number} entries"
            )
    click.echo(f"{number} entries are encrypted under the first key; the others may be dropped.")
