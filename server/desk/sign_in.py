"""Signing in to the desk: name and password, then a code if the user has a second factor. Every attempt is logged.

A wrong code counts like a wrong password, for the same name and address. Between the two steps the page carries a
sealed proof of whose password was right, in which browser, valid for five minutes. The log names who failed only if a
user has that name, and never an address; failures of unknown names are logged only up to a limit per 15 minutes.
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
from server.desk.context import engine, now, settings
from server.identity.tokens import sha256
from server.web.rate_limits import network

CODE_SECONDS = 5 * 60
UNKNOWN_NAME = "(unknown name)"


@dataclass(frozen=True)
class CodeRequired:
    """Name and password were right and a code is required; `sealed` proves that in the form that asks for it."""

    sealed: str


class StaleSignInError(Exception):
    """The password was checked too long ago, or the account has changed since."""


def submit_password(name: str, password: str) -> WebResponse | CodeRequired | None:
    """Check name and password.

    The password is hashed outside any transaction, so that this slow step holds no lock.

    Returns:
        The reply that leads to the desk, or what the second step needs; None if name or password is wrong.

    Raises:
        TooManyAttemptsError: if too many attempts have failed recently.
    """
    moment = now()
    if not check_password(name, password):
        return None
    with writing(engine()) as session, session.begin():
        user = users.find(session, name)
        if user is None:
            return None
        if user.factor is not None:
            return CodeRequired(_cipher().seal(_password_proof(user), moment))
        return _sign_in(session, user, "", moment)


def submit_code(sealed: str, code: str) -> WebResponse | None:
    """Check the code of the second step.

    Returns:
        The reply that leads to the desk; None if the code is wrong or has been used.

    Raises:
        StaleSignInError: if the password has to be entered again.
        TooManyAttemptsError: if too many attempts have failed recently.
    """
    moment = now()
    proof = _cipher().open(sealed, moment, CODE_SECONDS)
    if proof is None:
        raise StaleSignInError
    keys = _record_attempt(proof["name"], moment)
    with writing(engine()) as session, session.begin():
        user = users.find(session, proof["name"])
        if user is None or user.factor is None or _password_proof(user) != proof:
            raise StaleSignInError
        passed = two_factor.check(session, settings().secret, user, code, moment)
        if passed is not None:
            users.uncount_attempt(session, keys)
            left = passed.recovery_left
            return _sign_in(session, user, "" if left is None else f"by a recovery code, {left} left", moment)
    _log_failure(proof["name"], "failed to sign in", "wrong code", moment)
    return None


def check_password(name: str, password: str) -> bool:
    """Whether the password belongs to the name; if not, the failure is counted and logged.

    Raises:
        TooManyAttemptsError: if too many attempts have failed recently.
    """
    moment = now()
    keys = _record_attempt(name, moment)
    with reading(engine()) as session:
        user = users.find(session, name)
        password_hash = user.password_hash if user else None
    if not users.is_password(password_hash, password):
        _log_failure(name, "failed to sign in", "wrong password" if password_hash else "", moment)
        return False
    with writing(engine()) as session, session.begin():
        users.uncount_attempt(session, keys)
    return True


def _sign_in(session: Session, user: Researcher, detail: str, moment: datetime) -> WebResponse:
    token = users.sign_in(session, user, moment)
    study_control.write_log(session, user.name, "signed in", moment, detail=detail)
    return auth.begin_sign_in(token)


def _password_proof(user: Researcher) -> dict[str, str]:
    """The facts checked in the first step, which must be unchanged in the second."""
    return {"name": user.name, "hash": sha256(user.password_hash), "browser": auth.form_token()}


def _cipher() -> KeyCipher:
    return KeyCipher(settings().secret, "password")


# ------------------------------------------------------------------ attempts


def _record_attempt(name: str, moment: datetime) -> tuple[str, str]:
    """Count an attempt before it is checked; returns the keys under which it is counted."""
    keys = (_key("name", name), _key("address", network(request.remote_addr)))
    with writing(engine()) as session, session.begin():
        users.delete_expired_attempts(session, moment)
    with writing(engine()) as session:
        try:
            users.record_attempt(session, *keys, moment)
        except TooManyAttemptsError as error:
            if error.newly_locked:
                kind = "name" if keys[0] in error.newly_locked else "address"
                _write_failure(session, name, "was locked out", f"too many attempts with one {kind}", moment)
            raise
        finally:
            session.commit()
    return keys


def _log_failure(name: str, what: str, detail: str, moment: datetime) -> None:
    with writing(engine()) as session, session.begin():
        _write_failure(session, name, what, detail, moment)


def _write_failure(session: Session, name: str, what: str, detail: str, moment: datetime) -> None:
    user = users.find(session, name)
    if user is not None or users.may_log_unknown_name(session, _key("strangers", ""), moment):
        study_control.write_log(session, user.name if user else UNKNOWN_NAME, what, moment, detail=detail)


def _key(purpose: str, value: str) -> str:
    secret = settings().secret.encode()
    return hmac.new(secret, f"rootnote.attempt.{purpose}:{value}".encode(), hashlib.sha256).hexdigest()
