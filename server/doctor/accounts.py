"""Checks of the desk's users: that there are some, that one is an owner, and that second factors work."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.accounts import two_factor
from server.accounts.roles import Role
from server.db import database
from server.db.models import Researcher
from server.doctor.check import DoctorContext, Finding


def check_desk(deployment: DoctorContext) -> Iterator[Finding]:
    """The desk has an owner, and second factors are in use and can be read."""
    try:
        database.require_migrated(deployment.engine, "")
    except RootnoteError:
        yield Finding("unknown", "Not checked, because the database cannot be reached or is not migrated.")
        return
    with database.reading(deployment.engine) as session:
        users = list(session.scalars(select(Researcher)))
    if not users:
        yield Finding(
            "warning",
            "The desk has no users yet, so nobody can sign in at /desk.",
            f"rootnote server user add NAME {deployment.folder}",
        )
        return
    if not any(one.role == Role.OWNER for one in users):
        yield Finding("error", "The desk has no owner.", f"rootnote server user role NAME owner {deployment.folder}")
    enrolled = [one for one in users if one.factor]
    secret = deployment.environment.get("ROOTNOTE_SECRET", "")
    if unreadable := sum(not two_factor.can_decrypt(secret, one) for one in enrolled):
        number = f"{unreadable} of {counted(len(enrolled), 'second factor')}"
        text = f"ROOTNOTE_SECRET does not decrypt {number}, so those users cannot sign in."
        yield Finding(
            "error", text, "set the secret that the study started with, or run `rootnote server user reset-factor`"
        )
    summary = f"Users of the desk with a second factor: {len(enrolled)} of {len(users)}"
    if deployment.settings.factor_required:
        yield Finding("ok", f"{summary}; it is required, so the others must set theirs up first.")
    elif len(enrolled) == len(users):
        yield Finding("ok", f"{summary}.")
    else:
        yield Finding("warning", f"{summary}. It is optional.", "set ROOTNOTE_DESK_SECOND_FACTOR=required")
