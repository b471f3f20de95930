"""What is kept of who listeners are: that the vault's key is there and opens it, and where the marketplace is asked."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select

from embeddings.errors import RootnoteError
from server.db import database
from server.db.models import VaultEntry
from server.doctor.check import DoctorContext, Finding
from server.identity.vault import has_keys, read_vault


def check_identities(case: DoctorContext) -> Iterator[Finding]:
    """Worker ids can be opened to pay, by keys that are kept apart; none is left under an old key."""
    if not case.study.config.recruiter.has_arrivals and not has_keys(case.environment):
        yield Finding("ok", "Listeners come by links: no marketplace's ids are kept.")
        return
    vault = read_vault(case.environment)
    try:
        database.check_reachable(case.engine)
    except RootnoteError:
        yield Finding("unknown", "Not looked at, because the database cannot be reached.")
        return
    with database.reading(case.engine) as session:
        sealed = list(session.scalars(select(VaultEntry.sealed)))
    closed = sum(vault.open(text) is None for text in sealed)
    if closed:
        text = f"ROOTNOTE_VAULT_KEY does not open {closed:,} of {len(sealed):,} identities: they cannot be paid."
        yield Finding("wrong", text, "set the key that the study was begun with, beside the new one")
    else:
        yield Finding("ok", f"The vault's key opens all {len(sealed):,} identities.")
