"""The life cycle of an assignment, from consent to the completion code.

Every use case takes a Session first, knows nothing about the web and never commits: the request does, once. Changes
lock the assignment's row (PostgreSQL) or the database (SQLite), so simultaneous clicks are handled one after the other.
An assignment expires only once its place has gone to another listener; an answer that arrives after that is kept and
marked `late`.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from server.assignments import prescreen, queries
from server.assignments.experiment import AlreadyTakenPartError, Experiment, NoPlaceError, StepRefusedError
from server.assignments.places import (
    affected_rows,
    claim_place,
    claimable,
    fill_place,
    has_place,
    lease_values,
    release_place,
)
from server.assignments.prescreen import ItemAnswer, PrescreenStatus
from server.assignments.steps import end_assignment, may_proceed
from server.assignments.trials import AHEAD, serve_ahead, serve_clips, served_trials
from server.audit import answer_seals
from server.db.enums import RunVerification
from server.db.models import ACTIVE, Answer, Assignment, AssignmentState, Listener, Payment, Place
from server.identity.tokens import ConsentTicket, random_code, random_pseudonym, sha256
from study.config import cents
from study.languages import SOURCE


def consent(
    session: Session,
    experiment: Experiment,
    ticket: ConsentTicket,
    token: str,
    language: str = SOURCE,
    verification: RunVerification | None = None,
) -> Assignment:
    """Create the assignment of a person who consented and reserve a place; the same ticket gives the same assignment.

    Args:
        verification: None: by the ticket, confirmed or unverified. An unconfirmed run claims no id: whoever the id
            belongs to can still take part.

    Raises:
        AlreadyTakenPartError: if this person has an assignment from another ticket.
        NoPlaceError: if no place is free; nothing is stored then.
    """
    standing = verification or (RunVerification.CONFIRMED if ticket.proven else RunVerification.UNVERIFIED)
    try:
        with session.begin_nested():
            if standing is RunVerification.CONFIRMED:
                release_claim(session, ticket.worker_hash)
            assignment = _create_assignment(session, experiment, ticket, token, language, standing)
    except IntegrityError:
        # The same ticket or worker arrived just before, perhaps by a double click.
        earlier = find_by_ticket(session, ticket)
        if earlier is None:
            raise AlreadyTakenPartError("You have taken part in this study already.") from None
        return earlier
    return assignment


def knows_worker(session: Session, worker_hash: str) -> bool:
    """Whether a run has this id."""
    return session.scalar(select(Listener.id).where(Listener.worker_hash == worker_hash)) is not None


def release_claim(session: Session, worker_hash: str | None) -> bool:
    """Take an id from a run that only claimed it, for the person it belongs to; False if a confirmed run has it."""
    query = select(Listener, Assignment.verification).join(Assignment, Assignment.listener_id == Listener.id)
    claimed = session.execute(query.where(Listener.worker_hash == worker_hash)).one_or_none() if worker_hash else None
    if claimed is None:
        return True
    listener, verification = claimed
    if verification is RunVerification.CONFIRMED:
        return False
    listener.worker_hash = None
    session.flush()
    return True


def _create_assignment(
    session: Session,
    experiment: Experiment,
    ticket: ConsentTicket,
    token: str,
    language: str,
    verification: RunVerification,
) -> Assignment:
    known = verification is not RunVerification.UNCONFIRMED
    listener = Listener(pseudonym=random_pseudonym(), worker_hash=ticket.worker_hash if known else None)
    assignment = Assignment(
        pseudonym=random_pseudonym(),
        listener=listener,
        entry_hash=ticket.hash,
        token_hash=sha256(token),
        state=AssignmentState.CONSENTED,
        list_number=-1,
        completion_code=random_code(),
        consent_version=ticket.consent,
        language=language,
        verification=verification,
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
    """The assignment at a listener's address; `lock` if it is about to change."""
    query = queries.FIND_AND_LOCK if lock else queries.FIND
    return session.scalar(query, {"hash": sha256(token)})


def find_by_ticket(session: Session, ticket: ConsentTicket) -> Assignment | None:
    """The assignment that was made with a ticket, if any."""
    return session.scalar(select(Assignment).where(Assignment.entry_hash == ticket.hash))


