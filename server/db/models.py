"""Models: the tables of one study's database.

Uniqueness is enforced here by constraints: one row per listener, place, answered position and one-time entry. Times are
UTC. Nothing identifies a person: a worker's id is kept only as an HMAC under the server's secret, and the token in a
listener's address only as its SHA-256, so that a leaked database holds no working link.
"""

from __future__ import annotations

import enum
from datetime import date, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from server.db.base import Base
from server.db.base import stored as _stored
from server.db.enums import PaymentKind, PaymentState, RunVerification, SubmissionStatus
from study.languages import SOURCE

__all__ = ["Base"]  # and every table


class AssignmentState(enum.StrEnum):
    """The state of an assignment."""

    CONSENTED = "consented"
    SCREENED = "screened"
    LISTENING = "listening"
    FINISHED = "finished"
    SUBMITTED = "submitted"
    APPROVED = "approved"
    PAID = "paid"
    SCREENED_OUT = "screened_out"
    WITHDRAWN = "withdrawn"
    RETURNED = "returned"
    EXPIRED = "expired"
    TECHNICAL = "technical"  # sounds could not be played


ACTIVE = frozenset({AssignmentState.CONSENTED, AssignmentState.SCREENED, AssignmentState.LISTENING})
COMPLETED = frozenset(
    {AssignmentState.FINISHED, AssignmentState.SUBMITTED, AssignmentState.APPROVED, AssignmentState.PAID}
)
TURNED_AWAY = frozenset({AssignmentState.SCREENED_OUT, AssignmentState.TECHNICAL})


class StudyRecord(Base):
    """The one study this database belongs to; `id` is always 1.

    `rehearsal`: whether the database is that of a rehearsal, where simulated listeners may state the time; null in
    databases from before this was recorded.
    """

    __tablename__ = "study"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(80))
    schedule: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    rehearsal: Mapped[bool | None]


class Listener(Base):
    """A person, by pseudonym. `worker_hash` is null after an anonymous link, and while a run is unconfirmed."""

    __tablename__ = "listeners"

    id: Mapped[int] = mapped_column(primary_key=True)
    pseudonym: Mapped[str] = mapped_column(String(16), unique=True)
    worker_hash: Mapped[str | None] = mapped_column(String(64), unique=True)


