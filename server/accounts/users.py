"""Researchers who may open the desk: their passwords, where they are signed in, and how often guessing is allowed.

Passwords are kept as argon2id hashes. A name that is not there costs the same work as one that is, so that the time
of a reply tells nothing. Failed attempts are counted for the name and for the address, each under a keyed hash; after
so many within a quarter of an hour the rest are refused unread, and the count is forgotten when it is over.
A sign-in ends 12 hours after it began, an hour after the desk was last used, or when it is signed out.
The first researcher is an owner, and while there are others one owner is left.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import case, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.accounts.roles import Role
from server.db.models import Researcher, SignIn, SignInAttempts
from server.identity.tokens import random_token, sha256

PASSWORD_LENGTH = 12
PASSWORD_LIMIT = 1024  # hashing takes longer the longer the text
# What a password may hold but not consist of: words of this place, and those that lists of guesses begin with.
GUESSED = (
    "rootnote", "password", "passwort", "research", "listening", "study", "admin", "welcome", "letmein", "iloveyou",
    "qwertyuiop", "qwerty", "qwertz", "azerty", "asdfgh", "abcdef", "1234567890", "123456", "987654", "12345", "monkey",
    "dragon", "secret", "football", "sunshine", "princess", "superman", "changeme", "trustno",
)  # fmt: skip
DISTINCT = 6  # characters that must be left without them
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
WINDOW = timedelta(minutes=15)
NAME_ATTEMPTS, ADDRESS_ATTEMPTS = 10, 30
STRANGERS_TOLD = 30  # failures of unknown names in the log, in one window
LONGEST, IDLE = timedelta(hours=12), timedelta(hours=1)

_hasher = PasswordHasher()  # RFC 9106's low-memory choice: 64 MiB, 3 passes


class TooManyAttemptsError(Exception):
    """Signing in is refused for `minutes`; `begun`: the keys that this attempt was the first too many of."""

    def __init__(self, minutes: int, begun: tuple[str, ...] = ()) -> None:
        super().__init__(f"refused for {minutes} minutes")
        self.minutes, self.begun = minutes, begun


# ------------------------------------------------------------------ accounts


def add(session: Session, name: str, password: str, now: datetime, role: Role | None = None) -> Researcher:
    """Add somebody; without a role the first is an owner and the others are researchers.

    Raises:
        RootnoteError: where the name or the password will not do, the name is taken, or the first is to be no owner.
    """
    if not NAME.fullmatch(name):
        raise RootnoteError(
            f"the name '{name}' will not do; use 1 to 63 small letters, digits, dots, hyphens and underscores."
        )
    if find(session, name) is not None:
        raise RootnoteError(f"'{name}' is there already; `rootnote server user passwd {name}` changes the password.")
    first = session.scalar(select(Researcher.id).limit(1)) is None
    if first and role not in (None, Role.OWNER):
        raise RootnoteError(f"the first who may sign in is the owner; add '{name}' as {role} after them.")
    given = role or (Role.OWNER if first else Role.RESEARCHER)
    researcher = Researcher(name=name, password_hash=_hash(name, password), created_at=now, role=given)
    session.add(researcher)
    session.flush()
    return researcher


def remove(session: Session, name: str) -> None:
    """Remove a researcher, who is signed out everywhere.

    Raises:
        RootnoteError: where there is none of that name, or others would be left without an owner.
    """
    researcher = _require(session, name)
    if session.scalar(select(func.count()).select_from(Researcher)) != 1:
        _leave_an_owner(session, researcher)
    sign_out_everywhere(session, researcher)
    session.delete(researcher)
    session.flush()


def change_role(session: Session, name: str, role: Role) -> None:
    """Give somebody another role, from their next page on; a monitor is blind again.

    Raises:
        RootnoteError: where there is none of that name, or no owner would be left.
    """
    researcher = _require(session, name)
    if role is not Role.OWNER:
        _leave_an_owner(session, researcher)
    researcher.role = role
    if role is Role.MONITOR:
        researcher.unblinded_at = None
    session.flush()


def _leave_an_owner(session: Session, leaving: Researcher) -> None:
    # Locked in one order, so that two owners who remove each other at once wait, and the second is refused.
    owners = select(Researcher.id).where(Researcher.role == Role.OWNER).order_by(Researcher.id).with_for_update()
    if set(session.scalars(owners)) == {leaving.id}:
        raise RootnoteError(f"'{leaving.name}' is the last owner; make somebody else one first.")


def drop_factor(session: Session, name: str) -> None:
    """Forget somebody's second factor and recovery codes; they are signed out everywhere.

    Raises:
        RootnoteError: where there is none of that name.
    """
    researcher = _require(session, name)
    researcher.factor = researcher.factor_step = researcher.recovery = None
    sign_out_everywhere(session, researcher)
    session.flush()


def change_password(session: Session, name: str, password: str) -> None:
    """Give a researcher another password; they are signed out everywhere.

    Raises:
        RootnoteError: where there is none of that name or the password will not do.
    """
    researcher = _require(session, name)
    researcher.password_hash = _hash(name, password)
    sign_out_everywhere(session, researcher)
    session.flush()


def find(session: Session, name: str) -> Researcher | None:
    """The researcher of a name; None for any text that is none."""
    if not NAME.fullmatch(name):
        return None
    return session.scalar(select(Researcher).where(Researcher.name == name))


def _require(session: Session, name: str) -> Researcher:
    researcher = find(session, name)
    if researcher is None:
        raise RootnoteError(f"there is no researcher '{name}'; `rootnote server user list` shows who there is.")
    return researcher


def _hash(name: str, password: str) -> str:
    if not PASSWORD_LENGTH <= len(password) <= PASSWORD_LIMIT:
        raise RootnoteError(f"the password must have {PASSWORD_LENGTH} to {PASSWORD_LIMIT} characters.")
    left = password.lower()
    for word in (*(part for part in re.split(r"[._-]", name) if len(part) > 2), *GUESSED):
        left = left.replace(word, "")
    if len(set(left)) < DISTINCT:
        raise RootnoteError(
            "the password is easy to guess: it must hold more than common words, the name and a few characters; "
            "make one with `openssl rand -base64 18`."
        )
    return _hasher.hash(password)


@functools.cache
def _nobody() -> str:
    """The hash of a password that nobody knows: what an unknown name is checked against."""
    return _hasher.hash(random_token())


def is_password(researcher_hash: str | None, password: str) -> bool:
    """Whether the password is that of the hash; None (an unknown name) takes as long and is never right."""
    nobody = _nobody()  # made for every name, so that the first to be checked takes no longer than another
    try:
        _hasher.verify(researcher_hash or nobody, password[: PASSWORD_LIMIT + 1])
    except (VerificationError, InvalidHashError):
        return False
    return researcher_hash is not None


# ------------------------------------------------------------------ attempts


def note_attempt(session: Session, name_key: str, address_key: str, now: datetime) -> None:
    """Count an attempt before its password is looked at.

    Raises:
        TooManyAttemptsError: where the name or the address has had its attempts.
    """
    waits, begun = [], []
    for key, most in sorted([(name_key, NAME_ATTEMPTS), (address_key, ADDRESS_ATTEMPTS)]):
        number, since = _count(session, key, now)
        if number > most:
            waits.append(since + WINDOW - now)
        if number == most + 1:
            begun.append(key)
    if waits:
        raise TooManyAttemptsError(max(1, round(max(waits).total_seconds() / 60)), tuple(begun))


def is_reported(session: Session, key: str, now: datetime) -> bool:
    """Whether one more failure of nobody known goes into the log: strangers must not be able to fill it."""
    return _count(session, key, now)[0] <= STRANGERS_TOLD


def _count(session: Session, key: str, now: datetime) -> tuple[int, datetime]:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    over = SignInAttempts.since <= now - WINDOW
    counted = insert(SignInAttempts).values(key=key, since=now, number=1)
    counted = counted.on_conflict_do_update(
        index_elements=[SignInAttempts.key],
        set_={
            "number": case((over, 1), else_=SignInAttempts.number + 1),
            "since": case((over, now), else_=SignInAttempts.since),
        },
    )
    number, since = session.execute(counted.returning(SignInAttempts.number, SignInAttempts.since)).one()
    return number, since


def forget_attempts(session: Session, now: datetime) -> None:
    """Forget the counts that are over, but for those that somebody is counting in now."""
    over = select(SignInAttempts.key).where(SignInAttempts.since <= now - WINDOW).with_for_update(skip_locked=True)
    session.execute(
        delete(SignInAttempts).where(SignInAttempts.key.in_(over)).execution_options(synchronize_session=False)
    )


def forgive(session: Session, keys: Iterable[str]) -> None:
    """After a right password: it was no failed attempt."""
    for key in sorted(keys):
        session.execute(
            update(SignInAttempts).where(SignInAttempts.key == key).values(number=SignInAttempts.number - 1)
        )


# ------------------------------------------------------------------ sign-ins


def sign_in(session: Session, researcher: Researcher, now: datetime) -> str:
    """Begin a sign-in; the token of its cookie."""
    session.execute(delete(SignIn).where((SignIn.created_at <= now - LONGEST) | (SignIn.seen_at <= now - IDLE)))
    token = random_token()
    session.add(SignIn(researcher_id=researcher.id, token_hash=sha256(token), created_at=now, seen_at=now))
    session.flush()
    return token


def signed_in(session: Session, token: str, now: datetime) -> SignIn | None:
    """The sign-in of a cookie, while it lasts."""
    found = session.scalar(select(SignIn).where(SignIn.token_hash == sha256(token)))
    if found is None or now - found.created_at >= LONGEST or now - found.seen_at >= IDLE:
        return None
    return found


def renew(session: Session, found: SignIn, now: datetime) -> None:
    """Note that the desk was used."""
    session.execute(update(SignIn).where(SignIn.id == found.id).values(seen_at=now))


def sign_out(session: Session, found: SignIn) -> None:
    session.execute(delete(SignIn).where(SignIn.id == found.id))


def sign_out_everywhere(session: Session, researcher: Researcher) -> None:
    session.execute(delete(SignIn).where(SignIn.researcher_id == researcher.id))
