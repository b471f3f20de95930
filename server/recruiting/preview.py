"""A launch before it happens: places, cost, hourly pay and what is missing. Nothing is written and nobody is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from sqlalchemy import func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from server.db.models import Launch, Place, Posting
from server.db.read_only import open_read_only
from server.payments import ledger
from server.payments.fees import rounded, rounded_up
from server.recruiting.marketplaces.base import Marketplace, ScreenOutPlan
from server.recruiting.postings import batches, expected_screen_outs
from server.recruiting.readiness import missing_before_launch
from study.config import Study, cents


@dataclass(frozen=True)
class RecordedLaunch:
    """What the database knows of a launch that began before."""

    began_at: datetime
    budget: int
    ordered: int
    filled: int


@dataclass(frozen=True)
class LaunchPreview:
    """What opening a study costs and asks; money in cents, exact where it is a fraction.

    Attributes:
        places, postings: how many.
        reward, fee: of one place.
        total: of all places, with fees.
        single: the cost of all places in one posting, if that is more expensive.
        screen_out: the cost of a listener who fails the prescreen.
        screen_outs: how many the marketplace may pay by itself, as far as the budget allows; the first order pays them.
        screen_out_plan: how they are paid, if there is a choice.
        minutes, limit: how long a run is expected to take, and may take at most (None: no limit).
        hourly: the pay for an hour.
        minimum: what the marketplace demands for an hour (None: nothing).
        budget: the most that the launch may cost (None: no limit).
        recorded: the launch that the database knows.
        missing: what is still to do, one sentence each.
    """

    places: int
    postings: int
    reward: int
    fee: Fraction
    total: int
    single: int | None
    screen_out: int
    screen_outs: int
    screen_out_plan: str
    minutes: float
    limit: int | None
    hourly: int
    minimum: int | None
    budget: int | None
    recorded: RecordedLaunch | None
    missing: tuple[str, ...]


def preview_launch(
    study: Study,
    marketplace: Marketplace,
    environment: Mapping[str, str],
    database: URL | None,
    budget: int | None = None,
    *,
    rehearsal: bool = False,
) -> LaunchPreview:
    """Compute the preview from the study alone, and from the database if there is one.

    Args:
        database: where the study's answers are; None if the environment does not say it properly.
        budget: the most that the launch may cost, if it was given.
        rehearsal: nobody is invited, so nothing can be missing.
    """
    config, pay = study.config, study.config.pay
    places = config.design.listener_count * len(config.embedding.embedders)
    reward, batch = cents(pay.reward), marketplace.capabilities.batch
    fee = marketplace.exact_fee(reward, batch or 1)
    total = rounded(places * (reward + fee))
    plan = marketplace.screen_out_plan()
    whole = places * (reward + marketplace.fee(reward, places)) if batch and places > batch else 0
    screen_out = _screen_out_cost(marketplace, plan, reward, cents(pay.screened_out))
    if budget is None and pay.budget is not None:
        budget = cents(pay.budget)
    screen_outs = expected_screen_outs(places) if plan.cents else 0
    if budget is not None and screen_outs:
        screen_outs = max(min(screen_outs, (budget - total) // screen_out), 0)
    if budget is None and not marketplace.capabilities.pays_by_hand:
        budget = total + screen_outs * screen_out
    minutes = max(pay.minutes, marketplace.estimated_minutes(pay.minutes))
    return LaunchPreview(
        places=places,
        postings=len(batches(places, batch)),
        reward=reward,
        fee=fee,
        total=total,
        single=whole if whole > total else None,
        screen_out=screen_out,
        screen_outs=screen_outs,
        screen_out_plan=plan.sentence,
        minutes=minutes,
        limit=marketplace.time_limit(pay.minutes),
        hourly=round(reward * 60 / minutes),
        minimum=config.recruiter.minimum_hourly,
        budget=budget,
        recorded=None if database is None else recorded_launch(database),
        missing=() if rehearsal else tuple(missing_before_launch(study, marketplace, environment)),
    )


def _screen_out_cost(marketplace: Marketplace, plan: ScreenOutPlan, reward: int, promised: int) -> int:
    """What a listener who fails the prescreen costs, with the fee."""
    amount = reward if plan.way == "approve" else promised
    if marketplace.capabilities.pays_by_hand or not amount:
        return amount
    return rounded_up(amount + marketplace.exact_fee(amount, marketplace.capabilities.batch or 1))


def recorded_launch(url: URL) -> RecordedLaunch | None:
    """The launch in a database, which is only read; None if there is none, or no database that can be read."""
    engine = open_read_only(url)
    if engine is None:
        return None
    try:
        with Session(engine) as session:
            found = ledger.launch(session)
            return None if found is None else _recorded(session, found)
    except DBAPIError:  # cannot be reached, or has no tables yet
        return None
    finally:
        engine.dispose()


def _recorded(session: Session, found: Launch) -> RecordedLaunch:
    ordered = select(func.coalesce(func.sum(Posting.places), 0)).where(Posting.owed_to.is_(None))
    filled = select(func.count()).select_from(Place).where(Place.filled)
    counted = (int(session.scalar(query) or 0) for query in (ordered, filled))
    return RecordedLaunch(found.began_at, found.budget_cents, *counted)
