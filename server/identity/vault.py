"""The vault: listeners' identities at the marketplace, encrypted, linked to everything else only by the pseudonym.

Paying needs a worker's id, so it is stored here, in one table, under a key that is not in the database. Each entry is a
Fernet token (AES-128-CBC with HMAC-SHA-256), so that a changed one is detected. ROOTNOTE_VAULT_KEY, or the file that
ROOTNOTE_VAULT_KEY_FILE names, contains one or more keys, separated by commas or white space: the first encrypts, all
decrypt. To change the key, put the new one first and restart every server, so that all of them encrypt with it; run
`rootnote server vault rotate`; then remove the old one. A server does not start without a key that is still needed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import select
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.db.models import Listener, VaultEntry
from server.db.upsert import find_or_add
from server.identity.arrival import Arrival

NEEDED = (
    "the environment variable ROOTNOTE_VAULT_KEY is not set: workers' ids are stored encrypted; make a key with "
    "`rootnote server vault new-key` and keep it for the whole study."
)
WRONG = (
    "the environment variable ROOTNOTE_VAULT_KEY does not decrypt the identities in the database; set the key that the "
    "study was started with."
)


class Vault:
    """Encrypts and decrypts identities; needs the keys, no database."""

    def __init__(self, keys: list[str]) -> None:
        """Raises RootnoteError if there is no key or an invalid one."""
        if not keys:
            raise RootnoteError(NEEDED)
        try:
            self._first = Fernet(keys[0])
            self._fernet = MultiFernet([self._first, *(Fernet(key) for key in keys[1:])])
        except ValueError:
            raise RootnoteError(
                "ROOTNOTE_VAULT_KEY is not a valid key; make one with `rootnote server vault new-key`."
            ) from None

    def seal(self, arrival: Arrival) -> str:
        return self._fernet.encrypt(json.dumps(asdict(arrival)).encode()).decode()

    def open(self, sealed: str) -> Arrival | None:
        """The sealed arrival; None if these keys did not seal it, or it was changed since."""
        try:
            return Arrival(**json.loads(self._fernet.decrypt(sealed.encode())))
        except (InvalidToken, ValueError, TypeError):
            return None

    def is_sealed_with_first(self, sealed: str) -> bool:
        """Whether the first key alone opens this."""
        try:
            self._first.decrypt(sealed.encode())
        except InvalidToken:
            return False
        return True

    def reseal(self, sealed: str) -> str:
        """The same arrival, sealed with the first key.

        Raises:
            RootnoteError: if none of the keys opens it.
        """
        try:
            return self._fernet.rotate(sealed.encode()).decode()
        except InvalidToken:
            raise RootnoteError(WRONG) from None


def new_key() -> str:
    return Fernet.generate_key().decode()


def has_keys(environment: Mapping[str, str]) -> bool:
    return bool(environment.get("ROOTNOTE_VAULT_KEY") or environment.get("ROOTNOTE_VAULT_KEY_FILE"))


def read_vault(environment: Mapping[str, str], *, rehearsal_secret: str = "") -> Vault:
    """The vault of the environment's keys; in a rehearsal without keys, of one derived from its secret.

    Raises:
        RootnoteError: if there is no key, or an invalid one.
    """
    text = environment.get("ROOTNOTE_VAULT_KEY", "") or _read_file(environment.get("ROOTNOTE_VAULT_KEY_FILE", ""))
    keys = text.replace(",", " ").split()
    if not keys and rehearsal_secret:
        digest = hashlib.sha256(b"rootnote.vault:" + rehearsal_secret.encode()).digest()
        keys = [base64.urlsafe_b64encode(digest).decode()]
    return Vault(keys)


def _read_file(name: str) -> str:
    if not name:
        return ""
    try:
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RootnoteError(f"ROOTNOTE_VAULT_KEY_FILE names {name}, which cannot be read: {error}.") from None


# ------------------------------------------------------------------ in the database


def store_identity(session: Session, vault: Vault, listener: Listener, arrival: Arrival, now: datetime) -> None:
    """Store a listener's identity, and the submission that they hold."""
    sealed, key = vault.seal(arrival), {"pseudonym": listener.pseudonym}
    row = find_or_add(session, VaultEntry, key, {"sealed": sealed, "changed_at": now}, lock=True)
    row.sealed, row.changed_at = sealed, now
    session.flush()


def load_identity(session: Session, vault: Vault, listener: Listener) -> Arrival | None:
    """A listener's identity; None if none is stored.

    Raises:
        RootnoteError: if the vault's keys do not open it.
    """
    row = session.get(VaultEntry, listener.pseudonym)
    if row is None:
        return None
    found = vault.open(row.sealed)
    if found is None:
        raise RootnoteError(WRONG)
    return found


def require_readable(session: Session, vault: Vault) -> None:
    """Check that the keys decrypt every identity.

    Raises:
        RootnoteError: if they do not; the removed key has to be added again.
    """
    sealed = list(session.scalars(select(VaultEntry.sealed)))
    unreadable = sum(vault.open(text) is None for text in sealed)
    if unreadable:
        raise RootnoteError(
            f"ROOTNOTE_VAULT_KEY does not decrypt {unreadable:,} of {counted(len(sealed), 'identity', 'identities')}; "
            "add the former key after the new one, separated by a comma, and run `rootnote server vault rotate` before "
            "you remove it."
        )


def rotate(session: Session, vault: Vault, now: datetime) -> tuple[int, int]:
    """Seal every entry with the first key; returns the number of entries, and of those that had another.

    Raises:
        RootnoteError: if none of the keys opens an entry; nothing is changed then.
    """
    rows = list(session.scalars(select(VaultEntry).with_for_update()))
    others = [row for row in rows if not vault.is_sealed_with_first(row.sealed)]
    for row in others:
        row.sealed, row.changed_at = vault.reseal(row.sealed), now
    session.flush()
    return len(rows), len(others)
