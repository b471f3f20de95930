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
from server.db.models import (
    ACTIVE,
    LIVE,
    Assignment,
    AssignmentState,
    Listener,
    MarketplaceSubmission,
    Payment,
    Place,
    Posting,
)
from server.db.upsert import find_or_add
from server.identity.vault import recall
from server.payments import ledger
from server.recruiting.launch import RecruitingContext, Tell, close_openings, place_order, top_up, unplaced
from server.recruiting.marketplaces.base import (
    DirectPayment,
    ForeignSubmissionError,
    Kind,
    MarketplaceError,
    PostingStatus,
    UnknownOutcomeError,
    UnknownWorkerError,
)
from server.recruiting.marketplaces.base import SubmissionStatus as Told

GIVEN_BACK = ("returned", "timed_out")
THANKS = "Thank you for taking part in our listening study."


@dataclass(frozen=True)
class MarketplaceSnapshot:
    """What was seen: openings by id, and every submission by our key."""

    standings: Mapping[str, PostingStatus]
    told: Mapping[str, Told]


def _is_to_close(office: RecruitingContext) -> bool:
    """Whether nobody new is wanted: closed by a person, or every place is filled."""
    with office.reading() as session:
        launch = ledger.launch(session)
        unfilled = session.scalar(select(Place.id).where(~Place.filled).limit(1))
    return launch is not None and (launch.closed_at is not None or unfilled is None)


@dataclass(frozen=True)
class SyncResult:
    """What a synchronisation did: work approved, grants in doubt sent again, places ordered."""

    approved: int
    granted: int
    ordered: int


def record_snapshot(office: RecruitingContext) -> MarketplaceSnapshot:
    """Ask how every opening stands that is not settled, and write down what is new."""
    began = office.clock()
    sight = fetch_snapshot(office)
    with office.writing() as session:
        record_submissions(session, office, sight.standings, began)
    return sight


def fetch_snapshot(office: RecruitingContext) -> MarketplaceSnapshot:
    """Ask how every opening stands that is not settled; nothing is written down."""
    with office.reading() as session:
        query = select(Posting.market_id).where(Posting.settled_at.is_(None), Posting.market_id.is_not(None))
        openings = sorted({str(one) for one in session.scalars(query)})
    standings = {id_: office.recruiter.submissions(id_) for id_ in openings}
    told = {submission_key(office, one): one for standing in standings.values() for one in standing.submissions}
    return MarketplaceSnapshot(standings, told)


def record_submissions(
    session: Session, office: RecruitingContext, standings: Mapping[str, PostingStatus], began: datetime
) -> None:
    """Write down what was seen; it was asked for at `began` or later."""
    lifecycle.expire_absent(session, began)
    for opening, standing in standings.items():
        _record_posting(session, office, opening, standing, began)
    _time_out_stale(session, office, set(standings), began)


def _time_out_stale(session: Session, office: RecruitingContext, seen: set[str], began: datetime) -> None:
    """Note those who hold nothing: their opening was over when they came, by a page left open, or came again."""
    over = select(Posting.market_id).where(Posting.settled_at.is_not(None), Posting.market_id.not_in(seen))
    held = select(MarketplaceSubmission).where(
        MarketplaceSubmission.status == "held", MarketplaceSubmission.opening.in_(over)
    )
    for row in session.scalars(held.where(MarketplaceSubmission.seen_at <= began - office.margin)):
        row.status = "timed_out"
        _update_assignment_state(session, office, row)


def submission_key(office: RecruitingContext, told: Told) -> str:
    return office.door.submission_key(told.worker, told.id)


def _record_posting(
    session: Session, office: RecruitingContext, opening: str, standing: PostingStatus, began: datetime
) -> None:
    known = set()
    for told in standing.submissions:
        row = _submission_row(session, office, told)
        known.add(row.key)
        row.status = told.status
        _update_assignment_state(session, office, row)
        _record_decision(session, office, row)
    held = select(MarketplaceSubmission).where(
        MarketplaceSubmission.opening == opening, MarketplaceSubmission.status == "held"
    )
    for row in session.scalars(held.where(MarketplaceSubmission.seen_at <= began - office.margin)):
        if row.key not in known and (status := _status_of_vanished(office, row, standing, began)):
            row.status = status
            _update_assignment_state(session, office, row)
    _settle_posting(session, office, opening, standing)


