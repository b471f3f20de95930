"""Checks of the vault, which stores who listeners are at the marketplace."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.db import database
from server.db.models import VaultEntry
from server.doctor.check import DoctorContext, Finding
from server.identity.vault import has_keys, read_vault


def check_identities(deployment: DoctorContext) -> Iterator[Finding]:
    """The vault's keys are set and decrypt every identity."""
    if not deployment.study.config.recruiter.has_arrivals and not has_keys(deployment.environment):
        yield Finding("ok", "Listeners come by links, so no marketplace ids are stored.")
        return
    vault = read_vault(deployment.environment)
    try:
        database.check_reachable(deployment.engine)
    except RootnoteError:
        yield Finding("unknown", "Not checked, because the database cannot be reached.")
        return
    with database.reading(deployment.engine) as session:
        sealed = list(session.scalars(select(VaultEntry.sealed)))
    unreadable = sum(vault.open(text) is None for text in sealed)
    if unreadable:
        number = f"{unreadable:,} of {counted(len(sealed), 'identity', 'identities')}"
        text = f"ROOTNOTE_VAULT_KEY does not decrypt {number}, so those listeners cannot be paid."
        yield Finding("error", text, "add the key that the study started with after the new one, separated by a comma")
    else:
        yield Finding("ok", f"ROOTNOTE_VAULT_KEY decrypts every identity ({len(sealed):,}).")
