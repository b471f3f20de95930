"""What people were promised: erasures are written down, identities go in time, and the log is as it was written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

from embeddings.errors import RootnoteError
from server.audit import hash_chain
from server.db import database
from server.doctor.check import DoctorContext, Finding
from server.privacy import erasure, retention
from server.settings import former_secrets, read_settings


def check_rights(case: DoctorContext) -> Iterator[Finding]:
    """The journal of erasures can be written and read; identities are deleted when they are due."""
    path = case.settings.erasures_of(case.study)
    number = sum(1 for _ in erasure.Journal(path).read())
    there = next(one for one in (path, *path.resolve().parents) if one.exists())
    if os.access(there, os.W_OK):
        yield Finding("ok", f"{path} can be written ({number} erasures).")
    else:
        mend = "let the server write it, or name another file in ROOTNOTE_ERASURES: else nobody can have answers erased"
        yield Finding("wrong", f"The journal of erasures {path} cannot be written from here.", mend)
    if not _is_reachable(case):
        return
    with database.reading(case.engine) as session:
        state = retention.status(session, case.study.config, datetime.now(UTC))
    if state.due is None or not state.kept:
        yield Finding("ok", f"Of {state.kept} people it is kept who they are, of {state.purged} it was deleted.")
        return
    when = f"{state.due:%Y-%m-%d %H:%M} UTC"
    if state.due < datetime.now(UTC):
        mend = f"start the server, or run `rootnote server purge {case.command}`"
        yield Finding("wrong", f"Who {state.kept} people are was due to be deleted at {when}.", mend)
    else:
        yield Finding("ok", f"Who {state.kept} people are is deleted at {when}.")


def check_log(case: DoctorContext) -> Iterator[Finding]:
    """The log is as it was written."""
    if not _is_reachable(case):
        return
    secret = read_settings(case.study, case.environment).secret
    with database.snapshot(case.engine) as session:
        verdict = hash_chain.verify(session, [secret, *former_secrets(case.environment)])
    if verdict.end.number == 0 and not verdict.entries:
        yield Finding("ok", "The log begins when the server starts.")
    elif verdict.faults:
        mend = "see `rootnote server audit --verify`, and ask who can write to the database"
        yield Finding("wrong", f"The log is not as it was written: {verdict.faults[0]}", mend)
    else:
        yield Finding("ok", f"All {verdict.entries} entries of the log are as they were written.")


def _is_reachable(case: DoctorContext) -> bool:
    try:
        database.check_reachable(case.engine)
    except RootnoteError:
        return False
    return True
