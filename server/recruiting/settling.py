"""Settling: how the marketplace and our books come to agree, and everybody is paid once.

`look` asks how every opening stands and writes down what is new; `reconcile` asks about every payment and order of
which it is not known whether it was made; `approve_complete` accepts the work that the database shows complete. What
is doubtful (submitted, but not finished here) is left to a person: `doubtful` lists it, and nothing here rejects it.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.assignments import lifecycle
from server.db.models import ACTIVE, LIVE, Assignment, Listener, Opening, Payment, Place, State, Submission
from server.db.upsert import find_or_add
from server.identity.vault import recall
from server.payments import ledger
from server.recruiting.launch import Office, Tell, carry_out, close_openings, top_up, unplaced
from server.recruiting.marketplaces.base import (
    Grant,
    Kind,
    NotTheirsError,
    RecruiterError,
    Standing,
    UnknownWorkerError,
    UnsureError,
)
from server.recruiting.marketplaces.base import Submission as Told

GIVEN_BACK = ("returned", "timed_out")
THANKS = "Thank you for taking part in our listening study."


@dataclass(frozen=True)
class Sight:
    """What was seen: openings by id, and every submission by our key."""

    standings: Mapping[str, Standing]
    told: Mapping[str, Told]


def _is_to_close(office: Office) -> bool:
    """Whether nobody new is wanted: closed by a person, or every place is filled."""
    with office.reading() as session:
        launch = ledger.launch(session)
        unfilled = session.scalar(select(Place.id).where(~Place.filled).limit(1))
    return launch is not None and (launch.closed_at is not None or unfilled is None)


@dataclass(frozen=True)
class Done:
    """What a synchronisation did: work approved, grants in doubt sent again, places ordered."""

    approved: int
    granted: int
    ordered: int


def look(office: Office) -> Sight:
    """Ask how every opening stands that is not settled, and write down what is new."""
    began = office.clock()
    sight = peek(office)
    with office.writing() as session:
        note_all(session, office, sight.standings, began)
    return sight


def peek(office: Office) -> Sight:
    """Ask how every opening stands that is not settled; nothing is written down."""
    with office.reading() as session:
        query = select(Opening.market_id).where(Opening.settled_at.is_(None), Opening.market_id.is_not(None))
        openings = sorted({str(one) for one in session.scalars(query)})
    standings = {id_: office.recruiter.submissions(id_) for id_ in openings}
    told = {_key(office, one): one for standing in standings.values() for one in standing.submissions}
    return Sight(standings, told)


def note_all(session: Session, office: Office, standings: Mapping[str, Standing], began: datetime) -> None:
    """Write down what was seen; it was asked for at `began` or later."""
    lifecycle.expire_absent(session, began)
    for opening, standing in standings.items():
        _note(session, office, opening, standing, began)
    _note_late(session, office, set(standings), began)


def _note_late(session: Session, office: Office, seen: set[str], began: datetime) -> None:
    """Note those who hold nothing: their opening was over when they came, by a page left open, or came again."""
    over = select(Opening.market_id).where(Opening.settled_at.is_not(None), Opening.market_id.not_in(seen))
    held = select(Submission).where(Submission.status == "held", Submission.opening.in_(over))
    for row in session.scalars(held.where(Submission.seen_at <= began - office.margin)):
        row.status = "timed_out"
        _follow(session, office, row)


def _key(office: Office, told: Told) -> str:
    return office.door.submission_key(told.worker, told.id)


def _note(session: Session, office: Office, opening: str, standing: Standing, began: datetime) -> None:
    known = set()
    for told in standing.submissions:
        row = _row(session, office, told)
        known.add(row.key)
        row.status = told.status
        _follow(session, office, row)
        _book(session, office, row)
    held = select(Submission).where(Submission.opening == opening, Submission.status == "held")
    for row in session.scalars(held.where(Submission.seen_at <= began - office.margin)):
        if row.key not in known and (status := _gone(office, row, standing, began)):
            row.status = status
            _follow(session, office, row)
    _settle_opening(session, office, opening, standing)


def _row(session: Session, office: Office, told: Told) -> Submission:
    """Our row of a submission; made where its worker never came to us."""
    key = _key(office, told)
    row = session.scalar(select(Submission).where(Submission.key == key))
    if row is not None:
        return row
    mine = select(Assignment.id).join(Listener).where(Listener.worker_hash == office.door.worker_hash(told.worker))
    seen = {"opening": told.opening, "status": told.status, "seen_at": office.clock()}
    # The worker may arrive in this very moment.
    return find_or_add(session, Submission, {"key": key}, {"assignment_id": session.scalar(mine), **seen})


def _gone(office: Office, row: Submission, standing: Standing, began: datetime) -> str:
    """What has become of a place that was held, where the marketplace does not say who holds one."""
    if standing.held == 0:
        return "returned"
    minutes = office.recruiter.terms.hold_minutes
    return "timed_out" if minutes is not None and row.seen_at + timedelta(minutes=minutes) <= began else ""


def _follow(session: Session, office: Office, row: Submission) -> None:
    """Let the assignment's state follow its submission."""
    if row.assignment_id is None:
        return
    # Locked, but not for who arrives and only refers to it: that one may hold a submission that we are about to note.
    assignment = session.get_one(Assignment, row.assignment_id, with_for_update={"key_share": True})
    if row.status == "submitted" and assignment.state is State.FINISHED:
        assignment.state = State.SUBMITTED
    if row.status == "approved" and assignment.state in (State.FINISHED, State.SUBMITTED):
        assignment.state = State.APPROVED
    if row.status in GIVEN_BACK and assignment.state in ACTIVE and not _holds_another(session, row):
        lifecycle.give_back(session, office.clock(), assignment)
    session.flush()


