"""The data inventory: what is stored about people, where, for how long, and who can read it.

The tables are in server.privacy.table_inventory; what is stored outside the database is in
server.privacy.storage_locations.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from study.config import StudyConfig

Subject = Literal["listeners", "researchers", "the study"]
Retention = Literal["identity", "answers", "payments", "desk", "study"]


class Identifiability(enum.StrEnum):
    """How strongly a value identifies a person."""

    PERSONAL = "personal"
    HASHED = "hashed"
    PSEUDONYMOUS = "pseudonymous"
    NOT_PERSONAL = "not_personal"

    @property
    def description(self) -> str:
        """The same in the words of a data protection form."""
        return {
            "personal": "identifies a person, or may",
            "hashed": "hash: recognises a value, cannot be reversed",
            "pseudonymous": "pseudonymous",
            "not_personal": "not about a person",
        }[self.value]


@dataclass(frozen=True)
class Column:
    """One column: its content, and how strongly that identifies a person."""

    content: str
    identifiability: Identifiability = Identifiability.PSEUDONYMOUS


@dataclass(frozen=True)
class Table:
    """One table: its content, its subject, how long it is kept and who can read it."""

    content: str
    subject: Subject
    retention: Retention
    readers: str
    columns: Mapping[str, Column]


def retention_period(retention: Retention, config: StudyConfig) -> str:
    """The data of a retention class in this study, and how long they are kept."""
    indefinitely = "until the researchers delete the database"
    return {
        "identity": "who participants are at the marketplace, and every hash derived from that: deleted by the server "
        f"{config.privacy.identity_days:g} days after the last payment",
        "answers": "answers, times and questionnaires under a pseudonym: until the participant has them erased, "
        f"otherwise {indefinitely}",
        "payments": f"the record of postings and payments: {indefinitely}",
        "desk": "researchers' accounts: until the account is removed; a sign-in lasts at most twelve hours",
        "study": f"how the study was run, and the audit log: {indefinitely}",
    }[retention]
