"""Places at the marketplace: ordering, replacing those that are missing, closing.

A posting is recorded with its token before it is ordered, so that after a crash the order is found by its token and
never placed twice. Every step is a transaction of its own. Only one of these programs runs for a study at a time
(server.recruiting.exclusive).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from embeddings.wording import counted
from server.audit import study_control
from server.db.enums import PaymentState, SubmissionStatus
from server.db.models import ACTIVE, COMPLETED, Assignment, MarketplaceSubmission, Payment, Place, Posting
from server.identity.vault import load_identity
from server.payments import ledger
from server.payments.fees import MILLION, split
from server.payments.formatting import as_money
from server.recruiting.context import RecruitingContext, Report
from server.recruiting.marketplaces.base import (
    MarketplaceError,
    OrderRefusedError,
    PostingOrder,
    PostingStatus,
    UnknownWorkerError,
)
from server.recruiting.snapshot import screen_out_cost

DRAFT = "draft"  # begins the token of an order for a draft


@dataclass(frozen=True)
class PlaceSupply:
    """Places of the study that nobody has filled, and the places for them at the marketplace."""

    unfilled: int
    free: int
    held: int

    @property
    def missing(self) -> int:
        return max(self.unfilled - self.free - self.held, 0)


def supply(session: Session, postings: Mapping[str, PostingStatus]) -> PlaceSupply:
    """Count places, so that a returned place is not ordered again while the marketplace still offers it."""
    unfilled = session.scalar(select(func.count()).select_from(Place).where(~Place.filled)) or 0
    owed = set(session.scalars(select(Posting.market_id).where(Posting.owed_to.is_not(None))))
    own = {id_: status for id_, status in postings.items() if id_ not in owed}
    held = sum(status.held for status in own.values())
    # A listener whose run ended but who has not submitted holds a place there; no place of the study waits for it. One
    # who did not finish gives it back, so where it is then offered again, none is ordered in its stead.
    refilled = {id_ for id_, status in own.items() if status.refills}
    ended = (
        select(func.count())
        .select_from(MarketplaceSubmission)
        .join(Assignment, MarketplaceSubmission.assignment_id == Assignment.id)
        .where(
            MarketplaceSubmission.status == SubmissionStatus.HELD,
            MarketplaceSubmission.listed,  # an invented one holds no place there
            Assignment.state.not_in(ACTIVE),
            MarketplaceSubmission.opening.in_(own),
            MarketplaceSubmission.opening.not_in(refilled) | Assignment.state.in_(COMPLETED),
        )
    )
    done = min(session.scalar(ended) or 0, held)
    return PlaceSupply(unfilled, sum(status.free for status in own.values()), held - done)


def batches(missing: int, most: int | None) -> list[int]:
    """Sizes of the postings for this many places, if one posting has at most `most` places."""
    if most is None:
        return [missing] if missing else []
    return [most] * (missing // most) + ([missing % most] if missing % most else [])


def affordable(session: Session, context: RecruitingContext, missing: int) -> int:
    """How many of the missing places the budget allows."""
    unit = context.reward + context.exact_fee
    return min(missing, ledger.affordable(session, unit)) if unit else missing


def is_recruiting(session: Session, context: RecruitingContext) -> bool:
    """Whether places are ordered automatically now."""
    launch = ledger.launch(session)
    opens = not context.marketplace.capabilities.opens_by_hand
    return launch is not None and launch.closed_at is None and opens and study_control.control(session).recruiting


def order_missing_places(
    context: RecruitingContext, postings: Mapping[str, PostingStatus], report: Report, *, draft: bool = False
) -> int:
    """Order the missing places, as far as the budget allows; returns how many were ordered.

    Nothing is ordered while a posting takes no order, because it is paused or not yet open. `draft`: order them in a
    posting that nobody sees yet.
    """
    with context.reading() as session:
        if not is_recruiting(session, context):
            return 0
        missing = supply(session, postings).missing
        wanted = affordable(session, context, missing)
    if missing and any(not status.orderable for status in postings.values()):
        return 0
    for places in batches(wanted, context.marketplace.capabilities.batch):
        order_places(context, places, draft=draft)
    if wanted < missing:
        unit = as_money(context.reward + context.fee)
        more = "1 more place is" if missing - wanted == 1 else f"{missing - wanted} more places are"
        report(f"{more} needed, at {unit} each, and the budget is spent: open --budget AMOUNT.")
    return wanted


def report_notes(context: RecruitingContext, postings: Mapping[str, PostingStatus], report: Report) -> None:
    """Say what a person has to do at the marketplace so that the missing listeners can come."""
    with context.reading() as session:
        needed = is_recruiting(session, context) and supply(session, postings).unfilled > 0
    for status in postings.values() if needed else ():
        if status.note:
            report(status.note)


# ------------------------------------------------------------------ ordering


def order_places(context: RecruitingContext, places: int, *, draft: bool = False) -> None:
    """Order one posting: recorded, ordered, recorded again.

    Where the researcher pays by hand, a place has no price in the ledger: each payment counts when it is recorded. The
    launch's first posting also pays some screen-outs by itself, where the marketplace can and the budget allows.
    """
    by_hand = context.marketplace.capabilities.pays_by_hand
    reward, fee = (0, Fraction(0)) if by_hand else (context.reward, context.exact_fee)
    fee_cents, rest = split(fee)
    with context.reading() as session:
        is_first = session.scalar(select(Posting.id).where(Posting.owed_to.is_(None)).limit(1)) is None
    marketplace = context.marketplace
    pays = is_first and marketplace.screen_out_plan().cents and marketplace.screen_out_plan(ask=True).way == "by_itself"
    with context.writing() as session:
        ledger.require_budget(session, places * (reward + fee))
        posting = Posting(
            token=ledger.new_token(DRAFT if draft else "places"),
            places=places,
            reward_cents=reward,
            fee_cents=fee_cents,
            fee_millionths=rest,
            ordered_at=context.clock(),
        )
        session.add(posting)
        session.flush()
        if pays:
            cost = screen_out_cost(context)
            can_pay = ledger.affordable(session, Fraction(cost, MILLION))
            posting.screen_outs, posting.screen_out_cost = min(expected_screen_outs(places), can_pay), cost
        number = posting.id
    place_order(context, number)


def expected_screen_outs(places: int) -> int:
    """How many screen-outs are paid for beforehand: a quarter of the places, and at least 3."""
    return max(-(-places // 4), 3)


def allow_more_screen_outs(context: RecruitingContext, postings: Mapping[str, PostingStatus], report: Report) -> None:
    """Let a posting go on that has paused because all its screen-outs are used, as far as the budget allows."""
    for market_id, status in postings.items():
        if not status.used_up:
            continue
        with context.writing() as session:
            found = supply(session, postings)
            if not is_recruiting(session, context) or found.unfilled <= found.held:
                continue
            cost = screen_out_cost(context)
            more = min(
                expected_screen_outs(found.unfilled - found.held), ledger.affordable(session, Fraction(cost, MILLION))
            )
            if more:
                query = select(Posting).where(Posting.market_id == market_id, Posting.settled_at.is_(None))
                posting = session.scalars(query.order_by(Posting.id)).first()
                assert posting is not None, "a settled posting is not asked about"
                posting.screen_outs = number = status.screen_outs + more
        if not more:
            report("The study has paused because all paid screen-outs are used and the budget is spent: open --budget.")
            continue
        context.marketplace.allow_screen_outs(market_id, number)
        report(f"{counted(status.screen_outs, 'screen-out')} used; {more} more may be paid, and the study goes on.")


def record_manual_posting(context: RecruitingContext) -> None:
    """Record the posting that the researcher makes by hand, unless one is open: arriving workers are then known."""
    with context.reading() as session:
        is_open = session.scalar(select(Posting.id).where(Posting.closed_at.is_(None)).limit(1)) is not None
        places = session.scalar(select(func.count()).select_from(Place).where(~Place.filled)) or 0
    if places and not is_open:
        order_places(context, places)


def place_order(context: RecruitingContext, number: int) -> None:
    """Place the order of a recorded posting; an order that was placed before is found by its token.

    Raises:
        UnknownWorkerError: if it was for one worker, who is unknown to the marketplace; nothing is owed then.
        OrderRefusedError: if it can never be placed; nothing is ordered then.
    """
    with context.reading() as session:
        order = order_of(session, context, session.get_one(Posting, number))
    try:
        draft = order.token.startswith(f"{DRAFT}-")
        market_id = context.marketplace.draft(order) if draft else context.marketplace.open(order)
    except (UnknownWorkerError, OrderRefusedError):
        with context.writing() as session:
            _cancel(session, context, session.get_one(Posting, number))
        raise
    with context.writing() as session:
        session.get_one(Posting, number).market_id = market_id


def _cancel(session: Session, context: RecruitingContext, posting: Posting) -> None:
    posting.market_id, posting.screen_outs = f"none-{posting.id}", 0
    posting.closed_at = posting.settled_at = context.clock()
    for payment in session.scalars(select(Payment).where(Payment.opening_id == posting.id)):
        payment.state = PaymentState.VOID


def order_of(session: Session, context: RecruitingContext, posting: Posting) -> PostingOrder:
    """The order of a recorded posting, as the marketplace gets it."""
    launch = ledger.launch(session)
    assert launch is not None
    cancelled = Posting.market_id.is_not(None) & Posting.market_id.startswith("none-")
    earlier = (Posting.id <= posting.id, Posting.owed_to.is_(None), ~func.coalesce(cancelled, False))
    before = select(func.coalesce(func.sum(Posting.places), 0)).where(*earlier)
    allowed = select(func.coalesce(func.sum(Posting.screen_outs), 0)).where(*earlier)
    minutes, url, only_for = context.config.pay.minutes, context.url, ""
    if posting.owed_to is not None:
        assignment = session.get_one(Assignment, posting.owed_to)
        who = load_identity(session, context.vault, assignment.listener)
        if who is None or who.worker is None:
            raise MarketplaceError(f"the identity of listener {assignment.listener.pseudonym} is no longer stored.")
        only_for, url = who.worker, f"{context.url}?owed=1"
    total = posting.places if only_for else int(session.scalar(before) or posting.places)
    screen_outs = 0 if only_for else int(session.scalar(allowed) or 0)
    reward = context.reward if context.marketplace.capabilities.pays_by_hand else posting.reward_cents
    names = (posting.token, launch.name, posting.places, total)
    return PostingOrder(*names, reward, url, minutes, only_for, screen_outs, launch.code_key or "")


def unplaced(session: Session) -> list[int]:
    """Postings in unknown state: recorded, and perhaps ordered."""
    return list(session.scalars(select(Posting.id).where(Posting.market_id.is_(None)).order_by(Posting.id)))


# ------------------------------------------------------------------ closing


def publish_drafts(context: RecruitingContext) -> None:
    """Show every draft of the launch to workers."""
    with context.reading() as session:
        query = select(Posting.market_id).where(Posting.settled_at.is_(None), Posting.market_id.is_not(None))
        found = sorted({str(one) for one in session.scalars(query.where(Posting.owed_to.is_(None)))})
    for market_id in found if context.marketplace.capabilities.has_drafts else ():
        context.marketplace.publish(market_id)


def close_postings(context: RecruitingContext, postings: Mapping[str, PostingStatus] | None = None) -> int:
    """Close every open posting, at the marketplace too; returns how many were open.

    `postings`: a closed one that offers places all the same, because somebody returned theirs, is closed again.
    """
    offered = [id_ for id_, status in (postings or {}).items() if status.free and not status.draft]
    with context.reading() as session:
        query = select(Posting.market_id).where(Posting.market_id.is_not(None), Posting.owed_to.is_(None))
        still_open = Posting.closed_at.is_(None) | Posting.market_id.in_(offered)
        found = sorted({str(one) for one in session.scalars(query.where(still_open))})
    for market_id in found:
        context.marketplace.close(market_id)
        status = (postings or {}).get(market_id)
        with context.writing() as session:
            rows = select(Posting).where(Posting.market_id == market_id, Posting.closed_at.is_(None))
            for posting in session.scalars(rows):
                if status is not None and status.draft:
                    _cancel(session, context, posting)  # nobody ever saw it; a later order may use the draft
                    continue
                posting.closed_at = context.clock()
                if not context.marketplace.capabilities.lists_submissions:
                    posting.settled_at = posting.closed_at  # the marketplace reports nothing more
    return len(found)
