"""Who may sign in at the desk: that somebody may, that one is an owner, and who has a second factor."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select

from embeddings.errors import RootnoteError
from server.accounts import two_factor
from server.accounts.roles import Role
from server.db import database
from server.db.models import Researcher
from server.doctor.check import DoctorContext, Finding


def check_desk(case: DoctorContext) -> Iterator[Finding]:
    """Somebody is the owner, and second factors are asked for and can be read."""
    try:
        database.require_migrated(case.engine, "")
    except RootnoteError:
        yield Finding("unknown", "Not looked at, because the database cannot be reached or is not migrated.")
        return
    with database.reading(case.engine) as session:
        people = list(session.scalars(select(Researcher)))
    if not people:
        yield Finding("look", "Nobody can sign in at /desk.", f"rootnote server user add NAME {case.command}")
        return
    if not any(one.role == Role.OWNER for one in people):
        yield Finding("wrong", "The desk has no owner.", f"rootnote server user role NAME owner {case.command}")
    enrolled = [one for one in people if one.factor]
    secret = case.environment.get("ROOTNOTE_SECRET", "")
    if closed := sum(not two_factor.accepts(secret, one) for one in enrolled):
        text = f"ROOTNOTE_SECRET does not open {closed} of {len(enrolled)} second factors: they cannot sign in."
        yield Finding(
            "wrong", text, "set the secret that the study was begun with, or `rootnote server user reset-factor`"
        )
    told = f"{len(enrolled)} of {len(people)} who may sign in at /desk have a second factor"
    if case.settings.factor_required:
        yield Finding("ok", f"{told}; it is required, so the others can do nothing before they have set it up.")
    elif len(enrolled) == len(people):
        yield Finding("ok", f"{told}.")
    else:
        yield Finding("look", f"{told}; it is optional.", "set ROOTNOTE_DESK_SECOND_FACTOR=required")