def _submission_row(session: Session, office: RecruitingContext, told: Told) -> MarketplaceSubmission:
    """Our row of a submission; made where its worker never came to us."""
    key = submission_key(office, told)
    row = session.scalar(select(MarketplaceSubmission).where(MarketplaceSubmission.key == key))
    if row is not None:
        return row
    mine = select(Assignment.id).join(Listener).where(Listener.worker_hash == office.door.worker_hash(told.worker))
    seen = {"opening": told.opening, "status": told.status, "seen_at": office.clock()}
    # The worker may arrive in this very moment.
    return find_or_add(session, MarketplaceSubmission, {"key": key}, {"assignment_id": session.scalar(mine), **seen})


def _status_of_vanished(
    office: RecruitingContext, row: MarketplaceSubmission, standing: PostingStatus, began: datetime
) -> str:
    """What has become of a place that was held, where the marketplace does not say who holds one."""
    if standing.held == 0:
        return "returned"
    minutes = office.recruiter.terms.hold_minutes
    return "timed_out" if minutes is not None and row.seen_at + timedelta(minutes=minutes) <= began else ""


def _update_assignment_state(session: Session, office: RecruitingContext, row: MarketplaceSubmission) -> None:
    """Let the assignment's state follow its submission."""
    if row.assignment_id is None:
        return
    # Locked, but not for who arrives and only refers to it: that one may hold a submission that we are about to note.
    assignment = session.get_one(Assignment, row.assignment_id, with_for_update={"key_share": True})
    if row.status == "submitted" and assignment.state is AssignmentState.FINISHED:
        assignment.state = AssignmentState.SUBMITTED
    if row.status == "approved" and assignment.state in (AssignmentState.FINISHED, AssignmentState.SUBMITTED):
        assignment.state = AssignmentState.APPROVED
    if row.status in GIVEN_BACK and assignment.state in ACTIVE and not _holds_another(session, row):
        lifecycle.return_place(session, office.clock(), assignment)
    session.flush()


def _holds_another(session: Session, row: MarketplaceSubmission) -> bool:
    same = (
        MarketplaceSubmission.assignment_id == row.assignment_id,
        MarketplaceSubmission.id != row.id,
        MarketplaceSubmission.status.in_(LIVE),
    )
    return session.scalar(select(MarketplaceSubmission.id).where(*same).limit(1)) is not None


def _record_decision(session: Session, office: RecruitingContext, row: MarketplaceSubmission) -> None:
    """Let the books show what the marketplace has decided: paid, or rejected by a person."""
    if row.status not in ("approved", "rejected"):
        return
    opening = posting_of(session, row.opening)
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
        payment = _record_external_payment(session, office, row, opening)
    payment.submission_id = row.id
    ledger.settle(session, payment, office.clock())


def _record_external_payment(
    session: Session, office: RecruitingContext, row: MarketplaceSubmission, opening: Posting
) -> Payment:
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
    return ledger.record_pending(
        session,
        assignment,
        kind,
        opening.reward_cents,
        opening.fee_cents,
        office.clock(),
        submission=row,
        opening=opening,
    )


def posting_of(session: Session, market_id: str) -> Posting | None:
    return session.scalar(select(Posting).where(Posting.market_id == market_id).order_by(Posting.id).limit(1))


def _settle_posting(session: Session, office: RecruitingContext, market_id: str, standing: PostingStatus) -> None:
    """An opening is settled when nobody can take or hold a place there and everything submitted is judged."""
    waiting = any(one.status in LIVE for one in standing.submissions)
    if standing.free or standing.held or waiting:
        return
    rows = list(session.scalars(select(Posting).where(Posting.market_id == market_id)))
    if any(row.closed_at is None for row in rows) and not office.recruiter.terms.batch:
        return  # one opening takes all orders: places may be added to it
    for row in rows:
        row.settled_at = office.clock()


def synchronize(office: RecruitingContext, *, approve: bool = True, tell: Tell = print) -> SyncResult:
    """Bring the marketplace and the books together: find out, mark, approve what is complete, order what is missing."""
    reconcile_postings(office)
    if _is_to_close(office):
        close_openings(office)
    sight = record_snapshot(office)
    exclude_all(office, sight)
    granted = reconcile_grants(office, tell)
    approved = approve_complete(office, sight) if approve else 0
    ordered = top_up(office, sight.standings, tell)
    return SyncResult(approved, granted, ordered)


# ------------------------------------------------------------------ what is in doubt


def reconcile_postings(office: RecruitingContext) -> None:
    """Find or place every order of which it is not known whether it was placed."""
    with office.reading() as session:
        numbers = unplaced(session)
    for number in numbers:
        with contextlib.suppress(UnknownWorkerError):
            place_order(office, number)


