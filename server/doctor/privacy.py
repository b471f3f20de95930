"""Checks of promises to listeners: erasures are recorded, identities are deleted on time, the log is unchanged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.audit.seals import SealKeys
from server.audit.verification import verify
from server.audit.witness import Witness, name_database
from server.db import database
from server.doctor.check import DoctorContext, Finding
from server.privacy import erasure, retention
from server.settings import former_secrets, read_settings


def check_rights(deployment: DoctorContext) -> Iterator[Finding]:
    """The journal of erasures can be read and written; identities are deleted when they are due."""
    path = deployment.settings.erasures_of(deployment.study)
    number = sum(1 for _ in erasure.Journal(path).read())
    nearest = next(one for one in (path, *path.resolve().parents) if one.exists())
    if os.access(nearest, os.W_OK):
        yield Finding("ok", f"{path} can be written ({counted(number, 'erasure')}).")
    else:
        fix = "make it writable, or name another file in ROOTNOTE_ERASURES; until then no answers can be erased"
        yield Finding("error", f"The journal of erasures {path} cannot be written.", fix)
    if not _is_reachable(deployment):
        return
    with database.reading(deployment.engine) as session:
        state = retention.status(session, deployment.study.config, datetime.now(UTC))
    if state.due is None or not state.stored:
        yield Finding("ok", f"Identities: {state.stored:,} stored, {state.purged:,} deleted.")
        return
    people = counted(state.stored, "participant")
    when = f"{state.due:%Y-%m-%d %H:%M} UTC"
    if state.due < datetime.now(UTC):
        fix = f"start the server, or run `rootnote server purge {deployment.folder}`"
        yield Finding("error", f"The identities of {people} were due for deletion at {when}.", fix)
    else:
        yield Finding("ok", f"The identities of {people} will be deleted at {when}.")


def check_log(deployment: DoctorContext) -> Iterator[Finding]:
    """The audit log has not been changed."""
    if not _is_reachable(deployment):
        return
    secret = read_settings(deployment.study, deployment.environment).secret
    secrets = [secret, *former_secrets(deployment.environment)]
    path = deployment.settings.witness_of(deployment.study)
    assert path is not None  # the doctor never checks a rehearsal
    recorded = Witness(path, name_database(deployment.settings.database)).read([SealKeys(one) for one in secrets])
    with database.snapshot(deployment.engine) as session:
        result = verify(session, secrets, recorded=recorded)
    if result.end.number == 0 and not result.entries:
        yield Finding("ok", "The log starts when the server first starts.")
    elif result.faults:
        fix = "run `rootnote server audit --verify`, and find out who can write to the database"
        yield Finding("error", f"The log or the answers have been changed: {result.faults[0]}", fix)
    else:
        entries, answers = counted(result.entries, "entry", "entries"), counted(result.answers, "answer")
        yield Finding("ok", f"The log ({entries}) and {answers} are unchanged.")
    yield _check_witness(path, bool(recorded.began))


def _check_witness(path: Path, began: bool) -> Finding:
    fix = "make it writable, or name another folder in ROOTNOTE_ERASURES; until then deleted answers are not detected"
    place = path if path.exists() else path.parent
    if not os.access(place, os.W_OK):
        return Finding("warning", f"The witness {path} cannot be written.", fix)
    if not began:
        return Finding("warning", f"There is no witness of this database in {path.parent}.", "start the server once")
    return Finding("ok", f"The witness {path} can be written.")


def _is_reachable(deployment: DoctorContext) -> bool:
    try:
        database.check_reachable(deployment.engine)
    except RootnoteError:
        return False
    return True
