"""`rootnote server backup` and `rootnote server restore`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from server.commands.common import json_option, study_argument

KEPT = 30


@click.command()
@study_argument
@click.option(
    "--to",
    envvar="ROOTNOTE_BACKUPS",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write into (default: ROOTNOTE_BACKUPS).",
)
@click.option("--keep", default=KEPT, show_default=True, type=click.IntRange(1), help="Backups kept; older ones go.")
@json_option
def backup(folder: Path, to: Path, keep: int, as_json: bool) -> None:
    """Write the whole database into one checked file, while listeners go on.

    PostgreSQL needs its own client (pg_dump). Example: rootnote server backup my-study --to /var/backups/rootnote
    """
    from server.db.backup import backup as write_backup
    from server.db.urls import display_url
    from server.settings import read_settings
    from study.config import load_study

    settings = read_settings(load_study(folder), os.environ, secret=False)
    path = write_backup(settings.database, to, keep)
    size = path.stat().st_size
    if as_json:
        click.echo(json.dumps({"path": str(path), "bytes": size}))
        return
    click.echo(f"{path} holds {display_url(settings.database)} ({size:,} bytes).")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@study_argument
@click.option(
    "--erasures",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A journal of erasures that was kept elsewhere, to be added to this study's.",
)
def restore(file: Path, folder: Path, erasures: Path | None) -> None:
    """Fill an empty database from a backup FILE.

    Who had their answers erased since is erased again when the server starts, by the journal of erasures.

    ROOTNOTE_DATABASE_URL says which database; one that holds anything is left alone. Stop the server before.
    Example: rootnote server restore /var/backups/rootnote/rootnote-20260301T020000Z.dump my-study
    """
    from server.db.backup import restore as read_backup
    from server.db.urls import display_url
    from server.privacy.erasure import Journal
    from server.settings import read_settings
    from study.config import load_study

    study = load_study(folder)
    settings = read_settings(study, os.environ, secret=False)
    read_backup(settings.database, file)
    journal = Journal(settings.erasures_of(study))
    if erasures is not None:
        click.echo(f"{journal.add(Journal(erasures))} erasures were added to {journal.path}.")
    click.echo(f"{display_url(settings.database)} is as it was in {file.name}.")
    click.echo(f"Next: rootnote server migrate {folder}")