def reconcile_grants(office: RecruitingContext, tell: Tell = print) -> int:
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
            sent += _retry_payment(office, number)
        except UnknownOutcomeError:
            raise
        except MarketplaceError as error:
            tell(f"A payment written down earlier was not made: {error}")
    return sent


def _retry_payment(office: RecruitingContext, number: int) -> bool:
    """Send a grant unless it was paid; whether it was sent."""
    grant = _direct_payment(office, number)
    if grant is None:
        return False
    with _void_if_foreign(office, number):
        unpaid = not office.recruiter.has_paid(grant)
        if unpaid and _was_approved_instead(office, number):
            return False
        if unpaid:
            _record_retry(office, number)
            office.recruiter.bonus(grant)
    _settle(office, number)
    return unpaid


def _was_approved_instead(office: RecruitingContext, number: int) -> bool:
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
def _void_if_foreign(office: RecruitingContext, number: int) -> Iterator[None]:
    """Nothing is owed to somebody who came with another's submission: who takes part under many names is paid once."""
    try:
        yield
    except ForeignSubmissionError:
        with office.writing() as session:
            session.get_one(Payment, number).state = "void"
        raise


def _record_retry(office: RecruitingContext, number: int) -> None:
    """A grant is sent now: where a payment shows late, whether it was made is not asked sooner after this than then."""
    with office.writing() as session:
        session.get_one(Payment, number).intended_at = office.clock()


def _direct_payment(office: RecruitingContext, number: int) -> DirectPayment | None:
    with office.reading() as session:
        payment = session.get_one(Payment, number)
        told = _submission_at_marketplace(session, office, payment)
        others = ledger.same_payments(session, payment)
    if told is None:
        return None
    reason = payment.reason or THANKS
    return DirectPayment(payment.token, told, payment.cents, payment.kind, reason, others)  # type: ignore[arg-type]


def _submission_at_marketplace(session: Session, office: RecruitingContext, payment: Payment) -> Told | None:
    """The submission that a grant is for, with the marketplace's own ids."""
    if payment.assignment_id is None:
        return None
    assignment = session.get_one(Assignment, payment.assignment_id)
    who = recall(session, office.vault, assignment.listener)
    row = session.get(MarketplaceSubmission, payment.submission_id) if payment.submission_id else None
    if who is None or who.worker is None:
        raise MarketplaceError(f"who listener {assignment.listener.pseudonym} is, is not known any more.")
    if row is None or office.door.submission_key(who.worker, who.submission) == row.key:
        return Told(who.submission, who.worker, who.opening, row.status if row else "submitted")  # type: ignore[arg-type]
    for told in office.recruiter.submissions(row.opening).submissions:
        if submission_key(office, told) == row.key:
            return told
    raise MarketplaceError(
        f"the submission of listener {assignment.listener.pseudonym} is not at the marketplace any more."
    )


def _settle(office: RecruitingContext, number: int) -> None:
    with office.writing() as session:
        ledger.settle(session, session.get_one(Payment, number), office.clock())


# ------------------------------------------------------------------ what is due


@dataclass(frozen=True)
class DuePayment:
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


def all_due(session: Session, office: RecruitingContext) -> list[DuePayment]:
    """Everything that is owed and not paid or under way, by how it can be paid."""
    booked: dict[int | None, list[Payment]] = defaultdict(list)
    for one in session.scalars(select(Payment)):
        if is_under_way(session, one):
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


def is_under_way(session: Session, payment: Payment) -> bool:
    """Paid, decided, or pending and seen to; a pending approval is due again, and so is a place in vain."""
    if payment.state != "pending" or payment.opening_id is None:
        return True
    opening = session.get_one(Posting, payment.opening_id)
    return opening.owed_to is not None and opening.settled_at is None


def _due(
    session: Session,
    office: RecruitingContext,
    assignment: Assignment,
    rows: list[MarketplaceSubmission],
    kind: Kind,
    amount: int,
) -> DuePayment:
    at = office.recruiter.terms
    who = (assignment.id, assignment.pseudonym, kind)
    if at.by_hand:
        return DuePayment(*who, amount, 0, "by hand")
    submitted = next((row for row in rows if row.status == "submitted"), None)
    apart = at.screen_out_apart and kind != "reward"
    if submitted is not None and not apart and amount >= office.reward:
        opening = posting_of(session, submitted.opening)
        reward, fee = (opening.reward_cents, opening.fee_cents) if opening else (office.reward, office.fee)
        return DuePayment(*who, reward, fee, "approve", submitted.id)
    if rows and (at.pays_unsubmitted or apart) and (apart or not any(row.status in LIVE for row in rows)):
        return DuePayment(*who, amount, office.recruiter.fee(amount), "grant", rows[0].id)
    if any(row.status in LIVE for row in rows) or at.pays_unsubmitted:
        return DuePayment(*who, amount, office.recruiter.fee(amount), "wait")
    return DuePayment(*who, amount, office.recruiter.fee(amount), "place")


