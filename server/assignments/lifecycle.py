"""The flow: what happens to an assignment, from arriving to the completion code.

Every use-case takes a Session first, knows nothing of the web and never commits: the request does, once.
Changes lock the assignment's row (PostgreSQL) or the database (SQLite), so two clicks at once follow each other.
A step that was already done is a no-op (a double click, the back button); one that is not yet due is refused.

A place is held while the listener goes on; each step renews the lease. Once it has run out the place may be given
to another, and only then is the assignment over: its answer under way is kept and marked `late`.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

import numpy as np
from sqlalchemy import CursorResult, and_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from embeddings.errors import RootnoteError
from server.assignments import prescreen, queries
from server.assignments.prescreen import ItemAnswer, PrescreenStatus
from server.assignments.telemetry import Telemetry, is_plausible
from server.db.models import (
    ACTIVE,
    COMPLETED,
    Answer,
    Assignment,
    AssignmentState,
    Listener,
    Payment,
    Place,
    StudyRecord,
)
from server.db.upsert import insert
from server.identity.tokens import ConsentTicket, random_code, random_pseudonym, random_token, sha256
from study.config import StudyConfig, cents
from study.languages import SOURCE
from study.stimuli.storage import LocalStorage, Storage
from study.trial_plan import Plan, PlannedTrial

Clock = Callable[[], datetime]
Step = Literal[
    "prescreen", "instructions", "trial", "questions", "done", "screened_out", "technical", "withdrawn", "expired"
]
SLOTS = ("X", "A", "B")
AHEAD = 1  # trials whose clips may be fetched before they are due
REACH = {
    AssignmentState.SCREENED: AHEAD,
    AssignmentState.LISTENING: 1 + AHEAD,
}  # trials from the current one on whose clips are sent
ENDED: dict[AssignmentState, Step] = {
    **dict.fromkeys(COMPLETED, "done"),
    AssignmentState.SCREENED_OUT: "screened_out",
    AssignmentState.TECHNICAL: "technical",
    AssignmentState.WITHDRAWN: "withdrawn",
    AssignmentState.RETURNED: "withdrawn",
    AssignmentState.EXPIRED: "expired",
}
ORDER: tuple[Step, ...] = ("prescreen", "instructions", "trial", "questions")
SERVE = queries.serve(SLOTS)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Experiment:
    """What the use-cases need to know besides the database."""

    config: StudyConfig
    plan: Plan
    clock: Clock = utc_now
    storage: Storage = field(default_factory=LocalStorage)
    rehearsal: bool = False

    @property
    def lease(self) -> timedelta:
        return timedelta(minutes=self.config.recruiter.reservation_minutes)

    def trials(self, assignment: Assignment) -> list[PlannedTrial]:
        return self.plan.lists[assignment.list_number]

    def trial(self, assignment: Assignment, position: int) -> PlannedTrial:
        return self.trials(assignment)[position - 1]


class StepRefusedError(Exception):
    """What was sent cannot be taken; the message is one plain sentence for the listener."""


class AlreadyTakenPartError(StepRefusedError):
    """This person already has an assignment."""


class NoPlaceError(StepRefusedError):
    """No place is free."""


class Availability(enum.Enum):
    """Whether someone who arrives now can be seated."""

    OPEN = "open"
    HELD = "held"
    COMPLETE = "complete"


# ------------------------------------------------------------------ the study's places


def sync_places(session: Session, experiment: Experiment) -> None:
    """Give every TrialList of the plan its place.

    Raises:
        RootnoteError: where the database already holds the places of another schedule.
    """
    plan = experiment.plan
    if not _begin_study(session, experiment):
        record = session.get_one(StudyRecord, 1)
        if record.schedule != plan.schedule_fingerprint:
            raise RootnoteError(
                f"the database belongs to another schedule (of the study '{record.name}'); restore the study folder "
                "it was begun with, or set ROOTNOTE_DATABASE_URL to a new database and run `rootnote server migrate`."
            )
        return
    numbers = sorted(plan.lists)
    turns = seeded_turns(experiment.config, len(numbers)) if experiment.rehearsal else _secret_turns(len(numbers))
    session.add_all(Place(list_number=n, turn=t) for n, t in zip(numbers, turns, strict=True))
    session.flush()


def seeded_turns(config: StudyConfig, number: int) -> list[int]:
    """The turns of a rehearsal, by list: the same every time. Real studies had these too, once."""
    return [int(turn) for turn in np.random.default_rng(config.study.seed).permutation(number)]


def _secret_turns(number: int) -> list[int]:
    """Turns that nothing public tells, by list: published answers show their list, and so would show who came when.

    Shuffled also because with several embedders none is to be heard only by the first to come.
    """
    turns = list(range(number))
    secrets.SystemRandom().shuffle(turns)
    return turns


def _begin_study(session: Session, experiment: Experiment) -> bool:
    """Write the study's row; False where it was there. Of servers that start at once, one does and the rest wait."""
    row = insert(session, StudyRecord).values(
        id=1,
        name=experiment.config.study.name,
        schedule=experiment.plan.schedule_fingerprint,
        created_at=experiment.clock(),
    )
    return session.scalar(row.on_conflict_do_nothing().returning(StudyRecord.id)) is not None