def _holds_another(session: Session, row: Submission) -> bool:
    same = (Submission.assignment_id == row.assignment_id, Submission.id != row.id, Submission.status.in_(LIVE))
    return session.scalar(select(Submission.id).where(*same).limit(1)) is not None


def _book(session: Session, office: Office, row: Submission) -> None:
    """Let the books show what the marketplace has decided: paid, or rejected by a person."""
    if row.status not in ("approved", "rejected"):
        return
    opening = _opening_of(session, row.opening)
    if opening is None:
        return
    mine = select(Payment).where(Payment.opening_id.is_not(None))
    payment = session.scalar(mine.where(Payment.submission_id == row.id))
    if payment is None and opening.owed_to is not None:
        payment = session.scalar(mine.where(Payment.opening_id == opening.id))
    if row.status == "rejected":
        if payment is not None and payment.state == "pending":
            payment.state = "void"
        return
    if payment is None:
        payment = _unasked(session, office, row, opening)
    payment.submission_id = row.id
    ledger.settle(session, payment, office.clock())


def _unasked(session: Session, office: Office, row: Submission, opening: Opening) -> Payment:
    """What the marketplace paid without us: after its delay it approves by itself, or a person did."""
    assignment = session.get(Assignment, row.assignment_id) if row.assignment_id else None
    kind: Kind = ledger.due(assignment.state, office.config.pay)[0] if assignment else "reward"
    kinds = ledger.settles(assignment.state, office.config.pay) if assignment else ()
    earlier = ledger.find(session, assignment, *kinds) if assignment is not None else None
    if earlier is not None and (earlier.kind, earlier.state, earlier.opening_id) == ("screen_out", "pending", None):
        # A person approved on the marketplace's page what it had refused to screen out for us.
        earlier.opening_id, earlier.cents, earlier.fee_cents = opening.id, opening.reward_cents, opening.fee_cents
        return earlier
    if earlier is not None:
        assignment = None  # they are paid already, for another submission or by a grant for this one
        kind = "paid_again" if earlier.submission_id == row.id else kind
    return ledger.intend(
        session,
        assignment,
        kind,
        opening.reward_cents,
        opening.fee_cents,
        office.clock(),
        submission=row,
        opening=opening,
    )


