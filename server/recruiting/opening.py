"""Opening a study's places: what it will cost, whether that is possible, and doing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.assignments.experiment import Experiment
from server.assignments.places import sync_places
from server.audit import study_control
from server.audit.actor import current_actor
from server.payments import ledger
from server.payments.fees import rounded, rounded_up
from server.payments.formatting import NO_LIMIT, as_exact_money, as_money
from server.recruiting import launch
from server.recruiting.context import RecruitingContext, Report
from server.recruiting.marketplaces.base import PostingStatus, ScreenOutPlan
from server.recruiting.payment_audit import logged
from server.recruiting.postings import (
    batches,
    expected_screen_outs,
    order_missing_places,
    publish_drafts,
    record_manual_posting,
    supply,
)
from server.recruiting.readiness import require_payable
from server.recruiting.snapshot import record_snapshot
from server.recruiting.sync import SyncResult, reconcile_postings, synchronize
from study.config import cents
from study.trial_plan import Plan


@dataclass(frozen=True)
class OpeningCost:
    """The cost of opening the missing places; in cents, where nothing else is said.

    Attributes:
        places: how many places are missing.
        postings: how many postings they need.
        reward: of one place.
        exact_fee: on it, at full precision.
        single: the cost of all places in one posting, if that is more expensive (else None).
        screen_out: the cost of a listener who fails the prescreen, if the marketplace pays it (else 0).
        screen_outs: how many screen-outs the marketplace may pay by itself, which are paid for beforehand.
        screen_out_plan: how those who are screened out are paid.
        audience: how many workers pass the study's filters now; None if it is not known.
        notes: what the account may not use, one sentence each.
        drafted: places in a draft, which opening publishes, and `drafted_screen_outs`; they are in `committed`.
        committed: the most that the launch costs without these places.
        budget: the most that the launch may cost.
        balance: of the account; None if it is not known.
    """

    places: int
    postings: int
    reward: int
    exact_fee: Fraction
    single: int | None
    screen_out: int
    screen_outs: int
    screen_out_plan: ScreenOutPlan
    audience: int | None
    notes: tuple[str, ...]
    drafted: int
    drafted_screen_outs: int
    committed: int
    budget: int
    balance: int | None

    @property
    def fee(self) -> int:
        """The fee on one place, rounded to the cent."""
        return rounded(self.exact_fee)

    @property
    def fee_text(self) -> str:
        """The fee on one place, with fractions of a cent if it has any."""
        return as_exact_money(self.exact_fee)

    @property
    def cost(self) -> int:
        """What the places cost, fees included."""
        return rounded(self.places * (self.reward + self.exact_fee))

    @property
    def drafted_cost(self) -> int:
        """What the places of the draft cost, fees included."""
        return rounded(self.drafted * (self.reward + self.exact_fee))

    @property
    def maximum(self) -> int:
        """What the places and all screen-outs that are paid for beforehand cost at most, with those of the draft."""
        return self.cost + self.drafted_cost + (self.screen_outs + self.drafted_screen_outs) * self.screen_out

    def remarks(self) -> list[str]:
        """What else the researcher should know before the launch, one line each."""
        outs = self.screen_outs + self.drafted_screen_outs
        most = f"at most {as_money(self.maximum)} with {counted(outs, 'screen-out')}"
        people = f"{counted(self.audience or 0, 'person passes', 'people pass')} the filters of study.toml now"
        lines = [self.screen_out_plan.sentence, most if outs else "", *self.notes]
        return [line for line in (*lines, people if self.audience is not None else "") if line]


def require_openable(context: RecruitingContext) -> None:
    """Refuse to open a study that was changed since its launch, or whose pay the marketplace cannot make.

    Raises:
        RootnoteError: naming the problem.
    """
    launch.require_promises_kept(context)
    require_payable(context.config, context.marketplace)


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
    return _cost(context, missing, postings, committed, found.budget_cents if found else 0, budget, balance, dry_run)


def _cost(
    context: RecruitingContext,
    missing: int,
    postings: Mapping[str, PostingStatus],
    committed: int,
    earlier_budget: int,
    budget: int | None,
    balance: int | None,
    dry_run: bool,
) -> OpeningCost:
    marketplace, batch = context.marketplace, context.marketplace.capabilities.batch
    plan = marketplace.screen_out_plan(
        ask=not dry_run and not postings, pays=any(status.screen_outs for status in postings.values())
    )
    unit, screen_out = context.reward + context.exact_fee, _screen_out(context, plan)
    single = marketplace.fee(context.reward, missing) if batch and missing >= 10 else 0
    cost = rounded(missing * unit)
    paid_there = plan.cents and missing and not postings
    screen_outs = expected_screen_outs(missing) if paid_there else 0
    wanted = max(budget or _study_budget(context) or 0, earlier_budget)
    if wanted and screen_out:
        screen_outs = max(min(screen_outs, (wanted - committed - cost) // screen_out), 0)
    return OpeningCost(
        places=missing,
        postings=len(batches(missing, batch)),
        reward=context.reward,
        exact_fee=context.exact_fee,
        single=missing * (context.reward + single) if single > context.fee else None,
        screen_out=screen_out,
        screen_outs=screen_outs,
        screen_out_plan=plan,
        audience=None if dry_run else marketplace.audience(),
        notes=marketplace.notes(),
        drafted=sum(status.free for status in postings.values() if status.draft),
        drafted_screen_outs=sum(status.screen_outs for status in postings.values() if status.draft),
        committed=committed,
        budget=wanted or committed + cost + screen_outs * screen_out,
        balance=balance,
    )


def _screen_out(context: RecruitingContext, plan: ScreenOutPlan) -> int:
    """What a listener who fails the prescreen costs at the marketplace, fees included; 0 if it is not paid there."""
    amount = cents(context.config.pay.screened_out)
    if plan.way == "approve":
        amount = context.reward
    return rounded_up(amount + context.marketplace.exact_fee(amount)) if amount else 0


def require_affordable(found: OpeningCost) -> None:
    """Refuse what the budget or the account cannot pay.

    Raises:
        RootnoteError: with the amounts.
    """
    if found.committed + found.cost > found.budget:
        raise RootnoteError(
            f"{counted(found.places, 'place')} would bring the launch to {as_money(found.committed + found.cost)}, "
            f"above its budget of {as_money(found.budget)}; raise it with --budget, or lower design.listeners in "
            "study.toml."
        )
    if found.balance is not None and found.balance < found.maximum:
        raise RootnoteError(
            f"the account has {as_money(found.balance)} and {as_money(found.maximum)} are needed; "
            "add money to it first."
        )


def open_places(
    context: RecruitingContext, schedule: str, found: OpeningCost, *, live: bool, report: Report
) -> SyncResult:
    """Record the launch, publish its draft if there is one, and order the missing places."""
    with context.writing() as session:
        launch.begin(session, context, schedule, live=live, budget=found.budget)
        _resume(session, context)
    money = "REAL money" if live else "no real money"
    with logged(context, "opened places", f"{money}, budget {as_money(found.budget)}"):
        publish_drafts(context)
        return synchronize(context, report=report)


def draft_places(
    context: RecruitingContext, schedule: str, found: OpeningCost, *, live: bool, report: Report
) -> list[str]:
    """Record the launch and make its places as a draft; returns the marketplace's ids. `open_places` publishes it.

    Raises:
        RootnoteError: if the marketplace has no drafts.
    """
    if not context.marketplace.capabilities.has_drafts:
        raise RootnoteError(f"{context.marketplace.capabilities.name} has no drafts; open the study without --draft.")
    with context.writing() as session:
        launch.begin(session, context, schedule, live=live, budget=found.budget)
        _resume(session, context)
    money = "REAL money" if live else "no real money"
    with logged(context, "drafted places", f"{money}, budget {as_money(found.budget)}"):
        reconcile_postings(context, report)
        order_missing_places(context, record_snapshot(context).postings, report, draft=True)
        postings = record_snapshot(context).postings
    return [id_ for id_, status in postings.items() if status.draft]


def _study_budget(context: RecruitingContext) -> int | None:
    usd = context.config.pay.budget
    return None if usd is None else cents(usd)


def _resume(session: Session, context: RecruitingContext) -> None:
    try:
        study_control.resume(session, current_actor(), "opened from the command line", context.clock())
    except study_control.ControlRefusedError as error:
        raise RootnoteError(str(error)) from None
