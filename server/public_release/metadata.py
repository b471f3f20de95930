"""The metadata of a release: title, authors, licence, and what the bundle contains."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from embeddings.errors import RootnoteError
from server.public_release.k_anonymity import GeneralisedColumn

ORCID = re.compile(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]")


@dataclass(frozen=True)
class Author:
    """A person (family and given names) or, without given names, a group."""

    family: str
    given: str = ""
    orcid: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.given} {self.family}".strip()


def read_author(text: str) -> Author:
    """An author as written on the command line: "Family, Given", "Family, Given, ORCID", or a group's name.

    Raises:
        RootnoteError: if the text has another form, or the ORCID iD is not valid.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts) or len(parts) > 3 or not all(letter.isprintable() for letter in text):
        raise RootnoteError(
            f'--author \'{text}\' is not a valid author; write "Family, Given" or "Family, Given, ORCID".'
        )
    if len(parts) == 3 and not ORCID.fullmatch(parts[2]):
        raise RootnoteError(f"--author: '{parts[2]}' is not an ORCID iD; write it as 0000-0002-1825-0097.")
    return Author(*parts)


@dataclass(frozen=True)
class ReleaseMetadata:
    """The description of a bundle.

    Attributes:
        k: each combination of published personal values is shared by at least this many listeners.
        listeners: listeners with at least one published response.
        states: number of runs by outcome.
        months: first and last month of the responses (YYYY-MM), None if there are none.
        dropped: columns of listeners.csv that are not published, with the reason.
        withheld_settings: dotted keys of study.toml that are not published.
        withdrawn_responses: number of responses that are left out because their listener withdrew.
        plan: hash of the published frozen plan, "" if there is none.
        turns_public: whether the order in which trial lists were assigned follows from the seed.
        closed: whether the study was closed.
        rehearsal: whether the listeners were simulated.
        checked: whether Table 1 of the bundle was compared with that of the study's own data.
        files: what each file of the bundle is.
    """

    title: str
    authors: tuple[Author, ...]
    licence: str
    made: date
    k: int
    responses: int
    listeners: int
    states: Mapping[str, int]
    months: tuple[str, str] | None
    published: tuple[GeneralisedColumn, ...]
    dropped: Mapping[str, str]
    withheld_settings: tuple[str, ...]
    withdrawn_responses: int
    plan: str
    turns_public: bool
    closed: bool
    rehearsal: bool
    checked: bool
    files: Mapping[str, str] = field(default_factory=dict)
