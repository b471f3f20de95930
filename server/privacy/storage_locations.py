"""The places outside the database where data about people are stored or pass through."""

from __future__ import annotations

from dataclasses import dataclass

from server.privacy.data_inventory import Identifiability
from study.config import StudyConfig

ADMINISTRATORS = "the server's administrators"


@dataclass(frozen=True)
class StorageLocation:
    """One place outside the database: its content, how strongly that identifies a person, how long, and its readers."""

    name: str
    content: str
    identifiability: Identifiability
    retention: str
    readers: str


LOCATIONS: tuple[StorageLocation, ...] = (
    StorageLocation(
        "The listener's browser",
        "An answer until the server has acknowledged it (local storage); the address of the listener's own page and "
        "whether keyboard shortcuts are on (session storage). No cookie.",
        Identifiability.PSEUDONYMOUS,
        "the answer until it is acknowledged; the rest until the window is closed",
        "anyone who uses that browser",
    ),
    StorageLocation(
        "The server's log",
        "Time, route, status and duration of each request, and the type and location of errors; no network address, "
        "page address, worker id, pseudonym, browser or answer.",
        Identifiability.NOT_PERSONAL,
        "as long as the host keeps its logs",
        ADMINISTRATORS,
    ),
    StorageLocation(
        "The server's memory",
        "A keyed hash of each sender's network address, to count requests (rate limits); the key ends with the "
        "process, and nothing is written to disk.",
        Identifiability.HASHED,
        "at most until the server restarts",
        "nobody",
    ),
    StorageLocation(
        "Backups",
        "Copies of the whole database, in files that only their owner can read; worker ids are encrypted there too.",
        Identifiability.PERSONAL,
        "the newest 30, unless configured otherwise",
        ADMINISTRATORS,
    ),
    StorageLocation(
        "The witness",
        "A file next to the journal of erasures: which runs, by random pseudonym, saved an answer to which trial or "
        "question, and the ends of the audit log; no answer.",
        Identifiability.PSEUDONYMOUS,
        "until the researchers delete it with the database",
        ADMINISTRATORS,
    ),
    StorageLocation(
        "Exports",
        "responses.csv and .parquet, listeners.csv: answers, times and questionnaires under a pseudonym; no worker "
        "id, keyed hash or completion code. They contain free-text answers.",
        Identifiability.PERSONAL,
        "as long as the researcher keeps them",
        "those to whom the researcher gives them",
    ),
)


def storage_locations(config: StudyConfig) -> list[StorageLocation]:
    """The storage locations outside the database in this study."""
    found = list(LOCATIONS)
    if config.storage.stimuli and config.storage.delivery == "redirect":
        found.append(
            StorageLocation(
                "The bucket of clips",
                "The network address of each listener's browser, which fetches the clips there, in the storage "
                "provider's own logs if these are switched on. The clips themselves are not about a person.",
                Identifiability.PERSONAL,
                "as long as the provider keeps its logs",
                "the bucket's administrators",
            )
        )
    if config.recruiter.has_arrivals:
        name = config.recruiter.shown_name
        found.append(
            StorageLocation(
                name,
                "Its own record of who took the task, when they submitted it, the completion code, and what was paid.",
                Identifiability.PERSONAL,
                "according to its own terms",
                f"{name}; the holder of the researcher's account there",
            )
        )
    return found