def _opening_of(session: Session, market_id: str) -> Opening | None:
    return session.scalar(select(Opening).where(Opening.market_id == market_id).order_by(Opening.id).limit(1))


def _settle_opening(session: Session, office: Office, market_id: str, standing: Standing) -> None:
    """An opening is settled when nobody can take or hold a place there and everything submitted is judged."""
    waiting = any(one.status in LIVE for one in standing.submissions)
    if standing.free or standing.held or waiting:
        return
    rows = list(session.scalars(select(Opening).where(Opening.market_id == market_id)))
    if any(row.closed_at is None for row in rows) and not office.recruiter.terms.batch:
        return  # one opening takes all orders: places may be added to it
    for row in rows:
        row.settled_at = office.clock()


def synchronise(office: Office, *, approve: bool = True, tell: Tell = print) -> Done:
    """Bring the marketplace and the books together: find out, mark, approve what is complete, order what is missing."""
    reconcile_openings(office)
    if _is_to_close(office):
        close_openings(office)
    sight = look(office)
    exclude_all(office, sight)
    granted = reconcile_grants(office, tell)
    approved = approve_complete(office, sight) if approve else 0
    ordered = top_up(office, sight.standings, tell)
    return Done(approved, granted, ordered)


# ------------------------------------------------------------------ what is in doubt


def reconcile_openings(office: Office) -> None:
    """Find or place every order of which it is not known whether it was placed."""
    with office.reading() as session:
        numbers = unplaced(session)
    for number in numbers:
        with contextlib.suppress(UnknownWorkerError):
            carry_out(office, number)


def reconcile_grants(office: Office, tell: Tell = print) -> int:
    """Ask about every grant in doubt, and send those that were not paid; how many were sent.

    One that is refused again is told of, and does not keep the others waiting.
    """
    with office.reading() as session:
        waiting = timedelta(minutes=office.recruiter.terms.settle_minutes)
        doubtful = [one.id for one in ledger.pending(session) if one.opening_id is None]
        young = {one.id for one in ledger.pending(session) if one.intended_at + waiting > office.clock()}
    sent = 0
    for number in doubtful:
        if waiting and number in young:
            continue
        try:
            sent += _send_in_doubt(office, number)
        except UnsureError:
            raise
        except RecruiterError as error:
            tell(f"A payment written down earlier was not made: {error}")
    return sent


def _send_in_doubt(office: Office, number: int) -> bool:
    """Send a grant unless it was paid; whether it was sent."""
    grant = _grant(office, number)
    if grant is None:
        return False
    with _void_unless_theirs(office, number):
        unpaid = not office.recruiter.has_paid(grant)
        if unpaid and _was_approved_instead(office, number):
            return False
        if unpaid:
            _note_sending(office, number)
            office.recruiter.bonus(grant)
    _paid(office, number)
    return unpaid


def _was_approved_instead(office: Office, number: int) -> bool:
    """Whether a person approved the submission for which a grant was not made; the grant's row is then that payment."""
    with office.writing() as session:
        payment = session.get_one(Payment, number)
        same = (Payment.submission_id == payment.submission_id, Payment.kind == "paid_again", Payment.state == "paid")
        approved = session.scalar(select(Payment).where(*same))
        if approved is None or payment.kind not in ("reward", "screen_out", "partial"):
            return False  # a bonus and a lift come on top
        payment.opening_id, payment.cents, payment.fee_cents = approved.opening_id, approved.cents, approved.fee_cents
        session.delete(approved)
        session.flush()
        ledger.settle(session, payment, office.clock())
    return True


@contextlib.contextmanager
def _void_unless_theirs(office: Office, number: int) -> Iterator[None]:
    """Nothing is owed to somebody who came with another's submission: who takes part under many names is paid once."""
    try:
        yield
    except NotTheirsError:
        with office.writing() as session:
            session.get_one(Payment, number).state = "void"
        raise


def _note_sending(office: Office, number: int) -> None:
    """A grant is sent now: where a payment shows late, whether it was made is not asked sooner after this than then."""
    with office.writing() as session:
        session.get_one(Payment, number).intended_at = office.clock()


