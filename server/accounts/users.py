"""Users of the desk: their accounts and passwords, and their sign-ins.

Passwords are stored as argon2id hashes. An unknown name costs the same work as a known one, so that response times
reveal nothing. A sign-in ends 12 hours after it started, an hour after the desk was last used, or when the user signs
out. The first user is an owner, and one owner always remains while there are other users.
"""

from __future__ import annotations

import functools
import re
from datetime import datetime, timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.accounts.roles import Role
from server.db.models import Researcher, SignIn
from server.identity.tokens import random_token, sha256

PASSWORD_LENGTH = 12
PASSWORD_LIMIT = 1024  # hashing takes longer the longer the text
# A password may contain these but not consist of them: our own words, and the start of lists of common passwords.
COMMON_WORDS = (
    "rootnote", "password", "passwort", "research", "listening", "study", "admin", "welcome", "letmein", "iloveyou",
    "qwertyuiop", "qwerty", "qwertz", "azerty", "asdfgh", "abcdef", "1234567890", "123456", "987654", "12345", "monkey",
    "dragon", "secret", "football", "sunshine", "princess", "superman", "changeme", "trustno",
)  # fmt: skip
MIN_DISTINCT = 6  # distinct characters that must remain without them
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MAX_AGE, MAX_IDLE = timedelta(hours=12), timedelta(hours=1)

_hasher = PasswordHasher()  # the low-memory profile of RFC 9106: 64 MiB, 3 passes


# ------------------------------------------------------------------ accounts


def add(session: Session, name: str, password: str, now: datetime, role: Role | None = None) -> Researcher:
    """Add a user; without a role, the first becomes an owner and the others researchers.

    Raises:
        RootnoteError: if the name or the password is not allowed, the name is taken, or the first user would not be an
            owner.
    """
    if not NAME.fullmatch(name):
        raise RootnoteError(
            f"the name '{name}' is not allowed; use 1 to 63 lower-case letters, digits, dots, hyphens and underscores, "
            "beginning with a letter or digit."
        )
    if find(session, name) is not None:
        raise RootnoteError(
            f"the user '{name}' already exists; `rootnote server user passwd {name}` changes the password."
        )
    first = session.scalar(select(Researcher.id).limit(1)) is None
    if first and role not in (None, Role.OWNER):
        raise RootnoteError(f"the first user must be an owner; add one before you add '{name}' as {role}.")
    given = role or (Role.OWNER if first else Role.RESEARCHER)
    researcher = Researcher(name=name, password_hash=_hash(name, password), created_at=now, role=given)
    session.add(researcher)
    session.flush()
    return researcher


def remove(session: Session, name: str) -> None:
    """Remove a user and end all their sign-ins.

    Raises:
        RootnoteError: if the name is unknown, or the other users would have no owner.
    """
    researcher = _require(session, name)
    if session.scalar(select(func.count()).select_from(Researcher)) != 1:
        _require_another_owner(session, researcher)
    sign_out_everywhere(session, researcher)
    session.delete(researcher)
    session.flush()


def change_role(session: Session, name: str, role: Role) -> None:
    """Change a user's role, from their next page on; a monitor no longer sees agreement.

    Raises:
        RootnoteError: if the name is unknown, or no owner would remain.
    """
    researcher = _require(session, name)
    if role is not Role.OWNER:
        _require_another_owner(session, researcher)
    researcher.role = role
    if role is Role.MONITOR:
        researcher.unblinded_at = None
    session.flush()


def _require_another_owner(session: Session, leaving: Researcher) -> None:
    # Locked in a fixed order: if two owners remove each other at the same time, the second waits and is refused.
    owners = select(Researcher.id).where(Researcher.role == Role.OWNER).order_by(Researcher.id).with_for_update()
    if set(session.scalars(owners)) == {leaving.id}:
        raise RootnoteError(f"'{leaving.name}' is the last owner; make another user an owner first.")


def remove_two_factor(session: Session, name: str) -> None:
    """Delete a user's second factor and recovery codes, and end all their sign-ins.

    Raises:
        RootnoteError: if the name is unknown.
    """
    researcher = _require(session, name)
    researcher.factor = researcher.factor_step = researcher.recovery = None
    sign_out_everywhere(session, researcher)
    session.flush()


def change_password(session: Session, name: str, password: str) -> None:
    """Change a user's password, and end all their sign-ins.

    Raises:
        RootnoteError: if the name is unknown or the password is not allowed.
    """
    researcher = _require(session, name)
    researcher.password_hash = _hash(name, password)
    sign_out_everywhere(session, researcher)
    session.flush()


def find(session: Session, name: str) -> Researcher | None:
    """The user with this name; None if there is none."""
    if not NAME.fullmatch(name):
        return None
    return session.scalar(select(Researcher).where(Researcher.name == name))


def _require(session: Session, name: str) -> Researcher:
    researcher = find(session, name)
    if researcher is None:
        raise RootnoteError(f"there is no user '{name}'; `rootnote server user list` lists all.")
    return researcher


def _hash(name: str, password: str) -> str:
    if not PASSWORD_LENGTH <= len(password) <= PASSWORD_LIMIT:
        raise RootnoteError(f"the password must have {PASSWORD_LENGTH} to {PASSWORD_LIMIT} characters.")
    remainder = password.lower()
    for word in (*(part for part in re.split(r"[._-]", name) if len(part) > 2), *COMMON_WORDS):
        remainder = remainder.replace(word, "")
    if len(set(remainder)) < MIN_DISTINCT:
        raise RootnoteError(
            "the password is easy to guess: it must contain more than common words, the name and a few characters; "
            "make one with `openssl rand -base64 18`."
        )
    return _hasher.hash(password)


@functools.cache
def _dummy_hash() -> str:
    """The hash of a random password, against which an unknown name is checked."""
    return _hasher.hash(random_token())


def is_password(researcher_hash: str | None, password: str) -> bool:
    """Whether the password matches the hash; None (an unknown name) takes as long and never matches."""
    dummy = _dummy_hash()  # computed for every name, so that the first check takes as long as any other
    try:
        _hasher.verify(researcher_hash or dummy, password[: PASSWORD_LIMIT + 1])
    except (VerificationError, InvalidHashError):
        return False
    return researcher_hash is not None


# ------------------------------------------------------------------ sign-ins


def sign_in(session: Session, researcher: Researcher, now: datetime) -> str:
    """Start a sign-in and return the token for its cookie; expired sign-ins are deleted."""
    session.execute(delete(SignIn).where((SignIn.created_at <= now - MAX_AGE) | (SignIn.seen_at <= now - MAX_IDLE)))
    token = random_token()
    session.add(SignIn(researcher_id=researcher.id, token_hash=sha256(token), created_at=now, seen_at=now))
    session.flush()
    return token


def find_sign_in(session: Session, token: str, now: datetime) -> SignIn | None:
    """The sign-in of a cookie; None if it is unknown or has expired."""
    found = session.scalar(select(SignIn).where(SignIn.token_hash == sha256(token)))
    if found is None or now - found.created_at >= MAX_AGE or now - found.seen_at >= MAX_IDLE:
        return None
    return found


def renew(session: Session, current: SignIn, now: datetime) -> None:
    """Record that the desk was used."""
    session.execute(update(SignIn).where(SignIn.id == current.id).values(seen_at=now))


def sign_out(session: Session, current: SignIn) -> None:
    session.execute(delete(SignIn).where(SignIn.id == current.id))


def sign_out_everywhere(session: Session, researcher: Researcher) -> None:
    session.execute(delete(SignIn).where(SignIn.researcher_id == researcher.id))
