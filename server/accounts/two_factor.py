"""The second factor: a key in an authenticator app, and ten recovery codes for when the app is lost.

The key is kept encrypted (Fernet) under a key derived from ROOTNOTE_SECRET by HKDF-SHA-256 (RFC 5869), together with
whose it is, so that a row's cannot be put into another's. A code works once: its step must be later than the last one
used, which one conditional UPDATE sees to. Recovery codes have 120 random bits, are kept as keyed hashes, and work once
each. What stands in a form between two steps of signing in or setting up is sealed likewise, for a few minutes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import segno
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import or_, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from server.accounts import totp
from server.db.models import Researcher

SECRET_BYTES = 20  # as long as SHA-1's output (RFC 4226, 4)
RECOVERY_CODES, RECOVERY_BYTES = 10, 15
CODE_LIMIT = 64
ENROLMENT_SECONDS = 15 * 60


def derive(secret: str, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose."""
    return HKDF(SHA256(), 32, salt=None, info=f"rootnote.{purpose}".encode()).derive(secret.encode())


class KeyCipher:
    """Seals small texts for one purpose, so that they can be kept or sent round by others."""

    def __init__(self, secret: str, purpose: str) -> None:
        self._fernet = Fernet(base64.urlsafe_b64encode(derive(secret, purpose)))

    def seal(self, what: dict[str, Any], now: datetime) -> str:
        return self._fernet.encrypt_at_time(json.dumps(what).encode(), int(now.timestamp())).decode()

    def open(self, sealed: str, now: datetime | None = None, seconds: int = 0) -> dict[str, Any] | None:
        """What was sealed, with `now` at most so many seconds ago; None for anything else."""
        try:
            token = sealed.encode()
            text = (
                self._fernet.decrypt_at_time(token, seconds, int(now.timestamp()))
                if now is not None
                else self._fernet.decrypt(token)
            )
        except (InvalidToken, ValueError):
            return None
        found = json.loads(text)
        assert isinstance(found, dict)
        return found


# ------------------------------------------------------------------ setting up


@dataclass(frozen=True)
class Enrolment:
    """A key that is offered: as text to type, as a QR code (SVG), and sealed for the form that confirms it."""

    key: str
    picture: str
    sealed: str


def begin(secret: str, researcher: Researcher, issuer: str, now: datetime) -> Enrolment:
    """Offer a new key; nothing is kept until a code of it came back."""
    return _offer(secret, researcher, _base32(secrets.token_bytes(SECRET_BYTES)), issuer, now)


def offer_again(secret: str, researcher: Researcher, sealed: str, issuer: str, now: datetime) -> Enrolment | None:
    """The same key once more, after a code that was not of it; None where the offer is over or another's."""
    key = _offered(secret, researcher, sealed, now)
    return _offer(secret, researcher, key, issuer, now, sealed) if key else None


def _offer(
    secret: str, researcher: Researcher, key: str, issuer: str, now: datetime, sealed: str | None = None
) -> Enrolment:
    picture = segno.make(totp.address(key, researcher.name, issuer), error="m", micro=False)
    svg = picture.svg_inline(border=4, dark="#000", light="#fff", omitsize=True, svgclass=None, lineclass=None)
    again = sealed or KeyCipher(secret, "enrolment").seal({"who": researcher.id, "key": key}, now)
    return Enrolment(" ".join(key[at : at + 4] for at in range(0, len(key), 4)), svg, again)


def _offered(secret: str, researcher: Researcher, sealed: str, now: datetime) -> str | None:
    found = KeyCipher(secret, "enrolment").open(sealed, now, ENROLMENT_SECONDS)
    return str(found["key"]) if found and found["who"] == researcher.id else None


def confirm(
    session: Session, secret: str, researcher: Researcher, sealed: str, code: str, now: datetime
) -> list[str] | None:
    """Keep the offered key if the code is of it: the recovery codes; None otherwise, or where one is kept already."""
    key = _offered(secret, researcher, sealed, now)
    step = totp.matching_step(_bytes(key), _plain(code), now) if key else None
    if key is None or step is None:
        return None
    kept = KeyCipher(secret, "factor").seal({"who": researcher.id, "key": key}, now)
    codes = _recovery_codes()
    row = update(Researcher).where(Researcher.id == researcher.id, Researcher.factor.is_(None))
    values = {"factor": kept, "factor_step": step, "recovery": _hashes(secret, researcher, codes)}
    return codes if _changed(session, row.values(values)) else None


