"""The second factor: a key in an authenticator app, and ten recovery codes in case the app is lost.

The key is stored encrypted (Fernet) under a key derived from ROOTNOTE_SECRET by HKDF-SHA-256 (RFC 5869), together with
its owner's id, so that it cannot be copied into another row. A code works once: one conditional UPDATE requires its
step to be later than the last one used. Recovery codes have 120 random bits, are stored as keyed hashes, and work once
each. The state that a form carries between two steps of signing in or setting up is sealed in the same way, for a few
minutes.
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
    """Derive a 32-byte key for one purpose."""
    return HKDF(SHA256(), 32, salt=None, info=f"rootnote.{purpose}".encode()).derive(secret.encode())


class KeyCipher:
    """Encrypts small JSON objects for one purpose, to be stored or carried by a form."""

    def __init__(self, secret: str, purpose: str) -> None:
        self._fernet = Fernet(base64.urlsafe_b64encode(derive(secret, purpose)))

    def seal(self, content: dict[str, Any], now: datetime) -> str:
        return self._fernet.encrypt_at_time(json.dumps(content).encode(), int(now.timestamp())).decode()

    def open(self, sealed: str, now: datetime | None = None, seconds: int = 0) -> dict[str, Any] | None:
        """The sealed content; None if it was not sealed here or, if `now` is given, older than `seconds`."""
        try:
            token = sealed.encode()
            text = (
                self._fernet.decrypt_at_time(token, seconds, int(now.timestamp()))
                if now is not None
                else self._fernet.decrypt(token)
            )
        except (InvalidToken, ValueError):
            return None
        content = json.loads(text)
        assert isinstance(content, dict)
        return content


# ------------------------------------------------------------------ setting up


@dataclass(frozen=True)
class Enrolment:
    """An offered key: as text to type, as a QR code (SVG), and sealed for the form that confirms it."""

    key: str
    qr_code: str
    sealed: str


def begin(secret: str, researcher: Researcher, issuer: str, now: datetime) -> Enrolment:
    """Offer a new key; nothing is stored until the user returns one of its codes."""
    return _enrolment(secret, researcher, _base32(secrets.token_bytes(SECRET_BYTES)), issuer, now)


def offer_again(secret: str, researcher: Researcher, sealed: str, issuer: str, now: datetime) -> Enrolment | None:
    """Offer the same key again after a wrong code; None if the offer has expired or is another user's."""
    key = _offered_key(secret, researcher, sealed, now)
    return _enrolment(secret, researcher, key, issuer, now, sealed) if key else None


def _enrolment(
    secret: str, researcher: Researcher, key: str, issuer: str, now: datetime, sealed: str | None = None
) -> Enrolment:
    image = segno.make(totp.provisioning_uri(key, researcher.name, issuer), error="m", micro=False)
    svg = image.svg_inline(border=4, dark="#000", light="#fff", omitsize=True, svgclass=None, lineclass=None)
    sealed = sealed or KeyCipher(secret, "enrolment").seal({"who": researcher.id, "key": key}, now)
    return Enrolment(" ".join(key[at : at + 4] for at in range(0, len(key), 4)), svg, sealed)


def _offered_key(secret: str, researcher: Researcher, sealed: str, now: datetime) -> str | None:
    offer = KeyCipher(secret, "enrolment").open(sealed, now, ENROLMENT_SECONDS)
    return str(offer["key"]) if offer and offer["who"] == researcher.id else None


def confirm(
    session: Session, secret: str, researcher: Researcher, sealed: str, code: str, now: datetime
) -> list[str] | None:
    """Store the offered key if the code belongs to it.

    Returns:
        The recovery codes; None if the code is wrong or the user already has a second factor.
    """
    key = _offered_key(secret, researcher, sealed, now)
    step = totp.matching_step(key, _normalised(code), now) if key else None
    if key is None or step is None:
        return None
    stored = KeyCipher(secret, "factor").seal({"who": researcher.id, "key": key}, now)
    codes = _recovery_codes()
    row = update(Researcher).where(Researcher.id == researcher.id, Researcher.factor.is_(None))
    values = {"factor": stored, "factor_step": step, "recovery": _hashes(secret, researcher, codes)}
    return codes if _changed(session, row.values(values)) else None


