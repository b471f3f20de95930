"""Every version of the consent text that listeners were shown, and how many agreed to each.

A version is the text's SHA-256; each assignment names the one that its listener agreed to. The server stores a text
when it first starts with it, so that a change after the launch creates a new version and the old one remains readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.audit import study_control
from server.db.models import Assignment, ConsentText

SERVER = "(server)"


@dataclass(frozen=True)
class ConsentVersion:
    """A consent text: its version, when it was first shown, and how many listeners agreed to it."""

    hash: str
    language: str
    number: int
    since: datetime
    agreed: int
    text: str


def keep(session: Session, texts: Mapping[str, tuple[str, str]], now: datetime) -> None:
    """Store the current texts: language -> (hash, text). New versions are logged."""
    for language, (digest, text) in texts.items():
        if session.get(ConsentText, digest) is not None:
            continue
        of_language = select(func.count()).select_from(ConsentText).where(ConsentText.language == language)
        number = 1 + (session.scalar(of_language) or 0)
        session.add(ConsentText(hash=digest, language=language, number=number, text=text, since=now))
        session.flush()
        study_control.write_log(
            session, SERVER, "showed a consent text", now, detail=f"{language}, version {number}, {digest}"
        )


def versions(session: Session) -> list[ConsentVersion]:
    """All versions, by language, the oldest first."""
    counts = select(Assignment.consent_version, func.count()).group_by(Assignment.consent_version)
    agreed = {str(version): int(number) for version, number in session.execute(counts)}
    rows = session.scalars(select(ConsentText).order_by(ConsentText.language, ConsentText.number))
    return [ConsentVersion(r.hash, r.language, r.number, r.since, agreed.get(r.hash, 0), r.text) for r in rows]


def agreed_to(session: Session) -> list[tuple[str, str, datetime]]:
    """All consents, in order of time: the assignment's pseudonym, the version's hash, and when."""
    query = select(Assignment.pseudonym, Assignment.consent_version, Assignment.consented_at)
    return [
        (pseudonym, version, at) for pseudonym, version, at in session.execute(query.order_by(Assignment.consented_at))
    ]