def renew_recovery(session: Session, secret: str, researcher: Researcher) -> list[str] | None:
    """Ten new recovery codes in place of the old; None for somebody without a second factor."""
    codes = _recovery_codes()
    row = update(Researcher).where(Researcher.id == researcher.id, Researcher.factor.is_not(None))
    return codes if _changed(session, row.values(recovery=_hashes(secret, researcher, codes))) else None


# ------------------------------------------------------------------ using


@dataclass(frozen=True)
class FactorCheck:
    """The second factor was right; `recovery_left`: a recovery code it was, and so many are left."""

    recovery_left: int | None = None


def check(session: Session, secret: str, researcher: Researcher, code: str, now: datetime) -> FactorCheck | None:
    """Use a code of the app, or a recovery code; None where it is wrong or was used before."""
    plain = _plain(code)
    if len(plain) == totp.DIGITS:
        return FactorCheck() if _use_step(session, secret, researcher, plain, now) else None
    left = _use_recovery(session, secret, researcher, plain)
    return None if left is None else FactorCheck(left)


def accepts(secret: str, researcher: Researcher) -> bool:
    """Whether the kept key can be read under this secret."""
    return _key(secret, researcher) is not None


def recovery_left(researcher: Researcher) -> int:
    return len(json.loads(researcher.recovery or "[]"))


def _key(secret: str, researcher: Researcher) -> bytes | None:
    found = KeyCipher(secret, "factor").open(researcher.factor or "")
    return _bytes(str(found["key"])) if found and found["who"] == researcher.id else None


def _use_step(session: Session, secret: str, researcher: Researcher, code: str, now: datetime) -> bool:
    key = _key(secret, researcher)
    step = totp.matching_step(key, code, now) if key else None
    if step is None:
        return False
    row = update(Researcher).where(Researcher.id == researcher.id, Researcher.factor == researcher.factor)
    unused = or_(Researcher.factor_step.is_(None), Researcher.factor_step < step)
    return _changed(session, row.where(unused).values(factor_step=step))


def _use_recovery(session: Session, secret: str, researcher: Researcher, code: str) -> int | None:
    """How many are left after this one."""
    row = session.get(Researcher, researcher.id, with_for_update=True, populate_existing=True)
    kept: list[str] = json.loads(row.recovery or "[]") if row else []
    given = _hash(secret, researcher, code)
    left = [one for one in kept if not hmac.compare_digest(one, given)]
    if row is None or row.factor is None or len(left) == len(kept):
        return None
    row.recovery = json.dumps(left)
    session.flush()
    return len(left)


def _changed(session: Session, statement: Any) -> bool:
    done = session.execute(statement.execution_options(synchronize_session=False))
    assert isinstance(done, CursorResult)
    return done.rowcount == 1


# ------------------------------------------------------------------ texts


def _recovery_codes() -> list[str]:
    texts = [_base32(secrets.token_bytes(RECOVERY_BYTES)) for _ in range(RECOVERY_CODES)]
    return ["-".join(text[at : at + 4] for at in range(0, len(text), 4)) for text in texts]


def _hashes(secret: str, researcher: Researcher, codes: list[str]) -> str:
    return json.dumps([_hash(secret, researcher, _plain(code)) for code in codes])


def _hash(secret: str, researcher: Researcher, code: str) -> str:
    return hmac.new(derive(secret, "recovery"), f"{researcher.id}:{code}".encode(), hashlib.sha256).hexdigest()


def _plain(code: str) -> str:
    """A code as it is compared: however it was grouped or written."""
    return "".join(letter for letter in code[:CODE_LIMIT] if letter.isascii() and letter.isalnum()).upper()


def _base32(random: bytes) -> str:
    return base64.b32encode(random).decode()


def _bytes(key: str) -> bytes:
    return base64.b32decode(key)