def renew_recovery(session: Session, secret: str, researcher: Researcher) -> list[str] | None:
    """Replace the recovery codes by ten new ones; None if the user has no second factor."""
    codes = _recovery_codes()
    row = update(Researcher).where(Researcher.id == researcher.id, Researcher.factor.is_not(None))
    return codes if _changed(session, row.values(recovery=_hashes(secret, researcher, codes))) else None


# ------------------------------------------------------------------ using


@dataclass(frozen=True)
class FactorCheck:
    """The second factor was right; `recovery_left`: unused recovery codes, if a recovery code was used."""

    recovery_left: int | None = None


def check(session: Session, secret: str, researcher: Researcher, code: str, now: datetime) -> FactorCheck | None:
    """Use a code of the app, or a recovery code; None if it is wrong or has been used."""
    typed = _normalised(code)
    if is_app_code(code):
        return FactorCheck() if _use_app_code(session, secret, researcher, typed, now) else None
    left = _use_recovery_code(session, secret, researcher, typed)
    return None if left is None else FactorCheck(left)


def is_right(secret: str, researcher: Researcher, code: str, now: datetime) -> bool:
    """Whether a code of the app, or a recovery code, is right; it is not used up."""
    typed = _normalised(code)
    if is_app_code(code):
        key = _key(secret, researcher)
        step = totp.matching_step(key, typed, now) if key else None
        return step is not None and (researcher.factor_step is None or researcher.factor_step < step)
    used = _hash(secret, researcher, typed)
    return any(hmac.compare_digest(one, used) for one in json.loads(researcher.recovery or "[]"))


def is_app_code(code: str) -> bool:
    """Whether a code is as short as an app's; recovery codes are too long to be guessed."""
    return len(_normalised(code)) == totp.DIGITS


def can_decrypt(secret: str, researcher: Researcher) -> bool:
    """Whether the stored key can be read with this secret."""
    return _key(secret, researcher) is not None


def recovery_left(researcher: Researcher) -> int:
    return len(json.loads(researcher.recovery or "[]"))


def _key(secret: str, researcher: Researcher) -> str | None:
    stored = KeyCipher(secret, "factor").open(researcher.factor or "")
    return str(stored["key"]) if stored and stored["who"] == researcher.id else None


def _use_app_code(session: Session, secret: str, researcher: Researcher, code: str, now: datetime) -> bool:
    key = _key(secret, researcher)
    step = totp.matching_step(key, code, now) if key else None
    if step is None:
        return False
    row = update(Researcher).where(Researcher.id == researcher.id, Researcher.factor == researcher.factor)
    unused = or_(Researcher.factor_step.is_(None), Researcher.factor_step < step)
    return _changed(session, row.where(unused).values(factor_step=step))


def _use_recovery_code(session: Session, secret: str, researcher: Researcher, code: str) -> int | None:
    """The number of unused codes after this one; None if it is wrong."""
    row = session.get(Researcher, researcher.id, with_for_update=True, populate_existing=True)
    hashes: list[str] = json.loads(row.recovery or "[]") if row else []
    used = _hash(secret, researcher, code)
    left = [unused for unused in hashes if not hmac.compare_digest(unused, used)]
    if row is None or row.factor is None or len(left) == len(hashes):
        return None
    row.recovery = json.dumps(left)
    session.flush()
    return len(left)


def _changed(session: Session, statement: Any) -> bool:
    result = session.execute(statement.execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


# ------------------------------------------------------------------ texts


def _recovery_codes() -> list[str]:
    texts = [_base32(secrets.token_bytes(RECOVERY_BYTES)) for _ in range(RECOVERY_CODES)]
    return ["-".join(text[at : at + 4] for at in range(0, len(text), 4)) for text in texts]


def _hashes(secret: str, researcher: Researcher, codes: list[str]) -> str:
    return json.dumps([_hash(secret, researcher, _normalised(code)) for code in codes])


def _hash(secret: str, researcher: Researcher, code: str) -> str:
    return hmac.new(derive(secret, "recovery"), f"{researcher.id}:{code}".encode(), hashlib.sha256).hexdigest()


def _normalised(code: str) -> str:
    """A code without spaces and hyphens, in capitals."""
    return "".join(letter for letter in code[:CODE_LIMIT] if letter.isascii() and letter.isalnum()).upper()


def _base32(random: bytes) -> str:
    return base64.b32encode(random).decode()
