"""Control of a study: whether it recruits, its message of the day, its closing, who sees agreement; all of it logged.

Closing is permanent: it ends recruiting and shows agreement to everyone, so a study that could be reopened could be
looked at in between. Listeners who have started may finish. A researcher who needs to see agreement earlier gives a
written reason and is unblinded alone; colleagues stay blind. Arrivals are counted by day and by what was shown, not by
person: a page that is loaded twice counts twice.
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
    """A researcher's request is refused; the message is one sentence that says why, or what to change."""


def control(session: Session, *, lock: bool = False) -> StudyControl:
    """The current settings of the study's control."""
    return session.get_one(StudyControl, 1, with_for_update=lock or None)


def is_blind(control: StudyControl, researcher: Researcher) -> bool:
    """Whether agreement must be hidden from this researcher."""
    return control.closed_at is None and researcher.unblinded_at is None


def write_log(session: Session, who: str, what: str, now: datetime, *, detail: str = "", reason: str = "") -> None:
    """Add an entry to the audit log (server.audit.hash_chain), which is append-only.

    Raises:
        RootnoteError: if the session's engine was connected without the secret.
    """
    hash_chain.append(session, who, what, now, detail, reason)


def stop(session: Session, who: str, reason: str, now: datetime) -> None:
    """Stop recruiting; listeners who have started may finish. No effect if recruiting is already stopped."""
    current, text = _open_control(session), _optional(reason)
    if current.recruiting:
        current.recruiting = False
        write_log(session, who, "stopped recruiting", now, reason=text)


def resume(session: Session, who: str, reason: str, now: datetime) -> None:
    """Recruit again.

    Raises:
        ControlRefusedError: if the study is closed, or identities have been deleted.
    """
    current, text = _open_control(session), _optional(reason)
    if current.purged_at is not None:
        raise ControlRefusedError(
            "Identities have been deleted, so earlier listeners can no longer be recognised; use a new database."
        )
    if not current.recruiting:
        current.recruiting = True
        write_log(session, who, "resumed recruiting", now, reason=text)


def set_message(session: Session, who: str, message: str, now: datetime) -> None:
    """Set the message on the information page; an empty one removes it.

    Raises:
        ControlRefusedError: if it is too long or the study is closed.
    """
    current, text = _open_control(session), _one_line(message)
    if len(text) > MESSAGE_LIMIT:
        raise ControlRefusedError(f"The message has {len(text):,} characters; please shorten it to {MESSAGE_LIMIT:,}.")
    if text != current.message:
        current.message = text
        write_log(session, who, "set the message" if text else "removed the message", now, detail=text)


def close(session: Session, who: str, reason: str, now: datetime) -> None:
    """Close the study permanently.

    Raises:
        ControlRefusedError: if it is already closed or the reason is missing.
    """
    current, text = _open_control(session), _required(reason)
    current.closed_at, current.recruiting = now, False
    write_log(session, who, "closed the study", now, reason=text)


def unblind(session: Session, researcher: Researcher, reason: str, now: datetime) -> None:
    """Let one researcher see agreement before the study is closed.

    Raises:
        ControlRefusedError: if the reason is missing.
    """
    if researcher.unblinded_at is not None:
        return
    text = _required(reason)
    researcher.unblinded_at = now
    write_log(session, researcher.name, "asked to see agreement", now, reason=text)


def may_publish(session: Session, reason: str) -> bool:
    """Whether the study is closed; a running study may be published only for a written reason.

    Raises:
        ControlRefusedError: if it is not closed and the reason is missing, or the reason is too long.
    """
    _optional(reason)
    if control(session).closed_at is not None:
        return True
    if not reason.strip():
        raise ControlRefusedError(
            "the study is not closed, and its answers reveal the result; close it at the desk, or give a reason with "
            "--before-closing REASON."
        )
    _required(reason)
    return False


def publish(session: Session, who: str, reason: str, now: datetime, *, detail: str, rehearsal: bool = False) -> None:
    """Log a public release; one of simulated listeners requires neither closing nor a reason.

    Raises:
        ControlRefusedError: if the study is not closed and the reason is missing.
    """
    if not rehearsal:
        may_publish(session, reason)
    write_log(session, who, "made a public release", now, detail=detail, reason=_optional(reason))


def _open_control(session: Session) -> StudyControl:
    current = control(session, lock=True)
    if current.closed_at is not None:
        raise ControlRefusedError("The study is closed; closing is permanent.")
    return current


def _required(reason: str) -> str:
    if len(_one_line(reason)) < REASON_LENGTH:
        raise ControlRefusedError(f"Please give a reason of at least {REASON_LENGTH} characters.")
    return _optional(reason)


def _optional(reason: str) -> str:
    text = _one_line(reason)
    if len(text) > REASON_LIMIT:
        raise ControlRefusedError(f"The reason has {len(text):,} characters; please shorten it to {REASON_LIMIT:,}.")
    return text


def _one_line(text: str) -> str:
    """One line of printable characters: a database accepts no NUL, and a log no line breaks."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def count_arrival(session: Session, shown: str, now: datetime) -> None:
    """Count an arrival who was shown the study information ("informed") or was turned away ("not_let_in")."""
    row = insert(session, ArrivalCount).values(day=now.date(), shown=shown, shard=secrets.randbelow(SHARDS), number=1)
    keys = [ArrivalCount.day, ArrivalCount.shown, ArrivalCount.shard]
    session.execute(row.on_conflict_do_update(index_elements=keys, set_={"number": ArrivalCount.number + 1}))