class Assignment(Base):
    """One listener's run."""

    __tablename__ = "assignments"

    id: Mapped[int] = mapped_column(primary_key=True)
    pseudonym: Mapped[str] = mapped_column(String(16), unique=True)
    listener_id: Mapped[int] = mapped_column(ForeignKey("listeners.id"), unique=True)
    entry_hash: Mapped[str] = mapped_column(String(64), unique=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    state: Mapped[AssignmentState] = mapped_column(_stored(AssignmentState, 16))
    list_number: Mapped[int]
    completion_code: Mapped[str] = mapped_column(String(16), unique=True)
    consent_version: Mapped[str] = mapped_column(String(64))
    language: Mapped[str] = mapped_column(String(16), default=SOURCE, server_default=SOURCE)
    verification: Mapped[RunVerification] = mapped_column(_stored(RunVerification, 16), server_default="unverified")
    consented_at: Mapped[datetime]
    screened_at: Mapped[datetime | None]
    listening_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    erased_at: Mapped[datetime | None]  # their answers were deleted then, at their request

    listener: Mapped[Listener] = relationship()


class Place(Base):
    """One TrialList for one listener: free, held until `expires_at`, or filled for good."""

    __tablename__ = "places"

    id: Mapped[int] = mapped_column(primary_key=True)
    list_number: Mapped[int] = mapped_column(unique=True)
    turn: Mapped[int] = mapped_column(unique=True)  # lists are handed out in an order that no seed reveals
    assignment_id: Mapped[int | None] = mapped_column(ForeignKey("assignments.id"), unique=True)
    expires_at: Mapped[datetime | None]
    filled: Mapped[bool] = mapped_column(default=False)


class PrescreenItem(Base):
    """One item of a listener's prescreen: what was played and answered; `kind` is the step."""

    __tablename__ = "prescreen_items"
    __table_args__ = (UniqueConstraint("assignment_id", "kind", "attempt", "item"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"))
    attempt: Mapped[int]
    item: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    sound: Mapped[str] = mapped_column(String(43), unique=True)
    answer: Mapped[int | None]
    answered_at: Mapped[datetime | None]


class PrescreenResult(Base):
    """The result of an attempt at a prescreen step, by the thresholds at that time; added once the attempt is over."""

    __tablename__ = "prescreen_results"
    __table_args__ = (UniqueConstraint("assignment_id", "kind", "attempt"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"))
    kind: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int]
    correct: Mapped[int]
    asked: Mapped[int]
    passed: Mapped[bool]
    ended_at: Mapped[datetime]


class ClipDelivery(Base):
    """One clip as served to one listener in one trial, under a random name; `fetched_at`: when all was sent.

    `sent`: the parts that were sent so far, as "first-stop" in bytes, separated by commas; null if there are none.
    """

    __tablename__ = "servings"
    __table_args__ = (UniqueConstraint("assignment_id", "position", "slot"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"))
    position: Mapped[int]
    slot: Mapped[str] = mapped_column(String(1))
    sound: Mapped[str] = mapped_column(String(43), unique=True)
    fetched_at: Mapped[datetime | None]
    sent: Mapped[str | None] = mapped_column(Text)


class Response(Base):
    """The answer to one trial; `late`: given after the place had gone to another listener.

    What follows `answered_at` is telemetry (server.assignments.telemetry), null if the browser sent nothing; how sure
    the listener was (1 to 5), null if that was not asked; and by the server's clock the seconds since the trial was due
    and which claims it makes doubtful (server.assignments.timing), null in answers from before this was recorded.
    `seal` covers all values (server.audit.answer_seals): a column that is added later must be nullable.
    """

    __tablename__ = "responses"
    __table_args__ = (UniqueConstraint("assignment_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"))
    position: Mapped[int]
    choice: Mapped[str] = mapped_column(String(1))
    response_ms: Mapped[int]
    plays_x: Mapped[int]
    plays_a: Mapped[int]
    plays_b: Mapped[int]
    late: Mapped[bool] = mapped_column(default=False)
    answered_at: Mapped[datetime]
    seconds_x: Mapped[float | None]
    seconds_a: Mapped[float | None]
    seconds_b: Mapped[float | None]
    play_order: Mapped[str | None] = mapped_column(String(256))
    focus_losses: Mapped[int | None]
    sample_rate: Mapped[int | None]
    output_latency_ms: Mapped[float | None]
    agent_class: Mapped[str | None] = mapped_column(String(32))
    confidence: Mapped[int | None]
    elapsed_s: Mapped[float | None]
    doubts: Mapped[str | None] = mapped_column(String(64))
    seal: Mapped[str | None] = mapped_column(String(96))


class Answer(Base):
    """The answer to one question after the trials; `seal` as in Response."""

    __tablename__ = "answers"
    __table_args__ = (UniqueConstraint("assignment_id", "question"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"))
    question: Mapped[str] = mapped_column(String(32))
    value: Mapped[str] = mapped_column(Text)
    answered_at: Mapped[datetime]
    seal: Mapped[str | None] = mapped_column(String(96))


# Every arrival looks for a place among those that are not filled.
Index("ix_places_open", Place.filled, Place.turn)


# ------------------------------------------------------------------ the researcher's desk


class StudyControl(Base):
    """How the study is run at present; `id` is always 1. Once closed, a study stays closed.

    `purged_at`: when identities were last deleted for good (server.privacy.retention), `purged`: of how many people
    in all.
    """

    __tablename__ = "control"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    recruiting: Mapped[bool] = mapped_column(default=True)
    message: Mapped[str] = mapped_column(Text, default="")
    closed_at: Mapped[datetime | None]
    purged: Mapped[int] = mapped_column(default=0, server_default="0")
    purged_at: Mapped[datetime | None]


class ConsentText(Base):
    """A consent text as listeners were shown it; `hash` is its SHA-256, which their assignments name."""

    __tablename__ = "consent_texts"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    language: Mapped[str] = mapped_column(String(16))
    number: Mapped[int]  # 1, 2, … in each language
    text: Mapped[str] = mapped_column(Text)
    since: Mapped[datetime]


class ArrivalCount(Base):
    """How many people arrived at /take on a day (UTC), by what they were shown; who they were is not stored.

    A day's number is spread over shards, so that simultaneous arrivals do not wait for one row.
    """

    __tablename__ = "arrivals"

    day: Mapped[date] = mapped_column(primary_key=True)
    shown: Mapped[str] = mapped_column(String(16), primary_key=True)
    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(default=0)


class Researcher(Base):
    """Someone who may sign in to the desk; `unblinded_at`: when they asked to see agreement early.

    `factor`: the second factor's key, encrypted (server.accounts.two_factor); `factor_step`: the last of its steps
    that was used;
    `recovery`: the keyed hashes of the recovery codes that are left, as a JSON list.
    """

    __tablename__ = "researchers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime]
    unblinded_at: Mapped[datetime | None]
    role: Mapped[str] = mapped_column(String(16), server_default="owner")
    factor: Mapped[str | None] = mapped_column(Text)
    factor_step: Mapped[int | None]
    recovery: Mapped[str | None] = mapped_column(Text)


class SignIn(Base):
    """A browser in which a researcher is signed in; only the SHA-256 of its cookie is stored."""

    __tablename__ = "sign_ins"

    id: Mapped[int] = mapped_column(primary_key=True)
    researcher_id: Mapped[int] = mapped_column(ForeignKey("researchers.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]

    researcher: Mapped[Researcher] = relationship()


class SignInAttempts(Base):
    """Failed attempts to sign in since `since`, by the keyed hash of a name or of an address."""

    __tablename__ = "attempts"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    since: Mapped[datetime]
    number: Mapped[int]


class LogEntry(Base):
    """What a researcher, a command or the server did, and why. Rows are only added: a trigger refuses everything else.

    `number`, `hash`, `seal` and `key` chain the rows (server.audit.hash_chain); null in rows from before there was a
    chain.
    """

    __tablename__ = "log"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    who: Mapped[str] = mapped_column(String(64))
    what: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str] = mapped_column(Text, default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    number: Mapped[int | None]
    hash: Mapped[str | None] = mapped_column(String(64))
    seal: Mapped[str | None] = mapped_column(String(64))
    key: Mapped[str | None] = mapped_column(String(16))


Index("uq_log_number", LogEntry.number, unique=True)


class LogHead(Base):
    """The end of the log: the last entry's number and hash, sealed; `id` is always 1, and 0 is before the first."""

    __tablename__ = "log_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(default=0)
    hash: Mapped[str] = mapped_column(String(64), default="")
    seal: Mapped[str] = mapped_column(String(64), default="")
    key: Mapped[str] = mapped_column(String(16), default="")


# ------------------------------------------------------------------ recruiting and paying


class Launch(Base):
    """The study's launch at a marketplace; `id` is always 1.

    `terms`: pay and recruiter from study.toml. `code_key`: what completion codes that everybody shares follow from;
    None: a launch of an earlier version, whose codes follow from study.toml.
    """

    __tablename__ = "launch"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(40))
    live: Mapped[bool]
    terms: Mapped[dict[str, Any]] = mapped_column(JSON)
    budget_cents: Mapped[int]
    began_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    code_key: Mapped[str | None] = mapped_column(String(64))


class Posting(Base):
    """Places ordered at the marketplace.

    The row is written before the order, and `market_id` (a HIT, a study) after it. `owed_to`: the listener for whose
    payment a single place was made. `settled_at`: when nothing more could change there.
    """

    __tablename__ = "openings"

    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(String(64), unique=True)
    places: Mapped[int]
    reward_cents: Mapped[int]
    fee_cents: Mapped[int]  # on one reward
    fee_millionths: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # of a cent, on top
    screen_outs: Mapped[int] = mapped_column(default=0, server_default="0")  # the marketplace may pay by itself
    screen_out_cost: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # millionths of a cent
    secure: Mapped[bool] = mapped_column(default=False, server_default=false())  # workers arrive with a signed address
    owed_to: Mapped[int | None] = mapped_column(ForeignKey("assignments.id"))
    market_id: Mapped[str | None] = mapped_column(String(64), index=True)
    ordered_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]


class MarketplaceSubmission(Base):
    """One worker's submission at the marketplace; `assignment_id` is null if it belongs to no known listener.

    `key` is the keyed hash of worker and submission: the same submission's id may come again with another worker.
    `listed`: the marketplace itself has shown this worker with this submission.
    """

    __tablename__ = "submissions"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    assignment_id: Mapped[int | None] = mapped_column(ForeignKey("assignments.id"), index=True)
    opening: Mapped[str] = mapped_column(String(64), index=True)
    status: Mapped[SubmissionStatus] = mapped_column(_stored(SubmissionStatus, 16))
    seen_at: Mapped[datetime]
    excluded: Mapped[bool] = mapped_column(default=False)
    listed: Mapped[bool] = mapped_column(default=False, server_default="0")


class Payment(Base):
    """Money for a listener: written `pending` before the marketplace is asked, and `paid` after.

    `void`: a person decided against it at the marketplace. One row per assignment and kind; null `assignment_id`: the
    marketplace paid for a submission that belongs to no assignment.
    """

    __tablename__ = "payments"
    __table_args__ = (UniqueConstraint("assignment_id", "kind"), UniqueConstraint("submission_id", "kind"))

    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(String(64), unique=True)
    assignment_id: Mapped[int | None] = mapped_column(ForeignKey("assignments.id"))
    submission_id: Mapped[int | None] = mapped_column(ForeignKey("submissions.id"))
    opening_id: Mapped[int | None] = mapped_column(ForeignKey("openings.id"))  # whose reward this is
    kind: Mapped[PaymentKind] = mapped_column(_stored(PaymentKind, 16))
    cents: Mapped[int]
    fee_cents: Mapped[int]
    fee_millionths: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # of a cent, on top
    state: Mapped[PaymentState] = mapped_column(_stored(PaymentState, 8))
    reason: Mapped[str] = mapped_column(Text, default="")
    intended_at: Mapped[datetime]
    paid_at: Mapped[datetime | None]


class VaultEntry(Base):
    """A listener's identity at the marketplace, encrypted by the vault: the only record of a worker's id."""

    __tablename__ = "vault"

    pseudonym: Mapped[str] = mapped_column(String(16), primary_key=True)  # the listener's
    sealed: Mapped[str] = mapped_column(Text)
    changed_at: Mapped[datetime]