def approvable_by_override(session: Session, office: RecruitingContext) -> list[DuePayment]:
    """The submissions that are for a person to decide, as if they were complete."""
    found = []
    for row, assignment in needs_manual_review(session, office):
        opening = posting_of(session, row.opening)
        if assignment is not None and opening is not None:
            kind = ledger.due(assignment.state, office.config.pay)[0]
            who = (assignment.id, assignment.pseudonym, kind)
            found.append(DuePayment(*who, opening.reward_cents, opening.fee_cents, "approve", row.id))
    return found


def needs_manual_review(
    session: Session, office: RecruitingContext
) -> list[tuple[MarketplaceSubmission, Assignment | None]]:
    """Submissions that the database does not show complete: for a person to decide."""
    approvable = {one.submission for one in all_due(session, office) if one.how in ("approve", "grant")}
    owed = set(session.scalars(select(Posting.market_id).where(Posting.owed_to.is_not(None))))
    query = (
        select(MarketplaceSubmission)
        .where(MarketplaceSubmission.status == "submitted")
        .order_by(MarketplaceSubmission.id)
    )
    return [
        (row, session.get(Assignment, row.assignment_id) if row.assignment_id else None)
        for row in session.scalars(query)
        if row.id not in approvable and row.opening not in owed
    ]


# ------------------------------------------------------------------ paying


def approve_complete(office: RecruitingContext, sight: MarketplaceSnapshot) -> int:
    """Approve what was submitted and is complete here; how many were."""
    with office.reading() as session:
        due = [one for one in all_due(session, office) if one.how == "approve"]
    return approve_listed(office, sight, due) + _approve_owed(office, sight)


def approve_listed(office: RecruitingContext, sight: MarketplaceSnapshot, due: Iterable[DuePayment]) -> int:
    """Approve these; how many were."""
    return sum(_approve(office, sight, one) for one in due)


def _approve(office: RecruitingContext, sight: MarketplaceSnapshot, due: DuePayment) -> int:
    with office.writing() as session:
        row = session.get_one(MarketplaceSubmission, due.submission)
        told = sight.told.get(row.key)
        if told is None:
            return 0
        opening = posting_of(session, row.opening)
        assignment = session.get_one(Assignment, due.assignment)
        payment = ledger.record_pending(
            session, assignment, due.kind, due.cents, due.fee, office.clock(), submission=row, opening=opening
        )
        if payment.state != "pending" or payment.submission_id not in (row.id, None):
            return 0
        payment.submission_id, number = row.id, payment.id
    office.recruiter.approve(told)
    with office.writing() as session:
        ledger.settle(session, session.get_one(Payment, number), office.clock())
        session.get_one(MarketplaceSubmission, due.submission).status = "approved"
    return 1


def _approve_owed(office: RecruitingContext, sight: MarketplaceSnapshot) -> int:
    """Approve what was submitted at places made for one listener, whose payment is written down already."""
    with office.reading() as session:
        query = select(MarketplaceSubmission, Posting).join(Posting, MarketplaceSubmission.opening == Posting.market_id)
        rows = session.execute(
            query.where(MarketplaceSubmission.status == "submitted", Posting.owed_to.is_not(None))
        ).all()
        found = [(row.id, row.key, opening.id) for row, opening in rows]
    for submission, key, opening_id in found:
        if key not in sight.told:
            continue
        office.recruiter.approve(sight.told[key])
        with office.writing() as session:
            payment = session.scalar(select(Payment).where(Payment.opening_id == opening_id))
            row = session.get_one(MarketplaceSubmission, submission)
            row.status = "approved"
            if payment is not None:
                payment.submission_id = row.id
                ledger.settle(session, payment, office.clock())
    return len(found)


