"""The data map: every table and column of the database, and every place outside it where data of people lie.

For each: what it is, about whom, whether it tells who somebody is, how long it is kept and who can see it. A test
compares it with server.db.models, so a column that nobody described fails the suite. Conventions for `tells`:

    personal      names or may name a person: an encrypted worker id, a researcher's name, words typed freely
    hash          a keyed or plain hash: recognises whom it was made of, and cannot be turned back
    pseudonymous  about one person, whom a random pseudonym stands for
    nothing       about no one
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from study.columns import RESPONSE_COLUMNS
from study.config import StudyConfig
from study.marketplaces import load_marketplace

Tells = Literal["personal", "hash", "pseudonymous", "nothing"]
About = Literal["listeners", "researchers", "the study"]
Kept = Literal["identity", "answers", "books", "desk", "study"]


@dataclass(frozen=True)
class Column:
    """One column: what it holds and what that tells of somebody."""

    what: str
    tells: Tells = "pseudonymous"


@dataclass(frozen=True)
class Table:
    """One table; `kept` is a key of `how_long`."""

    what: str
    about: About
    kept: Kept
    seen: str
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class StorageLocation:
    """Somewhere outside the database where data of people lie or pass through."""

    name: str
    what: str
    tells: Tells
    kept: str
    seen: str


DESK = "researchers at the desk; the server's administrators"
ADMIN = "the server's administrators"
NO_ONE = Column("a number of the row", "nothing")
RUN = Column("which run it belongs to")


def how_long(kept: Kept, config: StudyConfig) -> str:
    """How long data of a kind are kept by this study."""
    mine = "until the researchers delete the database"
    days = f"{config.privacy.identity_days:g} days after the last payment"
    return {
        "identity": f"who participants are at the marketplace, and every hash that it follows from: deleted {days}, "
        "by the server itself",
        "answers": f"answers, times and questions, by pseudonym: until their participant has them erased, else {mine}",
        "books": f"the record of what was ordered and paid: {mine}",
        "desk": "researchers' accounts: until the account is removed; a sign-in twelve hours at most",
        "study": f"how the study was run, and the log of what researchers did: {mine}",
    }[kept]


TABLES: dict[str, Table] = {
    "study": Table(
        "the one study that the database belongs to",
        "the study",
        "study",
        ADMIN,
        {
            "id": NO_ONE,
            "name": Column("the study's name", "nothing"),
            "schedule": Column("fingerprint of the schedule", "nothing"),
            "created_at": Column("when the database was begun", "nothing"),
        },
    ),
    "listeners": Table(
        "everybody who consented, by a random pseudonym",
        "listeners",
        "answers",
        DESK,
        {
            "id": NO_ONE,
            "pseudonym": Column("a random name"),
            "worker_hash": Column("keyed hash of the marketplace's id or of the link: took part before or not", "hash"),
        },
    ),
    "assignments": Table(
        "one run of the study by one listener",
        "listeners",
        "answers",
        DESK + "; the completion code not at the desk",
        {
            "id": NO_ONE,
            "pseudonym": Column("a random name of the run"),
            "listener_id": Column("which listener it belongs to"),
            "entry_hash": Column("hash of a random number that ties a double click together", "hash"),
            "token_hash": Column("hash of the secret in the address of the listener's page", "hash"),
            "state": Column("how far the run is, or how it ended"),
            "list_number": Column("which list of trials was given"),
            "completion_code": Column("the random code that the listener was shown at the end"),
            "consent_version": Column("hash of the consent text that was agreed to"),
            "language": Column("language of the pages"),
            "consented_at": Column("when the listener consented"),
            "screened_at": Column("when the listening check was passed"),
            "listening_at": Column("when the first trial was begun"),
            "ended_at": Column("when the run ended"),
            "erased_at": Column("when the listener had everything that they answered erased"),
        },
    ),
    "places": Table(
        "the places of the study, one for each list of trials",
        "listeners",
        "answers",
        DESK,
        {
            "id": NO_ONE,
            "list_number": Column("which list of trials", "nothing"),
            "turn": Column("in which order lists are given out", "nothing"),
            "assignment_id": Column("who holds the place"),
            "expires_at": Column("until when it is held"),
            "filled": Column("whether it was heard to the end"),
        },
    ),
    "prescreen_items": Table(
        "the sounds of the listening check and what was answered",
        "listeners",
        "answers",
        DESK,
        {
            "id": NO_ONE,
            "assignment_id": RUN,
            "attempt": Column("first or later attempt"),
            "item": Column("which sound of the attempt"),
            "kind": Column("which listening check"),
            "params": Column("what the sound was made from, and the right answer"),
            "sound": Column("random name of the sound's address"),
            "answer": Column("what the listener answered"),
            "answered_at": Column("when"),
        },
    ),
    "prescreen_results": Table(
        "what came of each attempt at a listening check",
        "listeners",
        "answers",
        DESK,
        {
            "id": NO_ONE,
            "assignment_id": RUN,
            "kind": Column("which listening check"),
            "attempt": Column("first or later attempt"),
            "correct": Column("how many answers were right"),
            "asked": Column("how many were asked"),
            "passed": Column("whether it was passed"),
            "ended_at": Column("when"),
        },
    ),
    "servings": Table(
        "which clips were sent, under random names",
        "listeners",
        "answers",
        ADMIN,
        {
            "id": NO_ONE,
            "assignment_id": RUN,
            "position": Column("which trial"),
            "slot": Column("X, A or B"),
            "sound": Column("random name of the clip's address"),
            "fetched_at": Column("when it had been sent to its end"),
        },
    ),
    "responses": Table(
        "the answers to the trials, with how they came about",
        "listeners",
        "answers",
        DESK + "; what was chosen not at the desk, until the study is closed",
        {
            "id": NO_ONE,
            "assignment_id": RUN,
            "position": Column("which trial"),
            "late": Column("whether the place had expired"),
            **{
                name: Column(column.meaning[0].lower() + column.meaning[1:])
                for name, column in RESPONSE_COLUMNS.items()
                if column.source == "response"
            },
            "answered_at": Column("when"),
        },
    ),
    "answers": Table(
        "the answers to the questions after the trials",
        "listeners",
        "answers",
        DESK,
        {
            "id": NO_ONE,
            "assignment_id": RUN,
            "question": Column("which question"),
            "value": Column("the answer; free text may hold whatever somebody chooses to write", "personal"),
            "answered_at": Column("when"),
        },
    ),
    "control": Table(
        "whether the study recruits, and the message shown above the consent",
        "the study",
        "study",
        DESK,
        {
            "id": NO_ONE,
            "recruiting": Column("whether people are let in", "nothing"),
            "message": Column("the message", "nothing"),
            "closed_at": Column("when the study was closed", "nothing"),
            "purged": Column("of how many people the identity was deleted", "nothing"),
            "purged_at": Column("when that was done last", "nothing"),
        },
    ),
    "consent_texts": Table(
        "every consent text that was shown",
        "the study",
        "study",
        "everybody, at /consent",
        {
            "hash": Column("its version, the SHA-256 of the text", "nothing"),
            "language": Column("its language", "nothing"),
            "number": Column("the how manieth in that language", "nothing"),
            "text": Column("the text", "nothing"),
            "since": Column("since when it was shown", "nothing"),
        },
    ),
    "arrivals": Table(
        "how often the first page was shown on a day, not to whom",
        "the study",
        "study",
        DESK,
        {
            "day": Column("the day", "nothing"),
            "shown": Column("what was shown: the information, or that no place is free", "nothing"),
            "shard": Column("a part of the count", "nothing"),
            "number": Column("how often", "nothing"),
        },
    ),
    "researchers": Table(
        "who may sign in at the desk",
        "researchers",
        "desk",
        ADMIN,
        {
            "id": NO_ONE,
            "name": Column("the name to sign in with", "personal"),
            "password_hash": Column("the password, as argon2id", "hash"),
            "created_at": Column("when the account was made"),
            "unblinded_at": Column("when somebody asked to see the result early"),
            "role": Column("owner, researcher or monitor"),
            "factor": Column("the secret of the second factor, encrypted"),
            "factor_step": Column("which of its codes was used last"),
            "recovery": Column("keyed hashes of the recovery codes that are left", "hash"),
        },
    ),
    "sign_ins": Table(
        "browsers in which a researcher is signed in; a row ends with the sign-in",
        "researchers",
        "desk",
        ADMIN,
        {
            "id": NO_ONE,
            "researcher_id": Column("whose"),
            "token_hash": Column("hash of the cookie", "hash"),
            "created_at": Column("since when"),
            "seen_at": Column("last used"),
        },
    ),
    "attempts": Table(
        "failed attempts to sign in at the desk, counted for a quarter of an hour",
        "researchers",
        "desk",
        ADMIN,
        {
            "key": Column("keyed hash of the name or the address that it came from", "hash"),
            "since": Column("since when"),
            "number": Column("how many"),
        },
    ),
    "log": Table(
        "what researchers, commands and the server did, when and why; rows can only be added",
        "researchers",
        "study",
        DESK,
        {
            "id": NO_ONE,
            "at": Column("when"),
            "who": Column("who, by the name to sign in with", "personal"),
            "what": Column("what was done"),
            "detail": Column("to what", "personal"),
            "reason": Column("why, in their words", "personal"),
            "number": Column("which entry of the chain", "nothing"),
            "hash": Column("hash of the entry and the one before", "nothing"),
            "seal": Column("keyed hash by which an edit is found", "nothing"),
            "key": Column("by which secret it was sealed: a hash of that", "nothing"),
        },
    ),
    "log_head": Table(
        "where the log ends, sealed",
        "the study",
        "study",
        ADMIN,
        {
            "id": NO_ONE,
            "number": Column("the number of the last entry", "nothing"),
            "hash": Column("its hash", "nothing"),
            "seal": Column("keyed hash by which a log that was cut off is found", "nothing"),
            "key": Column("by which secret it was sealed: a hash of that", "nothing"),
        },
    ),
    "launch": Table(
        "the study's launch at a marketplace",
        "the study",
        "books",
        ADMIN,
        {
            "id": NO_ONE,
            "name": Column("name of the launch", "nothing"),
            "live": Column("whether real money is paid", "nothing"),
            "terms": Column("what study.toml said of pay and recruiting", "nothing"),
            "budget_cents": Column("the most that it may cost", "nothing"),
            "began_at": Column("when it began", "nothing"),
            "closed_at": Column("when it was closed", "nothing"),
        },
    ),
    "openings": Table(
        "places ordered at the marketplace",
        "listeners",
        "books",
        ADMIN,
        {
            "id": NO_ONE,
            "token": Column("random name of the order", "nothing"),
            "places": Column("how many", "nothing"),
            "reward_cents": Column("reward of each", "nothing"),
            "fee_cents": Column("the marketplace's fee on each", "nothing"),
            "owed_to": Column("whose payment the place is for, where it was made for one"),
            "market_id": Column("the marketplace's number of the task", "nothing"),
            "ordered_at": Column("when", "nothing"),
            "closed_at": Column("when no place was left to take", "nothing"),
            "settled_at": Column("when nothing more could happen there", "nothing"),
        },
    ),
    "submissions": Table(
        "who took which place at the marketplace, by keyed hashes",
        "listeners",
        "books",
        ADMIN,
        {
            "id": NO_ONE,
            "key": Column("keyed hash of worker and submission", "hash"),
            "assignment_id": RUN,
            "opening": Column("the marketplace's number of the task", "nothing"),
            "status": Column("held, submitted, approved, returned …"),
            "seen_at": Column("when that was last seen"),
            "excluded": Column("whether the marketplace was told not to offer the study again"),
        },
    ),
    "payments": Table(
        "every payment, written before it is made",
        "listeners",
        "books",
        ADMIN,
        {
            "id": NO_ONE,
            "token": Column("random name of the payment", "nothing"),
            "assignment_id": RUN,
            "submission_id": Column("for which submission"),
            "opening_id": Column("whose reward it is", "nothing"),
            "kind": Column("reward, pay for who failed the check, part pay, bonus"),
            "cents": Column("how much"),
            "fee_cents": Column("the marketplace's fee", "nothing"),
            "state": Column("pending, paid or void"),
            "reason": Column("what the listener reads beside a bonus"),
            "intended_at": Column("when it was written down"),
            "paid_at": Column("when it was made"),
        },
    ),
    "vault": Table(
        "who a listener is at the marketplace: the only place with worker ids",
        "listeners",
        "identity",
        "nobody without the vault's key, which is not in the database; opened by commands that pay, and to lead a "
        "listener back to the marketplace",
        {
            "pseudonym": Column("the listener's random name"),
            "sealed": Column("the worker's id and place, encrypted", "personal"),
            "changed_at": Column("when it was last written"),
        },
    ),
}


PLACES: tuple[StorageLocation, ...] = (
    StorageLocation(
        "The listener's browser",
        "An answer until the server has acknowledged it (local storage); the address of the listener's own page and "
        "whether keys are on (session storage). No cookie.",
        "pseudonymous",
        "the answer until it is acknowledged; the rest until the window is closed",
        "who uses that browser",
    ),
    StorageLocation(
        "The server's log",
        "Time, kind of page, result and milliseconds of each request, and the kind and place of errors; no address "
        "of the network, page address, worker id, pseudonym, browser or answer.",
        "nothing",
        "as the host's log is kept",
        ADMIN,
    ),
    StorageLocation(
        "The server's memory",
        "A keyed hash of each sender's network address, to count requests (limits against floods); the key ends "
        "with the process, and nothing of it is written down.",
        "hash",
        "until the server is started again, at most",
        "nobody",
    ),
    StorageLocation(
        "Backups",
        "Copies of the whole database, in files readable by their owner alone; worker ids are encrypted there too.",
        "personal",
        "the newest 30, unless told otherwise",
        ADMIN,
    ),
    StorageLocation(
        "Exports",
        "responses.csv and .parquet, listeners.csv: answers, times and questions by pseudonym; no worker id, keyed "
        "hash or completion code. Words typed freely are in them.",
        "personal",
        "as the researcher keeps them",
        "whom the researcher gives them to",
    ),
)


def storage_locations(config: StudyConfig) -> list[StorageLocation]:
    """Where data of people lie outside the database in this study."""
    found = list(PLACES)
    if config.storage.stimuli and config.storage.delivery == "redirect":
        found.append(
            StorageLocation(
                "The bucket of clips",
                "The network address of each listener's browser, which fetches the clips there, in the storage "
                "provider's own logs where these are switched on. The clips themselves are about no one.",
                "personal",
                "as the provider keeps its logs",
                "the bucket's administrators",
            )
        )
    if config.recruiter.has_arrivals:
        name = load_marketplace(config.recruiter.kind).capabilities.name
        found.append(
            StorageLocation(
                name,
                "Its own record of who took the task, when it was handed in, the completion code, and what was paid.",
                "personal",
                "by its own terms",
                f"{name}; the holder of the researcher's account there",
            )
        )
    return found
