"""Failed attempts to sign in: counted so that guessing is slow, and so that guessers keep nobody else out.

Attempts are counted by name and address together, and by address, under keyed hashes; after too many within 15 minutes,
further ones are refused unread. Many failures of one name from many addresses refuse nobody: each address then has
fewer attempts with that name. A device on which the user has signed in before has a count of its own, which nobody else
can use up. Codes of the app have counts of their own; recovery codes, which nobody can guess, are never refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import case, delete, select, update
from sqlalchemy.orm import Session

from server.db.models import SignInAttempts
from server.db.upsert import insert

WINDOW = timedelta(minutes=15)
NAME_ATTEMPTS, ADDRESS_ATTEMPTS = 10, 30  # of one name at one address; of one address
ATTACKED_ATTEMPTS = 3  # of one name at one address, while others fail with that name too
DEVICE_ATTEMPTS, CODE_ATTEMPTS = 10, 10
UNKNOWN_NAMES_LOGGED = 30  # failures of unknown names in the log, per window


class TooManyAttemptsError(Exception):
    """Signing in is refused for `minutes`; `newly_locked`: the keys whose limit this attempt is the first to exceed."""

    def __init__(self, minutes: int, newly_locked: tuple[str, ...] = ()) -> None:
        super().__init__(f"refused for {minutes} min")
        self.minutes, self.newly_locked = minutes, newly_locked


@dataclass(frozen=True)
class AttemptKeys:
    """The keys under which an attempt is counted; `device` instead of the others, if it is a known one."""

    name: str
    address: str
    pair: str
    device: str = ""


class _Count(NamedTuple):
    number: int
    since: datetime


def record(session: Session, keys: AttemptKeys, now: datetime) -> tuple[str, ...]:
    """Count an attempt before its password is checked; returns the keys that a success takes back.

    Raises:
        TooManyAttemptsError: if the device, the address, or the name at this address has used up its attempts.
    """
    if keys.device:
        return record_one(session, keys.device, DEVICE_ATTEMPTS, now)
    order = (keys.name, *sorted((keys.pair, keys.address)))
    counts = {key: _count(session, key, now) for key in order}
    elsewhere = counts[keys.name].number - counts[keys.pair].number
    limit = NAME_ATTEMPTS if elsewhere < NAME_ATTEMPTS else ATTACKED_ATTEMPTS
    _require(counts, {keys.pair: limit, keys.address: ADDRESS_ATTEMPTS}, now)
    return order


def record_one(session: Session, key: str, limit: int, now: datetime) -> tuple[str, ...]:
    """Count an attempt under one key.

    Raises:
        TooManyAttemptsError: if its limit is exceeded.
    """
    _require({key: _count(session, key, now)}, {key: limit}, now)
    return (key,)


def _require(counts: dict[str, _Count], limits: dict[str, int], now: datetime) -> None:
    exceeded = [key for key, limit in limits.items() if counts[key].number > limit]
    newly_locked = tuple(key for key in exceeded if counts[key].number == limits[key] + 1)
    if exceeded:
        wait = max(counts[key].since for key in exceeded) + WINDOW - now
        raise TooManyAttemptsError(max(1, round(wait.total_seconds() / 60)), newly_locked)


def may_log(session: Session, key: str, now: datetime) -> bool:
    """Count a failure, and say whether to log it: strangers must not be able to fill the log."""
    return _count(session, key, now).number <= UNKNOWN_NAMES_LOGGED


def _count(session: Session, key: str, now: datetime) -> _Count:
    expired = SignInAttempts.since <= now - WINDOW
    row = insert(session, SignInAttempts).values(key=key, since=now, number=1)
    row = row.on_conflict_do_update(
        index_elements=[SignInAttempts.key],
        set_={
            "number": case((expired, 1), else_=SignInAttempts.number + 1),
            "since": case((expired, now), else_=SignInAttempts.since),
        },
    )
    number, since = session.execute(row.returning(SignInAttempts.number, SignInAttempts.since)).one()
    return _Count(number, since)


def delete_expired(session: Session, now: datetime) -> None:
    """Delete the counts whose window has ended, except those that another request is updating."""
    expired = select(SignInAttempts.key).where(SignInAttempts.since <= now - WINDOW).with_for_update(skip_locked=True)
    session.execute(
        delete(SignInAttempts).where(SignInAttempts.key.in_(expired)).execution_options(synchronize_session=False)
    )


def take_back(session: Session, keys: Iterable[str]) -> None:
    """Take back the count of an attempt that succeeded; `keys` in the order in which they were counted."""
    for key in keys:
        session.execute(
            update(SignInAttempts).where(SignInAttempts.key == key).values(number=SignInAttempts.number - 1)
        )
