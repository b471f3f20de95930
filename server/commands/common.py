"""Shared parts of the commands of `rootnote server`: their options, and opening a study's database."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embeddings.errors import RootnoteError
from study.arguments import json_option, study_argument

if TYPE_CHECKING:
    from study.config import Study

__all__ = [
    "dry_run_option",
    "json_option",
    "opened",
    "rehearsal_option",
    "require_same_schedule",
    "study_argument",
    "yes_option",
]

rehearsal_option = click.option("--rehearsal", is_flag=True, help="Use the rehearsal's database, never the real one.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would happen and what it costs; do nothing.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


@contextlib.contextmanager
def opened(folder: Path, rehearsal: bool, *, secret: bool = False) -> Iterator[tuple[Study, Any]]:
    """Open a study and its migrated database; close the database at the end.

    Args:
        folder: the study folder.
        rehearsal: open the rehearsal's database.
        secret: whether the command writes to the log, which needs ROOTNOTE_SECRET (not in a rehearsal). Erasures
            are then replayed first, in case the database was restored from a backup.

    Raises:
        RootnoteError: if a setting is missing or the database is not migrated.
    """
    from server.db import database
    from server.payments import formatting
    from server.settings import read_settings
    from study.config import load_study

    study = load_study(folder)
    formatting.use_currency(study.config.currency)
    secret_if_none = (
        {"ROOTNOTE_SECRET": secrets.token_hex(32)} if rehearsal and not os.environ.get("ROOTNOTE_SECRET") else {}
    )
    settings = read_settings(study, {**os.environ, **secret_if_none}, rehearsal=rehearsal, secret=secret)
    engine = database.connect(settings.database, settings.secret, settings.witness_of(study) if secret else None)
    try:
        database.require_migrated(engine, f"rootnote server migrate {folder}" + (" --rehearsal" if rehearsal else ""))
        if secret:
            from server.audit import resuming
            from server.privacy import erasure

            with database.writing(engine) as session, session.begin():
                resuming.resume(session, datetime.now(UTC))
            with database.writing(engine) as session, session.begin():
                erasure.replay(session, erasure.Journal(settings.erasures_of(study)), datetime.now(UTC))
        yield study, engine
    finally:
        engine.dispose()


def require_same_schedule(session: Any, fingerprint: str) -> None:
    """Raise RootnoteError if the database belongs to another schedule than the study folder."""
    from server.db.models import StudyRecord

    record = session.get(StudyRecord, 1)
    if record is not None and record.schedule != fingerprint:
        raise RootnoteError(
            f"the database belongs to another schedule (of the study '{record.name}'); "
            "restore the study folder that the database was started with, then try again."
        )
