"""Keys for seals: keyed hashes that only someone with ROOTNOTE_SECRET can make or check."""

from __future__ import annotations

import functools
import hashlib
import hmac

from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.db.database import LOG_SECRET_OPTION


class SealKeys:
    """Makes seals under one secret; each purpose has seals of its own kind."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"rootnote.log", "sha256")
        self.name = hashlib.sha256(b"rootnote.log.name:" + self._key).hexdigest()[:16]

    def seal(self, kind: str, text: str) -> str:
        """The seal of a text of one kind (entry, head, answer, witness)."""
        return hmac.digest(self._key, f"{kind}:{text}".encode(), "sha256").hex()

    def is_seal(self, kind: str, text: str, seal: object) -> bool:
        return isinstance(seal, str) and hmac.compare_digest(seal.encode(), self.seal(kind, text).encode())


_keys = functools.lru_cache(maxsize=8)(SealKeys)


def keys_of(session: Session) -> SealKeys | None:
    """The keys of a session's engine; None if it was connected without the secret."""
    secret = session.get_bind().get_execution_options().get(LOG_SECRET_OPTION)
    return _keys(str(secret)) if secret else None


def require_keys(session: Session) -> SealKeys:
    """The keys of a session's engine.

    Raises:
        RootnoteError: if it was connected without the secret.
    """
    keys = keys_of(session)
    if keys is None:
        raise RootnoteError(
            "the environment variable ROOTNOTE_SECRET is not set; this command writes to the audit log, which it seals."
        )
    return keys
