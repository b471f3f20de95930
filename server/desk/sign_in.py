"""Signing in to the desk: name and password, then a code if the user has a second factor. Every attempt is logged.

server.accounts.attempts says how attempts are counted. Between the two steps the page carries a
sealed proof of whose password was right, in which browser, valid for five minutes. The log names who failed only if a
user has that name, and never an address; failures of unknown names are logged only up to a limit per 15 minutes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from flask import g, request
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as WebResponse

from server.accounts import attempts, two_factor, users
from server.accounts.attempts import AttemptKeys, TooManyAttemptsError
from server.accounts.two_factor import FactorCheck, KeyCipher
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


def submit_password(name: str, password: str, code: str = "") -> WebResponse | CodeRequired | None:
    """Check name and password.

    The password is hashed outside any transaction, so that this slow step holds no lock.

    Args:
        code: a code of the second factor; if it is right, attempts of others keep this user out no longer.

    Returns:
        The reply that leads to the desk, or what the second step needs; None if name or password is wrong.

    Raises:
        TooManyAttemptsError: if too many attempts have failed recently.
    """
    moment = now()
    if not check_password(name, password, code):
        return None
    with writing(engine()) as session, session.begin():
        user = users.find(session, name)
        if user is None:
            return None
        if user.factor is None:
            return _sign_in(session, user, "", moment)
        passed = two_factor.check(session, settings().secret, user, code, moment) if code else None
        if passed is None:
            return CodeRequired(_cipher().seal(_password_proof(user), moment))
        return _sign_in(session, user, _note(passed), moment)


def submit_code(sealed: str, code: str) -> WebResponse | None:
    """Check the code of the second step.

    Returns:
        The reply that leads to the desk; None if the code is wrong or has been used.

    Raises:
        StaleSignInError: if the password has to be entered again.
        TooManyAttemptsError: if too many codes of the app were wrong recently; recovery codes are always checked.
    """
    moment = now()
    proof = _cipher().open(sealed, moment, CODE_SECONDS)
    if proof is None:
        raise StaleSignInError
    with reading(engine()) as session:
        device = _device_key(users.find(session, proof["name"]))
    counted = _record_code(device or "code", proof["name"], moment) if two_factor.is_app_code(code) else ()
    with writing(engine()) as session, session.begin():
        user = users.find(session, proof["name"])
        if user is None or user.factor is None or _password_proof(user) != proof:
            raise StaleSignInError
        passed = two_factor.check(session, settings().secret, user, code, moment)
        if passed is not None:
            attempts.take_back(session, counted)
            return _sign_in(session, user, _note(passed), moment)
    _log_failure(proof["name"], "failed to sign in", "wrong code", moment)
    return None


def check_password(name: str, password: str, code: str = "") -> bool:
    """Whether the password belongs to the name; if not, the failure is counted and logged.

    Raises:
        TooManyAttemptsError: if too many attempts have failed recently.
    """
    moment = now()
    with reading(engine()) as session:
        user = users.find(session, name)
        password_hash = user.password_hash if user else None
        session.expunge_all()
    counted = _record_attempt(name, user, code, moment)
    if not users.is_password(password_hash, password):
        _log_failure(name, "failed to sign in", "wrong password" if password_hash else "", moment)
        return False
    with writing(engine()) as session, session.begin():
        attempts.take_back(session, counted)
    return True


def _note(passed: FactorCheck) -> str:
    left = passed.recovery_left
    return "" if left is None else f"by a recovery code, {left} left"


def _sign_in(session: Session, user: Researcher, detail: str, moment: datetime) -> WebResponse:
    token = users.sign_in(session, user, moment)
    study_control.write_log(session, user.name, "signed in", moment, detail=detail)
    return auth.begin_sign_in(token, user)


def _password_proof(user: Researcher) -> dict[str, str]:
    """The facts checked in the first step, which must be unchanged in the second."""
    return {"name": user.name, "hash": sha256(user.password_hash), "browser": auth.form_token()}


def _cipher() -> KeyCipher:
    return KeyCipher(settings().secret, "password")


# ------------------------------------------------------------------ attempts


def _record_attempt(name: str, user: Researcher | None, code: str, moment: datetime) -> tuple[str, ...]:
    """Count an attempt before it is checked; returns the keys under which it is counted."""
    address = network(request.remote_addr)
    keys = AttemptKeys(
        _key("name", name), _key("address", address), _key("pair", f"{name} {address}"), _device_key(user)
    )
    try:
        return _record(lambda session: attempts.record(session, keys, moment), name, moment)
    except TooManyAttemptsError:
        # A right code proves who this is, before the password is read; others cannot use up these attempts.
        if user is None or user.factor is None or not code:
            raise
        counted = _record_code("unread", name, moment) if two_factor.is_app_code(code) else ()
        if not two_factor.is_right(settings().secret, user, code, moment):
            raise
        return counted


def _record_code(purpose: str, name: str, moment: datetime) -> tuple[str, ...]:
    key = _key(purpose, name)
    return _record(lambda session: attempts.record_one(session, key, attempts.CODE_ATTEMPTS, moment), name, moment)


def _record(count: Callable[[Session], tuple[str, ...]], name: str, moment: datetime) -> tuple[str, ...]:
    with writing(engine()) as session, session.begin():
        attempts.delete_expired(session, moment)
    with writing(engine()) as session:
        try:
            return count(session)
        except TooManyAttemptsError as error:
            if error.newly_locked:
                address = _key("address", network(request.remote_addr))
                kind = "with one address" if error.newly_locked == (address,) else "with one name"
                _write_failure(session, name, "was locked out", f"too many attempts {kind}", moment)
            raise
        finally:
            session.commit()


def _device_key(user: Researcher | None) -> str:
    """The key of a device on which this user has signed in; "" if it is not known."""
    if user is None:
        return ""
    if "sign_in" in g and g.sign_in.researcher_id == user.id:
        return _key("device", f"sign-in {g.sign_in.id}")
    device = auth.known_device(user)
    return _key("device", device) if device else ""


def _log_failure(name: str, what: str, detail: str, moment: datetime) -> None:
    with writing(engine()) as session, session.begin():
        _write_failure(session, name, what, detail, moment)


def _write_failure(session: Session, name: str, what: str, detail: str, moment: datetime) -> None:
    user = users.find(session, name)
    if user is not None or attempts.may_log(session, _key("strangers", ""), moment):
        study_control.write_log(session, user.name if user else UNKNOWN_NAME, what, moment, detail=detail)


def _key(purpose: str, value: str) -> str:
    secret = settings().secret.encode()
    return hmac.new(secret, f"rootnote.attempt.{purpose}:{value}".encode(), hashlib.sha256).hexdigest()
