"""Opening a study's places: what it will cost, whether that is possible, and doing it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.assignments.experiment import Experiment
from server.assignments.places import sync_places
from server.audit import study_control
from server.audit.actor import current_actor
from server.payments import ledger
from server.payments.formatting import NO_LIMIT, dollars
from server.recruiting import launch
from server.recruiting.context import RecruitingContext, Report
from server.recruiting.payment_audit import logged
from server.recruiting.postings import batches, record_manual_posting, supply
from server.recruiting.snapshot import record_snapshot
from server.recruiting.sync import SyncResult, reconcile_postings, synchronize
from study.config import cents
from study.trial_plan import Plan


@dataclass(frozen=True)
class OpeningCost:
    """The cost of opening the missing places, in cents.

    Attributes:
        places: how many places are missing.
        postings: how many postings they need.
        reward, fee: of one place.
        single: the cost of all places in one posting, if that is more expensive (else None).
        screen_out: the cost of a listener who fails the prescreen, if that is not paid separately (else 0).
        committed: the most that the launch costs without these places.
        budget: the most that the launch may cost.
        balance: of the account; None if it is not known.
    """

    places: int
    postings: int
    reward: int
    fee: int
    single: int | None
    screen_out: int
    committed: int
    budget: int
    balance: int | None

    @property
    def cost(self) -> int:
        return self.places * (self.reward + self.fee)


def prepare_places(context: RecruitingContext, plan: Plan, *, rehearsal: bool) -> None:
    """Make the study's places in the database, as many as the design says."""
    with context.writing() as session:
        sync_places(session, Experiment(context.config, plan, context.clock, rehearsal=rehearsal))


def open_by_hand(context: RecruitingContext, schedule: str, *, live: bool, budget: int | None) -> None:
    """Record a launch whose study the researcher posts; without a budget there is no limit."""
    most = budget or _study_budget(context) or NO_LIMIT
    with context.writing() as session:
        launch.begin(session, context, schedule, live=live, budget=most)
        _resume(session, context)
    if context.marketplace.capabilities.has_arrivals:
        record_manual_posting(context)


def estimate_cost(
    context: RecruitingContext, budget: int | None, balance: int | None, *, dry_run: bool = False
) -> OpeningCost:
    """The cost of opening the missing places; the state of the open ones is fetched from the marketplace."""
    with context.reading() as session:
        launched = ledger.launch(session) is not None
    if launched and not dry_run:
        reconcile_postings(context)
    postings = record_snapshot(context).postings
    with context.reading() as session:
        missing = supply(session, postings).missing
        committed, found = ledger.committed(session), ledger.launch(session)
    marketplace, batch = context.marketplace, context.marketplace.capabilities.batch
    screened = cents(context.config.pay.screened_out_usd)
    separately = marketplace.capabilities.screens_out_separately
    single = marketplace.fee(context.reward, missing) if batch and missing >= 10 else 0
    most = budget or _study_budget(context) or 0
    return OpeningCost(
        places=missing,
        postings=len(batches(missing, batch)),
        reward=context.reward,
        fee=context.fee,
        single=missing * (context.reward + single) if single > context.fee else None,
        screen_out=screened + marketplace.fee(screened) if screened and not separately else 0,
        committed=committed,
        budget=max(most, found.budget_cents if found else 0) or committed + missing * (context.reward + context.fee),
        balance=balance,
    )


def require_affordable(found: OpeningCost) -> None:
    """Refuse what the budget or the account cannot pay.

    Raises:
        RootnoteError: with the amounts.
    """
    if found.committed + found.cost > found.budget:
        raise RootnoteError(
            f"{counted(found.places, 'place')} would bring the launch to {dollars(found.committed + found.cost)}, "
            f"above its budget of {dollars(found.budget)}; raise it with --budget, or lower design.listeners in "
            "study.toml."
        )
    if found.balance is not None and found.balance < found.cost:
        raise RootnoteError(
            f"the account has {dollars(found.balance)} and {dollars(found.cost)} are needed; add money to it first."
        )


def open_places(
    context: RecruitingContext, schedule: str, found: OpeningCost, *, live: bool, report: Report
) -> SyncResult:
    """Record the launch and order the missing places."""
    with context.writing() as session:
        launch.begin(session, context, schedule, live=live, budget=found.budget)
        _resume(session, context)
    money = "REAL money" if live else "no real money"
    with logged(context, "opened places", f"{money}, budget {dollars(found.budget)}"):
        return synchronize(context, report=report)


def _study_budget(context: RecruitingContext) -> int | None:
    usd = context.config.pay.budget_usd
    return None if usd is None else cents(usd)


def _resume(session: Session, context: RecruitingContext) -> None:
    try:
        study_control.resume(session, current_actor(), "opened from the command line", context.clock())
    except study_control.ControlRefusedError as error:
        raise RootnoteError(str(error)) from None
