"""The places outside the database where data about people are stored or pass through."""

from __future__ import annotations

from dataclasses import dataclass, replace

from server.privacy.data_inventory import Identifiability
from study.config import StudyConfig

ADMINISTRATORS = "the server's administrators"
MEMORY = "The server's memory"


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
        "The researcher's browser",
        "Cookies of the desk, which no listener's page receives: of the sign-in, of the sign-in form, and one that "
        "recognises a browser in which its user has signed in before (the sign-in name and a random number, "
        "encrypted).",
        Identifiability.PERSONAL,
        "the sign-in and its form until the browser is closed; the known browser for 180 days",
        "anyone who uses that browser",
    ),
    StorageLocation(
        MEMORY,
        "Keyed hashes of senders' network addresses, to count requests and unconfirmed runs, and hashes of the "
        "addresses of listeners' pages; the keys end with the process, and nothing is written to disk.",
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


def _with_lookups(memory: StorageLocation, config: StudyConfig) -> StorageLocation:
    """The server's memory where it may ask the marketplace who has taken a place."""
    if not config.recruiter.has_arrivals or config.recruiter.kind == "link":
        return memory
    content = f"{memory.content} Where arrivals are looked up: {config.recruiter.shown_name}'s newest list of them."
    return replace(memory, content=content, identifiability=Identifiability.PERSONAL)


def storage_locations(config: StudyConfig) -> list[StorageLocation]:
    """The storage locations outside the database in this study."""
    found = [_with_lookups(one, config) if one.name == MEMORY else one for one in LOCATIONS]
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
                "The address that a listener opens",
                f"What {name} adds to it: the worker's id and its own ids, and a signature where it makes one. The "
                "server logs no address; the browser's history keeps it.",
                Identifiability.PERSONAL,
                "until the listener deletes it; the server keeps the ids in the vault, and no signature",
                "anyone who uses that browser",
            )
        )
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