def answer_prescreen(
    session: Session, experiment: Experiment, assignment: Assignment, given: ItemAnswer, simulated: float = 0.0
) -> None:
    """Record the answer to one prescreen item; after the last one, continue or end.

    Args:
        simulated: seconds that a simulated listener adds to the server's clock (server.assignments.rehearsal_clock).

    Raises:
        StepRefusedError: if the item is not this listener's, or its sound cannot have been heard to the end.
    """
    if not may_proceed(session, experiment, assignment, "prescreen"):
        return
    try:
        now = experiment.clock()
        status = prescreen.take_answer(session, experiment.config, assignment, given, now, simulated)
    except prescreen.ItemRefusedError as problem:
        raise StepRefusedError(str(problem)) from None
    if status is PrescreenStatus.PASSED:
        _pass_prescreen(session, experiment, assignment)
    elif status is PrescreenStatus.FAILED:
        release_place(session, assignment)
        end_assignment(experiment, assignment, AssignmentState.SCREENED_OUT)
    session.flush()


def _pass_prescreen(session: Session, experiment: Experiment, assignment: Assignment) -> None:
    assignment.state = AssignmentState.SCREENED
    assignment.screened_at = experiment.clock()
    serve_ahead(session, experiment, assignment, AHEAD)


def answer_questions(session: Session, experiment: Experiment, assignment: Assignment, answers: dict[str, str]) -> None:
    """Record the answers to the questions; the assignment is finished, and its place filled once it is confirmed."""
    if not may_proceed(session, experiment, assignment, "questions"):
        return
    now = experiment.clock()
    for question, value in answers.items():
        values = {"question": question, "value": value, "answered_at": now}
        answer_seals.add_seal(session, Answer, assignment, values)
        session.add(Answer(assignment_id=assignment.id, **values))
    if assignment.verification is not RunVerification.UNCONFIRMED:
        fill_place(session, assignment)
    end_assignment(experiment, assignment, AssignmentState.FINISHED)
    session.flush()


def leave(session: Session, experiment: Experiment, assignment: Assignment) -> None:
    """End an assignment at the listener's request; its place is released, its answers stay, marked incomplete."""
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
    """Record that a listener returned their place at the marketplace; the place is released, the answers stay."""
    if assignment.state in ACTIVE:
        release_place(session, assignment)
        assignment.state, assignment.ended_at = AssignmentState.RETURNED, now
        session.flush()


def expire_absent(session: Session, now: datetime) -> None:
    """End the assignments whose places have gone to others and whose listeners have not come back."""
    held = select(Place.assignment_id).where(Place.assignment_id.is_not(None))
    absent = select(Assignment).where(Assignment.state.in_(ACTIVE), Assignment.id.not_in(held)).order_by(Assignment.id)
    # The lock still lets new rows refer to them; what changed before it was granted is read again.
    locked = absent.with_for_update(key_share=True).execution_options(populate_existing=True)
    for assignment in session.scalars(locked).all():
        if assignment.state in ACTIVE and not has_place(session, assignment):
            assignment.state, assignment.ended_at = AssignmentState.EXPIRED, now
    session.flush()


def _was_paid_for_leaving(session: Session, experiment: Experiment, assignment: Assignment) -> bool:
    less = Payment.cents < cents(experiment.config.pay.reward)  # with the whole reward paid they may continue
    partial = (Payment.assignment_id == assignment.id, Payment.kind == "partial", Payment.state != "void", less)
    return session.scalar(select(Payment.id).where(*partial).limit(1)) is not None


def rejoin(session: Session, experiment: Experiment, assignment: Assignment) -> bool:
    """Let a listener who returned or lost their place continue; False if the place is taken.

    A listener who was paid for a part cannot continue: that part would be paid twice.
    """
    if assignment.state in ACTIVE and has_place(session, assignment):
        return True
    # `server sync` may be ending this assignment now.
    session.refresh(assignment, ["state", "erased_at"], with_for_update={"key_share": True})
    held = has_place(session, assignment)
    gone = (
        assignment.state not in (*ACTIVE, AssignmentState.RETURNED, AssignmentState.EXPIRED)
        or assignment.erased_at is not None
    )
    if gone or _was_paid_for_leaving(session, experiment, assignment):
        return held
    reclaimed = update(Place).where(Place.list_number == assignment.list_number, claimable(experiment))
    if not held and affected_rows(session, reclaimed.values(lease_values(experiment, assignment))) != 1:
        return False
    reached = AssignmentState.SCREENED if assignment.screened_at else AssignmentState.CONSENTED
    assignment.state = AssignmentState.LISTENING if assignment.listening_at else reached
    assignment.ended_at = None
    session.flush()
    if assignment.state is AssignmentState.LISTENING:  # a late answer serves no further clips
        served = served_trials(session, assignment)
        serve_clips(session, assignment, served.missing(served.position + AHEAD, len(experiment.trials(assignment))))
    return True