def _grant(office: Office, number: int) -> Grant | None:
    with office.reading() as session:
        payment = session.get_one(Payment, number)
        told = _tell_submission(session, office, payment)
        others = ledger.alike(session, payment)
    if told is None:
        return None
    reason = payment.reason or THANKS
    return Grant(payment.token, told, payment.cents, payment.kind, reason, others)  # type: ignore[arg-type]


def _tell_submission(session: Session, office: Office, payment: Payment) -> Told | None:
    """The submission that a grant is for, with the marketplace's own ids."""
    if payment.assignment_id is None:
        return None
    assignment = session.get_one(Assignment, payment.assignment_id)
    who = recall(session, office.vault, assignment.listener)
    row = session.get(Submission, payment.submission_id) if payment.submission_id else None
    if who is None or who.worker is None:
        raise RecruiterError(f"who listener {assignment.listener.pseudonym} is, is not known any more.")
    if row is None or office.door.submission_key(who.worker, who.submission) == row.key:
        return Told(who.submission, who.worker, who.opening, row.status if row else "submitted")  # type: ignore[arg-type]
    for told in office.recruiter.submissions(row.opening).submissions:
        if _key(office, told) == row.key:
            return told
    raise RecruiterError(
        f"the submission of listener {assignment.listener.pseudonym} is not at the marketplace any more."
    )


def _paid(office: Office, number: int) -> None:
    with office.writing() as session:
        ledger.settle(session, session.get_one(Payment, number), office.clock())


# ------------------------------------------------------------------ what is due


@dataclass(frozen=True)
class Due:
    """Money to be paid: by approving `submission` (an id of ours), by a grant, or by a place made for it alone."""

    assignment: int
    pseudonym: str
    kind: Kind
    cents: int
    fee: int
    how: str  # "approve", "grant", "place", "by hand", or "wait": they may submit still
    submission: int | None = None

    @property
    def cost(self) -> int:
        return self.cents + self.fee


def all_due(session: Session, office: Office) -> list[Due]:
    """Everything that is owed and not paid or under way, by how it can be paid."""
    booked: dict[int | None, list[Payment]] = defaultdict(list)
    for one in session.scalars(select(Payment)):
        if _is_under_way(session, one):
            booked[one.assignment_id].append(one)
    found = []
    for assignment in session.scalars(select(Assignment).order_by(Assignment.id)):
        owed = ledger.owed(assignment, booked[assignment.id], office.config.pay)
        if owed is None:
            continue
        rows = ledger.submissions_of(session, assignment)
        if not ledger.is_rejected(rows):
            found.append(_due(session, office, assignment, rows, *owed))
    return found


def _is_under_way(session: Session, payment: Payment) -> bool:
    """Paid, decided, or pending and seen to; a pending approval is due again, and so is a place in vain."""
    if payment.state != "pending" or payment.opening_id is None:
        return True
    opening = session.get_one(Opening, payment.opening_id)
    return opening.owed_to is not None and opening.settled_at is None


def _due(
    session: Session, office: Office, assignment: Assignment, rows: list[Submission], kind: Kind, amount: int
) -> Due:
    at = office.recruiter.terms
    who = (assignment.id, assignment.pseudonym, kind)
    if at.by_hand:
        return Due(*who, amount, 0, "by hand")
    submitted = next((row for row in rows if row.status == "submitted"), None)
    apart = at.screen_out_apart and kind != "reward"
    if submitted is not None and not apart and amount >= office.reward:
        opening = _opening_of(session, submitted.opening)
        reward, fee = (opening.reward_cents, opening.fee_cents) if opening else (office.reward, office.fee)
        return Due(*who, reward, fee, "approve", submitted.id)
    if rows and (at.pays_unsubmitted or apart) and (apart or not any(row.status in LIVE for row in rows)):
        return Due(*who, amount, office.recruiter.fee(amount), "grant", rows[0].id)
    if any(row.status in LIVE for row in rows) or at.pays_unsubmitted:
        return Due(*who, amount, office.recruiter.fee(amount), "wait")
    return Due(*who, amount, office.recruiter.fee(amount), "place")


