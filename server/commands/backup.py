"""`rootnote server backup` and `rootnote server restore`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embeddings.wording import counted
from server.commands.common import json_option, study_argument

if TYPE_CHECKING:
    from server.audit.witness import Witness
    from server.settings import Settings
    from study.config import Study

KEPT_BACKUPS = 30


@click.command()
@study_argument
@click.option(
    "--to",
    envvar="ROOTNOTE_BACKUPS",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for backups (default: ROOTNOTE_BACKUPS).",
)
@click.option(
    "--keep",
    default=KEPT_BACKUPS,
    show_default=True,
    type=click.IntRange(1),
    help="Number of backups to keep; older ones are deleted.",
)
@json_option
def backup(folder: Path, to: Path, keep: int, as_json: bool) -> None:
    """Back up the whole database into one verified file, while listeners continue, and copy the secret key next to it.

    PostgreSQL needs its client program pg_dump.

    Example: rootnote server backup my-study --to /var/backups/rootnote
    """
    from server.db.backup import backup as write_backup
    from server.db.key_backup import back_up_key
    from server.db.urls import display_url
    from server.settings import read_settings
    from study.config import load_study

    study = load_study(folder)
    settings = read_settings(study, os.environ, secret=False)
    path = write_backup(settings.database, to, keep)
    back_up_key(study, path)
    size = path.stat().st_size
    if as_json:
        click.echo(json.dumps({"path": str(path), "bytes": size}))
        return
    click.echo(f"Backed up {display_url(settings.database)} to {path} ({counted(size, 'byte')}).")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@study_argument
@click.option(
    "--erasures",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A copy of the journal of erasures, to be merged into this study's.",
)
def restore(file: Path, folder: Path, erasures: Path | None) -> None:
    """Restore a backup FILE into an empty database.

    ROOTNOTE_DATABASE_URL names the database; one that is not empty is refused. Stop the server first. Erasures that are
    newer than the backup are repeated when the server starts, from the journal of erasures. If the database has a
    witness, ROOTNOTE_SECRET is needed: the restore is noted there, and logged when the server starts.

    Example: rootnote server restore /var/backups/rootnote/rootnote-20260301T020000Z.dump my-study
    """
    from server.db.backup import restore as read_backup
    from server.db.key_backup import restore_key
    from server.db.urls import display_url
    from server.privacy.erasure import Journal
    from server.settings import read_settings
    from study.config import load_study

    study = load_study(folder)
    settings = read_settings(study, os.environ, secret=False)
    witness = _writable_witness(study, settings)
    read_backup(settings.database, file)
    if witness is not None:
        _note_restore(settings, witness, file.name)
    journal = Journal(settings.erasures_of(study))
    if erasures is not None:
        click.echo(f"Added {counted(journal.merge(Journal(erasures)), 'erasure')} to {journal.path}.")
    click.echo(f"Restored {file.name} into {display_url(settings.database)}.")
    if restore_key(study, file):
        click.echo(f"Restored {study.key}.")
    click.echo(f"Next: rootnote server migrate {folder}")


def _writable_witness(study: Study, settings: Settings) -> Witness | None:
    """The witness of the database; None if it has none and there is no secret to begin one with."""
    from server.audit.witness import Witness, name_database
    from server.settings import require_secret

    path = settings.witness_of(study)
    assert path is not None  # this is not a rehearsal
    witness = Witness(path, name_database(settings.database))
    if witness.is_empty and not os.environ.get("ROOTNOTE_SECRET"):
        return None
    require_secret(os.environ)
    return witness


def _note_restore(settings: Settings, witness: Witness, name: str) -> None:
    from server.audit import resuming
    from server.audit.actor import current_actor
    from server.audit.seals import SealKeys
    from server.db import database

    keys, engine = SealKeys(os.environ["ROOTNOTE_SECRET"]), database.connect(settings.database)
    with database.reading(engine) as session:
        resuming.record_restore(session, witness, keys, who=current_actor(), file=name)
    engine.dispose()
