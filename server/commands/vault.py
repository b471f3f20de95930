"""`rootnote server vault`: new-key, rotate."""

from __future__ import annotations

import os
from pathlib import Path

import click

from embeddings.errors import RootnoteError
from embeddings.lazy_group import LazyGroup
from embeddings.wording import counted
from server.commands.common import opened, rehearsal_option, study_argument


@click.group(cls=LazyGroup)
def vault() -> None:
    """Manage the key that encrypts marketplace ids."""


@vault.command()
def new_key() -> None:
    """Print a new key for ROOTNOTE_VAULT_KEY."""
    from server.identity import vault as identity_vault

    click.echo(identity_vault.new_key())


@vault.command()
@study_argument
@rehearsal_option
def rotate(folder: Path, rehearsal: bool) -> None:
    """Encrypt all marketplace ids with the first key.

    ROOTNOTE_VAULT_KEY must contain the new key first, then the old ones, separated by commas. Restart every server with
    it before you rotate: one that runs with the old key first still encrypts new ids with that. Remove the old keys
    when this command finds nothing encrypted with them.
    """
    from server.assignments.experiment import utc_now
    from server.audit import study_control
    from server.audit.actor import current_actor
    from server.db import database
    from server.identity import vault as identity_vault
    from server.settings import read_settings

    with opened(folder, rehearsal, secret=True) as (study, engine):
        current = read_settings(study, os.environ, rehearsal=rehearsal).vault
        if current is None:
            raise RootnoteError(identity_vault.NEEDED)
        with database.writing(engine) as session, session.begin():
            number, changed = identity_vault.rotate(session, current, utc_now())
            entries = counted(number, "entry", "entries")
            study_control.write_log(session, current_actor(), "rotated the vault's key", utc_now(), detail=entries)
    if changed:
        click.echo(f"{counted(changed, 'entry', 'entries')} of {number:,} had another key and now have the first.")
        click.echo("Restart every server that was started with another key first, then run this command again.")
    else:
        click.echo(f"All entries ({number:,}) are encrypted with the first key; you can now remove the other keys.")