def availability(session: Session, experiment: Experiment) -> Availability:
    """Whether a place is free now."""
    if session.scalar(select(Place.id).where(claimable(experiment)).limit(1)) is not None:
        return Availability.OPEN
    unfilled = session.scalar(select(Place.id).where(~Place.filled).limit(1))
    return Availability.COMPLETE if unfilled is None else Availability.HELD


def claimable(experiment: Experiment, place: type[Place] = Place) -> Any:
    return and_(~place.filled, or_(place.assignment_id.is_(None), place.expires_at <= experiment.clock()))


def claim_place(session: Session, experiment: Experiment, assignment: Assignment) -> int | None:
    """Hold a free place, never-held ones first, in one statement; its list number, or None where none is free."""
    free = aliased(Place)
    chosen = (
        select(free.id)
        .where(claimable(experiment, free))
        .order_by(free.assignment_id.is_not(None), free.turn)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    held = (
        update(Place)
        .where(Place.id == chosen)
        .values(lease_values(experiment, assignment))
        .returning(Place.list_number)
    )
    return session.scalar(held.execution_options(synchronize_session=False))


def renew_lease(session: Session, experiment: Experiment, assignment: Assignment) -> bool:
    """Renew the lease; False where the place has gone to another."""
    until = experiment.clock() + experiment.lease
    return queries.run(session, queries.RENEW, mine=assignment.id, until=until).rowcount == 1


def release_place(session: Session, assignment: Assignment) -> None:
    freed = update(Place).where(Place.assignment_id == assignment.id, ~Place.filled)
    affected_rows(session, freed.values(assignment_id=None, expires_at=None))


def lease_values(experiment: Experiment, assignment: Assignment) -> dict[str, Any]:
    return {"assignment_id": assignment.id, "expires_at": experiment.clock() + experiment.lease}


def affected_rows(session: Session, statement: Any) -> int:
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", result).rowcount


# ------------------------------------------------------------------ coming in


def consent(
    session: Session, experiment: Experiment, entry: ConsentTicket, token: str, language: str = SOURCE
) -> Assignment:
    """Make the assignment of someone who consented and hold a place; the same entry gives the same assignment.

    Raises:
        TakenPart: where this person has an assignment by another entry.
        NoPlace: where no place is free; nothing is kept then.
    """
    try:
        with session.begin_nested():
            assignment = _seat(session, experiment, entry, token, language)
    except IntegrityError:
        # The entry or the worker came a moment before, perhaps by the same double click.
        earlier = session.scalar(select(Assignment).where(Assignment.entry_hash == entry.hash))
        if earlier is None:
            raise AlreadyTakenPartError("You have taken part in this study already.") from None
        return earlier
    return assignment


def _seat(session: Session, experiment: Experiment, entry: ConsentTicket, token: str, language: str) -> Assignment:
    listener = Listener(pseudonym=random_pseudonym(), worker_hash=entry.worker_hash)
    assignment = Assignment(
        pseudonym=random_pseudonym(),
        listener=listener,
        entry_hash=entry.hash,
        token_hash=sha256(token),
        state=AssignmentState.CONSENTED,
        list_number=-1,
        completion_code=random_code(),
        consent_version=entry.consent,
        language=language,
        consented_at=experiment.clock(),
    )
    session.add(assignment)
    session.flush()
    number = claim_place(session, experiment, assignment)
    if number is None:
        raise NoPlaceError("No place is free.")
    assignment.list_number = number
    if prescreen.begin(session, experiment.config, assignment) is PrescreenStatus.PASSED:
        _pass_prescreen(session, experiment, assignment)
    session.flush()
    return assignment


def find(session: Session, token: str, *, lock: bool = False) -> Assignment | None:
    """The assignment at a listener's address; `lock` where it is about to change."""
    query = queries.FIND_AND_LOCK if lock else queries.FIND
    return session.scalar(query, {"hash": sha256(token)})


def find_entry(session: Session, entry: ConsentTicket) -> Assignment | None:
    """The assignment that an entry has become, if it has."""
    return session.scalar(select(Assignment).where(Assignment.entry_hash == entry.hash))


# ------------------------------------------------------------------ where an assignment stands


def current_step(session: Session, experiment: Experiment, assignment: Assignment) -> Step:
    """The page that is due now."""
    if assignment.state in ENDED:
        return ENDED[assignment.state]
    found = queries.run(session, queries.STANDING, mine=assignment.id).one()
    return due_step(experiment, assignment, found.answered) if found.held else "expired"


def due_step(experiment: Experiment, assignment: Assignment, answered: int) -> Step:
    if assignment.state is AssignmentState.CONSENTED:
        return "prescreen"
    if assignment.state is AssignmentState.SCREENED:
        return "instructions"
    return "trial" if answered < len(experiment.trials(assignment)) else "questions"


def answered_trials(session: Session, assignment: Assignment) -> int:
    return int(queries.run(session, queries.ANSWERED, mine=assignment.id).scalar_one())


def may_proceed(session: Session, experiment: Experiment, assignment: Assignment, step: Step) -> bool:
    """Whether `step` is to be done now; False where it is done or the assignment over.

    Raises:
        Refused: where an earlier step is still to be done.
    """
    if assignment.state in ENDED or assignment.erased_at is not None:
        return False
    due = due_step(experiment, assignment, answered_trials(session, assignment))
    if ORDER.index(step) > ORDER.index(due):
        raise StepRefusedError("That page comes later in the study.")
    if due != step:
        return False
    if not renew_lease(session, experiment, assignment):
        end_assignment(experiment, assignment, AssignmentState.EXPIRED)
        return False
    return True


def end_assignment(experiment: Experiment, assignment: Assignment, state: AssignmentState) -> None:
    assignment.state = state
    assignment.ended_at = experiment.clock()


# ------------------------------------------------------------------ prescreen


def answer_prescreen(session: Session, experiment: Experiment, assignment: Assignment, given: ItemAnswer) -> None:
    """Take the answer to one prescreen item; after the last, go on or end.

    Raises:
        Refused: where the item is not this listener's.
    """
    if not may_proceed(session, experiment, assignment, "prescreen"):
        return
    try:
        standing = prescreen.take_answer(session, experiment.config, assignment, given, experiment.clock())
    except prescreen.UnexpectedItemError as problem:
        raise StepRefusedError(str(problem)) from None
    if standing is PrescreenStatus.PASSED:
        _pass_prescreen(session, experiment, assignment)
    elif standing is PrescreenStatus.FAILED:
        release_place(session, assignment)
        end_assignment(experiment, assignment, AssignmentState.SCREENED_OUT)
    session.flush()


def _pass_prescreen(session: Session, experiment: Experiment, assignment: Assignment) -> None:
    assignment.state = AssignmentState.SCREENED
    assignment.screened_at = experiment.clock()
    serve_ahead(session, experiment, assignment, AHEAD)


# ------------------------------------------------------------------ trials


@dataclass(frozen=True)
class TrialAnswer:
    """What a listener sends for one trial; plays count hearings to the end, `confidence` is 1 to 5."""

    position: int
    choice: str
    response_ms: int
    plays_x: int
    plays_a: int
    plays_b: int
    confidence: int | None = None
    telemetry: Telemetry = field(default_factory=Telemetry)


def begin_listening(session: Session, experiment: Experiment, assignment: Assignment) -> None:
    """Go from the instructions to the first trial."""
    if not may_proceed(session, experiment, assignment, "instructions"):
        return
    assignment.state = AssignmentState.LISTENING
    assignment.listening_at = experiment.clock()
    serve_ahead(session, experiment, assignment, 1 + AHEAD)
    session.flush()


def serve_ahead(session: Session, experiment: Experiment, assignment: Assignment, until: int) -> None:
    """Name the clips up to a position, where nothing is answered yet."""
    serve_clips(
        session, assignment, served_trials(session, assignment).missing(until, len(experiment.trials(assignment)))
    )


def serve_clips(session: Session, assignment: Assignment, positions: Iterable[int]) -> None:
    """Name the clips of trials that have no names yet."""
    for position in positions:
        names = {slot: random_token() for slot in SLOTS}
        queries.run(session, SERVE, mine=assignment.id, position=position, **names)


@dataclass(frozen=True)
class ServedClip:
    """One clip of a trial as it is served to a listener, under a random name; `heard`: it was sent to its end."""

    sound: str
    heard: bool


@dataclass(frozen=True)
class ServedTrials:
    """The trial that is to be answered now, and the clips of it and of later ones that are served."""

    position: int
    served: Mapping[int, Mapping[str, ServedClip]]  # by position, then by slot (X, A, B)

    def of(self, position: int) -> Mapping[str, ServedClip]:
        """The clips of a trial; none where it is not served."""
        return self.served.get(position, {})

    def missing(self, until: int, trials: int) -> range:
        """The positions up to `until` whose clips are still to be named."""
        return range(max(self.served, default=self.position - 1) + 1, min(until, trials) + 1)


def served_trials(session: Session, assignment: Assignment) -> ServedTrials:
    """Where a listener stands in the trials."""
    rows = queries.run(session, queries.CLIPS, mine=assignment.id).all()
    served: dict[int, dict[str, ServedClip]] = {}
    for row in rows:
        if row.position is not None:
            served.setdefault(row.position, {})[row.slot] = ServedClip(row.sound, row.fetched_at is not None)
    return ServedTrials(rows[0].answered + 1, served)


def answer_trial(session: Session, experiment: Experiment, assignment: Assignment, answer: TrialAnswer) -> None:
    """Take the answer to the current trial and serve the next; an answered one is left as it is.

    Raises:
        Refused: where the trial is not the current one or its clips were not all heard.
    """
    late = assignment.state is AssignmentState.EXPIRED
    if (assignment.state in ENDED and not late) or assignment.erased_at is not None:
        return
    found = served_trials(session, assignment)
    if answer.position < found.position:
        return
    present = found.of(found.position)
    # The first trial's clips are named before it begins, so that they can be fetched during the instructions.
    if answer.position > found.position or not present or assignment.listening_at is None:
        raise StepRefusedError("That comparison comes later.")
    plays = (answer.plays_x, answer.plays_a, answer.plays_b)
    heard = is_plausible(plays, answer.response_ms, answer.telemetry, experiment.config.corpus.clip_seconds)
    if not heard or not all(clip.heard for clip in present.values()):
        raise StepRefusedError("Please listen to all three sounds to the end before you answer.")
    late = late or not renew_lease(session, experiment, assignment)
    told = asdict(answer)
    told |= told.pop("telemetry")
    told |= {"assignment_id": assignment.id, "late": late, "answered_at": experiment.clock()}
    queries.run(session, queries.ADD_RESPONSE, **told)
    if late and assignment.state is not AssignmentState.EXPIRED:
        end_assignment(experiment, assignment, AssignmentState.EXPIRED)
    if not late:
        until = found.position + 1 + AHEAD
        serve_clips(session, assignment, found.missing(until, len(experiment.trials(assignment))))
    session.flush()


# ------------------------------------------------------------------ the end


def answer_questions(session: Session, experiment: Experiment, assignment: Assignment, answers: dict[str, str]) -> None:
    """Take the answers to the questions; the assignment is finished and its place filled."""
    if not may_proceed(session, experiment, assignment, "questions"):
        return
    now = experiment.clock()
    session.add_all(
        Answer(assignment_id=assignment.id, question=question, value=value, answered_at=now)
        for question, value in answers.items()
    )
    affected_rows(
        session, update(Place).where(Place.assignment_id == assignment.id).values(filled=True, expires_at=None)
    )
    end_assignment(experiment, assignment, AssignmentState.FINISHED)
    session.flush()


def leave(session: Session, experiment: Experiment, assignment: Assignment) -> None:
    """End an assignment at the listener's wish; its place goes back to the pool, its answers stay, incomplete."""
    _end_early(session, experiment, assignment, AssignmentState.WITHDRAWN)


def end_for_technical_reasons(session: Session, experiment: Experiment, assignment: Assignment) -> None:
    """End an assignment whose listener cannot hear the sounds for technical reasons; it is paid as screened out."""
    _end_early(session, experiment, assignment, AssignmentState.TECHNICAL)


def _end_early(session: Session, experiment: Experiment, assignment: Assignment, state: AssignmentState) -> None:
    if assignment.state not in ACTIVE:
        return
    release_place(session, assignment)
    end_assignment(experiment, assignment, state)
    session.flush()


def return_place(session: Session, now: datetime, assignment: Assignment) -> None:
    """Note that a listener gave their place back at the marketplace; it goes to the next, their answers stay."""
    if assignment.state in ACTIVE:
        release_place(session, assignment)
        assignment.state, assignment.ended_at = AssignmentState.RETURNED, now
        session.flush()


def expire_absent(session: Session, now: datetime) -> None:
    """End the runs whose places have gone to others: their listeners have not come back to be told."""
    held = select(Place.assignment_id).where(Place.assignment_id.is_not(None))
    absent = select(Assignment).where(Assignment.state.in_(ACTIVE), Assignment.id.not_in(held)).order_by(Assignment.id)
    # Locked, but not for who arrives and only refers to it; and what became of them until then is looked at again.
    locked = absent.with_for_update(key_share=True).execution_options(populate_existing=True)
    for assignment in session.scalars(locked).all():
        if assignment.state in ACTIVE and not has_place(session, assignment):
            assignment.state, assignment.ended_at = AssignmentState.EXPIRED, now
    session.flush()


def has_place(session: Session, assignment: Assignment) -> bool:
    return session.scalar(select(Place.id).where(Place.assignment_id == assignment.id)) is not None


def _was_paid_for_leaving(session: Session, experiment: Experiment, assignment: Assignment) -> bool:
    less = Payment.cents < cents(experiment.config.pay.reward_usd)  # who has had the whole reward may go on
    mine = (Payment.assignment_id == assignment.id, Payment.kind == "partial", Payment.state != "void", less)
    return session.scalar(select(Payment.id).where(*mine).limit(1)) is not None


def rejoin(session: Session, experiment: Experiment, assignment: Assignment) -> bool:
    """Let somebody go on who gave their place back, or lost it, and came again; False where it is taken.

    Who was paid for what they did until they left has ended: they would be paid twice for it.
    """
    if assignment.state in ACTIVE and has_place(session, assignment):
        return True
    # `server sync` may end this run just now.
    session.refresh(assignment, ["state", "erased_at"], with_for_update={"key_share": True})
    held = has_place(session, assignment)
    gone = (
        assignment.state not in (*ACTIVE, AssignmentState.RETURNED, AssignmentState.EXPIRED)
        or assignment.erased_at is not None
    )
    if gone or _was_paid_for_leaving(session, experiment, assignment):
        return held
    mine = update(Place).where(Place.list_number == assignment.list_number, claimable(experiment))
    if not held and affected_rows(session, mine.values(lease_values(experiment, assignment))) != 1:
        return False
    reached = AssignmentState.SCREENED if assignment.screened_at else AssignmentState.CONSENTED
    assignment.state = AssignmentState.LISTENING if assignment.listening_at else reached
    assignment.ended_at = None
    session.flush()
    if assignment.state is AssignmentState.LISTENING:  # a late answer names no further clips
        found = served_trials(session, assignment)
        serve_clips(session, assignment, found.missing(found.position + AHEAD, len(experiment.trials(assignment))))
    return True