def anyway(session: Session, office: Office) -> list[Due]:
    """The submissions that are for a person to decide, as if they were complete."""
    found = []
    for row, assignment in doubtful(session, office):
        opening = _opening_of(session, row.opening)
        if assignment is not None and opening is not None:
            kind = ledger.due(assignment.state, office.config.pay)[0]
            who = (assignment.id, assignment.pseudonym, kind)
            found.append(Due(*who, opening.reward_cents, opening.fee_cents, "approve", row.id))
    return found


def doubtful(session: Session, office: Office) -> list[tuple[Submission, Assignment | None]]:
    """Submissions that the database does not show complete: for a person to decide."""
    approvable = {one.submission for one in all_due(session, office) if one.how in ("approve", "grant")}
    owed = set(session.scalars(select(Opening.market_id).where(Opening.owed_to.is_not(None))))
    query = select(Submission).where(Submission.status == "submitted").order_by(Submission.id)
    return [
        (row, session.get(Assignment, row.assignment_id) if row.assignment_id else None)
        for row in session.scalars(query)
        if row.id not in approvable and row.opening not in owed
    ]


# ------------------------------------------------------------------ paying


def approve_complete(office: Office, sight: Sight) -> int:
    """Approve what was submitted and is complete here; how many were."""
    with office.reading() as session:
        due = [one for one in all_due(session, office) if one.how == "approve"]
    return approve_listed(office, sight, due) + _approve_owed(office, sight)


def approve_listed(office: Office, sight: Sight, due: Iterable[Due]) -> int:
    """Approve these; how many were."""
    return sum(_approve(office, sight, one) for one in due)


def _approve(office: Office, sight: Sight, due: Due) -> int:
    with office.writing() as session:
        row = session.get_one(Submission, due.submission)
        told = sight.told.get(row.key)
        if told is None:
            return 0
        opening = _opening_of(session, row.opening)
        assignment = session.get_one(Assignment, due.assignment)
        payment = ledger.intend(
            session, assignment, due.kind, due.cents, due.fee, office.clock(), submission=row, opening=opening
        )
        if payment.state != "pending" or payment.submission_id not in (row.id, None):
            return 0
        payment.submission_id, number = row.id, payment.id
    office.recruiter.approve(told)
    with office.writing() as session:
        ledger.settle(session, session.get_one(Payment, number), office.clock())
        session.get_one(Submission, due.submission).status = "approved"
    return 1


def _approve_owed(office: Office, sight: Sight) -> int:
    """Approve what was submitted at places made for one listener, whose payment is written down already."""
    with office.reading() as session:
        query = select(Submission, Opening).join(Opening, Submission.opening == Opening.market_id)
        rows = session.execute(query.where(Submission.status == "submitted", Opening.owed_to.is_not(None))).all()
        found = [(row.id, row.key, opening.id) for row, opening in rows]
    for submission, key, opening_id in found:
        if key not in sight.told:
            continue
        office.recruiter.approve(sight.told[key])
        with office.writing() as session:
            payment = session.scalar(select(Payment).where(Payment.opening_id == opening_id))
            row = session.get_one(Submission, submission)
            row.status = "approved"
            if payment is not None:
                payment.submission_id = row.id
                ledger.settle(session, payment, office.clock())
    return len(found)


def grant(office: Office, assignment: int, kind: Kind, amount: int, reason: str, submission: int | None) -> bool:
    """Pay a grant: written down, sent, written down again; whether it was sent.

    One that was written down before is left to `reconcile`, unless it was to be paid by an approval that came to
    nothing: the place was given back since.
    """
    with office.writing() as session:
        row = session.get(Submission, submission) if submission else None
        fee = office.recruiter.fee(amount)
        who = session.get_one(Assignment, assignment)
        payment = ledger.find(session, who, kind)
        if payment is not None:
            if _is_under_way(session, payment):
                return False
            # While its opening is not settled, that counts in full, and so will this beside it.
            if session.get_one(Opening, payment.opening_id).settled_at is None:
                ledger.require_budget(session, amount + fee)
            payment.opening_id, payment.cents, payment.fee_cents = None, amount, fee
            payment.submission_id, payment.intended_at = submission, office.clock()
        else:
            payment = ledger.intend(session, who, kind, amount, fee, office.clock(), submission=row, reason=reason)
        number = payment.id
    if not office.recruiter.terms.by_hand and (sent := _grant(office, number)):
        with _void_unless_theirs(office, number):
            office.recruiter.bonus(sent)
    _paid(office, number)
    return True


