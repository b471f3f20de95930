"""Signing in to the desk: name and password, then a code where somebody has a second factor; each attempt in the log.

A wrong code counts as a wrong password does, for the same name and address. Between the two steps the page holds a
sealed text that says whose password was right, in which browser, for five minutes. The log names who failed only where
that name is somebody's here, and never an address; of other names it takes so many in a quarter of an hour.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime

from flask import request
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as WebResponse

from server.accounts import two_factor, users
from server.accounts.two_factor import KeyCipher
from server.accounts.users import TooManyAttemptsError
from server.audit import study_control
from server.db.database import reading, writing
from server.db.models import Researcher
from server.desk import auth
from server.identity.tokens import sha256
from server.web.rate_limits import network

CODE_SECONDS = 5 * 60
STRANGER = "(unknown name)"


@dataclass(frozen=True)
class CodeRequired:
    """Name and password were right, and the second factor is left; `sealed` says so in the form that asks for it."""

    sealed: str


class StaleSignInError(Exception):
    """The password was right too long ago, or something of the account changed since."""


def try_password(name: str, password: str) -> WebResponse | CodeRequired | None:
    """The reply that leads to the desk, or what the second step needs; None where name or password is wrong.

    The password is looked at outside any transaction, so that its slow hashing holds no lock.

    Raises:
        TooManyAttemptsError: where too many have failed lately.
    """
    moment = auth.now()
    if not is_password(name, password):
        return None
    with writing(auth.engine()) as session, session.begin():
        known = users.find(session, name)
        if known is None:
            return None
        if known.factor is not None:
            return CodeRequired(_sealer().seal(_what_was_right(known), moment))
        return _let_in(session, known, "", moment)


def try_code(sealed: str, code: str) -> WebResponse | None:
    """The reply that leads to the desk; None where the code is wrong or was used before.

    Raises:
        StaleSignInError: where the password has to be given again.
        TooManyAttemptsError: where too many have failed lately.
    """
    moment = auth.now()
    right = _sealer().open(sealed, moment, CODE_SECONDS)
    if right is None:
        raise StaleSignInError
    keys = _count_attempt(right["name"], moment)
    with writing(auth.engine()) as session, session.begin():
        known = users.find(session, right["name"])
        if known is None or known.factor is None or _what_was_right(known) != right:
            raise StaleSignInError
        passed = two_factor.check(session, auth.settings().secret, known, code, moment)
        if passed is not None:
            users.forgive(session, keys)
            left = passed.recovery_left
            return _let_in(session, known, "" if left is None else f"by a recovery code, {left} left", moment)
    _tell_failure(right["name"], "failed to sign in", "wrong code", moment)
    return None


def is_password(name: str, password: str) -> bool:
    """Whether the password is the name's; counted and logged where it is not.

    Raises:
        TooManyAttemptsError: where too many have failed lately.
    """
    moment = auth.now()
    keys = _count_attempt(name, moment)
    with reading(auth.engine()) as session:
        known = users.find(session, name)
        password_hash = known.password_hash if known else None
    if not users.is_password(password_hash, password):
        _tell_failure(name, "failed to sign in", "wrong password" if password_hash else "", moment)
        return False
    with writing(auth.engine()) as session, session.begin():
        users.forgive(session, keys)
    return True


def _let_in(session: Session, known: Researcher, how: str, moment: datetime) -> WebResponse:
    token = users.sign_in(session, known, moment)
    study_control.write_log(session, known.name, "signed in", moment, detail=how)
    return auth.start_session(token)


def _what_was_right(known: Researcher) -> dict[str, str]:
    """What must still be so when the code comes."""
    return {"name": known.name, "hash": sha256(known.password_hash), "browser": auth.form_token()}


def _sealer() -> KeyCipher:
    return KeyCipher(auth.settings().secret, "password")


# ------------------------------------------------------------------ attempts


def _count_attempt(name: str, moment: datetime) -> tuple[str, str]:
    """Count an attempt before it is looked at; the keys that it is counted under."""
    keys = (_key("name", name), _key("address", network(request.remote_addr)))
    with writing(auth.engine()) as session, session.begin():
        users.forget_attempts(session, moment)
    with writing(auth.engine()) as session:
        try:
            users.note_attempt(session, *keys, moment)
        except TooManyAttemptsError as error:
            if error.begun:
                what = "name" if keys[0] in error.begun else "address"
                _write_failure(session, name, "was locked out", f"too many attempts with one {what}", moment)
            raise
        finally:
            session.commit()
    return keys


def _tell_failure(name: str, what: str, detail: str, moment: datetime) -> None:
    with writing(auth.engine()) as session, session.begin():
        _write_failure(session, name, what, detail, moment)


def _write_failure(session: Session, name: str, what: str, detail: str, moment: datetime) -> None:
    known = users.find(session, name)
    if known is not None or users.is_reported(session, _key("strangers", ""), moment):
        study_control.write_log(session, known.name if known else STRANGER, what, moment, detail=detail)


def _key(purpose: str, value: str) -> str:
    secret = auth.settings().secret.encode()
    return hmac.new(secret, f"rootnote.attempt.{purpose}:{value}".encode(), hashlib.sha256).hexdigest()