def pay_directly(
    office: RecruitingContext, assignment: int, kind: Kind, amount: int, reason: str, submission: int | None
) -> bool:
    """Pay a grant: written down, sent, written down again; whether it was sent.

    One that was written down before is left to `reconcile`, unless it was to be paid by an approval that came to
    nothing: the place was given back since.
    """
    with office.writing() as session:
        row = session.get(MarketplaceSubmission, submission) if submission else None
        fee = office.recruiter.fee(amount)
        who = session.get_one(Assignment, assignment)
        payment = ledger.find(session, who, kind)
        if payment is not None:
            if is_under_way(session, payment):
                return False
            # While its opening is not settled, that counts in full, and so will this beside it.
            if session.get_one(Posting, payment.opening_id).settled_at is None:
                ledger.require_budget(session, amount + fee)
            payment.opening_id, payment.cents, payment.fee_cents = None, amount, fee
            payment.submission_id, payment.intended_at = submission, office.clock()
        else:
            payment = ledger.record_pending(
                session, who, kind, amount, fee, office.clock(), submission=row, reason=reason
            )
        number = payment.id
    if not office.recruiter.terms.by_hand and (sent := _direct_payment(office, number)):
        with _void_if_foreign(office, number):
            office.recruiter.bonus(sent)
    _settle(office, number)
    return True


def record_manual_payments(office: RecruitingContext, paid: Iterable[tuple[int, Kind, int, str]]) -> int:
    """Write down, all or none, what was paid by hand: assignment, kind, cents, reason. How many were new.

    Raises:
        OverBudget: where the launch's budget has no room for it.
    """
    new = 0
    with office.writing() as session:
        for number, kind, amount, reason in paid:
            who, now = session.get_one(Assignment, number), office.clock()
            if ledger.find(session, who, kind) is None:
                ledger.settle(session, ledger.record_pending(session, who, kind, amount, 0, now, reason=reason), now)
                new += 1
    return new


def post_place_for(office: RecruitingContext, due: DuePayment) -> None:
    """Order one place for a listener who could not submit, worth what they are owed."""
    with office.writing() as session:
        ledger.require_budget(session, due.cost)
        assignment = session.get_one(Assignment, due.assignment)
        opening = Posting(
            token=ledger.new_token("owed"),
            places=1,
            reward_cents=due.cents,
            fee_cents=due.fee,
            owed_to=assignment.id,
            ordered_at=office.clock(),
        )
        session.add(opening)
        session.flush()
        payment = ledger.record_pending(
            session, assignment, due.kind, due.cents, due.fee, office.clock(), opening=opening
        )
        payment.opening_id, number = opening.id, opening.id  # an earlier place was not taken in time
    place_order(office, number)


def paid_submission(session: Session, assignment: Assignment) -> int | None:
    """The submission that a bonus goes with: the one that was paid, or the last that was handed in."""
    paid = select(Payment.submission_id).where(
        Payment.assignment_id == assignment.id, Payment.submission_id.is_not(None), Payment.state == "paid"
    )
    if (found := session.scalar(paid.limit(1))) is not None:
        return found
    handed_in = MarketplaceSubmission.status.in_(("submitted", "approved"))
    query = select(MarketplaceSubmission.id).where(MarketplaceSubmission.assignment_id == assignment.id, handed_in)
    return session.scalar(query.order_by(MarketplaceSubmission.id.desc()).limit(1))


def all_paid(session: Session) -> list[Payment]:
    """Every payment that was made, oldest first."""
    return list(session.scalars(select(Payment).where(Payment.state == "paid").order_by(Payment.id)))


def is_over(session: Session) -> bool:
    """Whether every place is filled and nothing waits to be paid or settled."""
    waiting = select(Posting.id).where(Posting.settled_at.is_(None)).limit(1)
    unfilled = select(Place.id).where(~Place.filled).limit(1)
    return session.scalar(unfilled) is None and session.scalar(waiting) is None and not ledger.pending(session)


def exclude_all(office: RecruitingContext, sight: MarketplaceSnapshot) -> None:
    """Mark everybody who took a place, so that none is offered another."""
    with office.reading() as session:
        launch = ledger.launch(session)
        query = select(MarketplaceSubmission).where(~MarketplaceSubmission.excluded)
        rows = [(row.id, row.key, row.assignment_id) for row in session.scalars(query)]
    assert launch is not None
    for number, key, assignment in rows:
        worker = _worker_of(office, sight, key, assignment)
        if worker:
            with contextlib.suppress(UnknownWorkerError):  # anybody may write any id into an address
                office.recruiter.exclude(worker, launch.name)
        with office.writing() as session:
            session.get_one(MarketplaceSubmission, number).excluded = True


def _worker_of(office: RecruitingContext, sight: MarketplaceSnapshot, key: str, assignment: int | None) -> str | None:
    if key in sight.told:
        return sight.told[key].worker
    if assignment is None:
        return None
    with office.reading() as session:
        who = recall(session, office.vault, session.get_one(Assignment, assignment).listener)
    return who.worker if who else None