def note_paid(office: Office, paid: Iterable[tuple[int, Kind, int, str]]) -> int:
    """Write down, all or none, what was paid by hand: assignment, kind, cents, reason. How many were new.

    Raises:
        OverBudget: where the launch's budget has no room for it.
    """
    new = 0
    with office.writing() as session:
        for number, kind, amount, reason in paid:
            who, now = session.get_one(Assignment, number), office.clock()
            if ledger.find(session, who, kind) is None:
                ledger.settle(session, ledger.intend(session, who, kind, amount, 0, now, reason=reason), now)
                new += 1
    return new


def offer_place(office: Office, due: Due) -> None:
    """Order one place for a listener who could not submit, worth what they are owed."""
    with office.writing() as session:
        ledger.require_budget(session, due.cost)
        assignment = session.get_one(Assignment, due.assignment)
        opening = Opening(
            token=ledger.new_token("owed"),
            places=1,
            reward_cents=due.cents,
            fee_cents=due.fee,
            owed_to=assignment.id,
            ordered_at=office.clock(),
        )
        session.add(opening)
        session.flush()
        payment = ledger.intend(session, assignment, due.kind, due.cents, due.fee, office.clock(), opening=opening)
        payment.opening_id, number = opening.id, opening.id  # an earlier place was not taken in time
    carry_out(office, number)


def paid_submission(session: Session, assignment: Assignment) -> int | None:
    """The submission that a bonus goes with: the one that was paid, or the last that was handed in."""
    paid = select(Payment.submission_id).where(
        Payment.assignment_id == assignment.id, Payment.submission_id.is_not(None), Payment.state == "paid"
    )
    if (found := session.scalar(paid.limit(1))) is not None:
        return found
    handed_in = Submission.status.in_(("submitted", "approved"))
    query = select(Submission.id).where(Submission.assignment_id == assignment.id, handed_in)
    return session.scalar(query.order_by(Submission.id.desc()).limit(1))


def all_paid(session: Session) -> list[Payment]:
    """Every payment that was made, oldest first."""
    return list(session.scalars(select(Payment).where(Payment.state == "paid").order_by(Payment.id)))


def is_over(session: Session) -> bool:
    """Whether every place is filled and nothing waits to be paid or settled."""
    waiting = select(Opening.id).where(Opening.settled_at.is_(None)).limit(1)
    unfilled = select(Place.id).where(~Place.filled).limit(1)
    return session.scalar(unfilled) is None and session.scalar(waiting) is None and not ledger.pending(session)


def exclude_all(office: Office, sight: Sight) -> None:
    """Mark everybody who took a place, so that none is offered another."""
    with office.reading() as session:
        launch = ledger.launch(session)
        query = select(Submission).where(~Submission.excluded)
        rows = [(row.id, row.key, row.assignment_id) for row in session.scalars(query)]
    assert launch is not None
    for number, key, assignment in rows:
        worker = _worker(office, sight, key, assignment)
        if worker:
            with contextlib.suppress(UnknownWorkerError):  # anybody may write any id into an address
                office.recruiter.exclude(worker, launch.name)
        with office.writing() as session:
            session.get_one(Submission, number).excluded = True


def _worker(office: Office, sight: Sight, key: str, assignment: int | None) -> str | None:
    if key in sight.told:
        return sight.told[key].worker
    if assignment is None:
        return None
    with office.reading() as session:
        who = recall(session, office.vault, session.get_one(Assignment, assignment).listener)
    return who.worker if who else None
