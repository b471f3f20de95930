"""Consents: every consent text that listeners were shown, by version, and how many agreed to which.

A version is a text's SHA-256; each assignment names the one its listener agreed to. The server keeps a text when it
starts with it, so that one that is changed after the launch opens a new version and the former stays to be read.
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
    """A consent text, since when it was shown, and how many agreed to it."""

    hash: str
    language: str
    number: int
    since: datetime
    agreed: int
    text: str


def keep(session: Session, texts: Mapping[str, tuple[str, str]], now: datetime) -> None:
    """Keep the texts now shown: language -> (hash, text). A change is written into the log."""
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
    """All of them, oldest first."""
    counted = select(Assignment.consent_version, func.count()).group_by(Assignment.consent_version)
    agreed = {str(which): int(number) for which, number in session.execute(counted)}
    rows = session.scalars(select(ConsentText).order_by(ConsentText.language, ConsentText.number))
    return [ConsentVersion(r.hash, r.language, r.number, r.since, agreed.get(r.hash, 0), r.text) for r in rows]


def agreed_to(session: Session) -> list[tuple[str, str, datetime]]:
    """Who agreed to which: the assignment's pseudonym, the version's hash, and when."""
    query = select(Assignment.pseudonym, Assignment.consent_version, Assignment.consented_at)
    return [(who, which, when) for who, which, when in session.execute(query.order_by(Assignment.consented_at))]
