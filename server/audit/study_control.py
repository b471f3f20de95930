"""Control of a study: whether it recruits, its message of the day, its closing, and the log of who did what, and why.

Closing is for good: it ends recruiting and lifts the blind, so a study that could be opened again could be looked at
in between. Listeners who are already in may finish. Whoever wants to see agreement earlier gives a written reason and
is unblinded alone; their colleagues stay blind. Arrivals are counted by day and by what was shown, not by person: a
page that is loaded twice counts twice.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy.orm import Session

from server.audit import hash_chain
from server.db.models import ArrivalCount, Researcher, StudyControl
from server.db.upsert import insert

REASON_LENGTH, REASON_LIMIT = 10, 1000
MESSAGE_LIMIT = 500
SHARDS = 16


class ControlRefusedError(Exception):
    """What a researcher asked for cannot be done; the message is one plain sentence that says what to mend."""


def control(session: Session, *, lock: bool = False) -> StudyControl:
    """How the study is run at present."""
    return session.get_one(StudyControl, 1, with_for_update=lock or None)


def is_blind(control: StudyControl, researcher: Researcher) -> bool:
    """Whether agreement is to be kept from this researcher."""
    return control.closed_at is None and researcher.unblinded_at is None


def write_log(session: Session, who: str, what: str, now: datetime, *, detail: str = "", reason: str = "") -> None:
    """Add to the log (server.audit.hash_chain); nothing is ever taken from it.

    Raises:
        RootnoteError: where the session's engine was connected without the secret.
    """
    hash_chain.append(session, who, what, now, detail, reason)


def stop(session: Session, who: str, reason: str, now: datetime) -> None:
    """Stop recruiting; listeners who are in go on. A study that does not recruit is left as it is."""
    found, written = _open(session), _optional(reason)
    if found.recruiting:
        found.recruiting = False
        write_log(session, who, "stopped recruiting", now, reason=written)


def resume(session: Session, who: str, reason: str, now: datetime) -> None:
    """Recruit again.

    Raises:
        ControlRefusedError: where the study is closed.
    """
    found, written = _open(session), _optional(reason)
    if found.purged_at is not None:
        raise ControlRefusedError(
            "Identities are deleted, so nobody new can be told from who took part; take a new database."
        )
    if not found.recruiting:
        found.recruiting = True
        write_log(session, who, "resumed recruiting", now, reason=written)


def set_message(session: Session, who: str, message: str, now: datetime) -> None:
    """Set the message on the information page; an empty one takes it away.

    Raises:
        ControlRefusedError: where it is too long or the study is closed.
    """
    found, text = _open(session), _plain(message)
    if len(text) > MESSAGE_LIMIT:
        raise ControlRefusedError(f"The message has {len(text)} characters; please keep it to {MESSAGE_LIMIT}.")
    if text != found.message:
        found.message = text
        write_log(session, who, "set the message" if text else "took the message away", now, detail=text)


def close(session: Session, who: str, reason: str, now: datetime) -> None:
    """Close the study for good.

    Raises:
        ControlRefusedError: where it is closed already or the reason is missing.
    """
    found, written = _open(session), _required(reason)
    found.closed_at, found.recruiting = now, False
    write_log(session, who, "closed the study", now, reason=written)


def unblind(session: Session, researcher: Researcher, reason: str, now: datetime) -> None:
    """Let one researcher see agreement before the study is closed.

    Raises:
        ControlRefusedError: where the reason is missing.
    """
    if researcher.unblinded_at is not None:
        return
    written = _required(reason)
    researcher.unblinded_at = now
    write_log(session, researcher.name, "asked to see agreement", now, reason=written)


def may_publish(session: Session, reason: str) -> bool:
    """Whether the study is closed; one that is not may be published for a reason.

    Raises:
        ControlRefusedError: where it is not closed and the reason is missing, or the reason is too long.
    """
    _optional(reason)
    if control(session).closed_at is not None:
        return True
    if not reason.strip():
        raise ControlRefusedError(
            "the study is not closed, and its answers tell the result; close it at the desk, or say why it is to be "
            "published before with --before-closing REASON."
        )
    _required(reason)
    return False


def publish(session: Session, who: str, reason: str, now: datetime, *, detail: str, rehearsal: bool = False) -> None:
    """Note that a public release was made; one of simulated listeners needs neither closing nor reason.

    Raises:
        ControlRefusedError: where the study is not closed and the reason is missing.
    """
    if not rehearsal:
        may_publish(session, reason)
    write_log(session, who, "made a public release", now, detail=detail, reason=_optional(reason))


def _open(session: Session) -> StudyControl:
    found = control(session, lock=True)
    if found.closed_at is not None:
        raise ControlRefusedError("The study is closed, and stays so.")
    return found


def _required(reason: str) -> str:
    if len(_plain(reason)) < REASON_LENGTH:
        raise ControlRefusedError(f"Please write the reason, in at least {REASON_LENGTH} characters.")
    return _optional(reason)


def _optional(reason: str) -> str:
    text = _plain(reason)
    if len(text) > REASON_LIMIT:
        raise ControlRefusedError(f"The reason has {len(text)} characters; please keep it to {REASON_LIMIT}.")
    return text


def _plain(text: str) -> str:
    """One line of printable characters: a database takes no NUL, and a log no line breaks."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def count_arrival(session: Session, shown: str, now: datetime) -> None:
    """Count that somebody was shown the information ("informed"), or was not let in ("not_let_in")."""
    row = insert(session, ArrivalCount).values(day=now.date(), shown=shown, shard=secrets.randbelow(SHARDS), number=1)
    keys = [ArrivalCount.day, ArrivalCount.shown, ArrivalCount.shard]
    session.execute(row.on_conflict_do_update(index_elements=keys, set_={"number": ArrivalCount.number + 1}))
