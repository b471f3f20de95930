"""A launch as a draft: the study exists at the marketplace, nobody sees it there, and it costs nothing.

The launch is recorded first, without a budget, and its name is the draft's at the marketplace: a program that dies
after making the draft finds it by that name. No place is ordered, so `sync` neither publishes the draft nor adds to it.
`open` orders the places, which finds the draft and publishes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from embeddings.errors import RootnoteError
from server.audit import study_control
from server.audit.actor import current_actor
from server.db.models import Place, Posting
from server.payments import ledger
from server.recruiting import launch
from server.recruiting.context import RecruitingContext
from server.recruiting.marketplaces.base import MarketplaceError, PostingOrder


@dataclass(frozen=True)
class LaunchDraft:
    """A draft at the marketplace: its id, where a researcher looks at it, and its places."""

    id: str
    address: str
    places: int


def require_drafts(context: RecruitingContext) -> None:
    """Refuse a marketplace without drafts, and a study that is open already.

    Raises:
        RootnoteError: with the reason.
    """
    marketplace = context.marketplace
    if not marketplace.capabilities.has_drafts:
        raise MarketplaceError(
            f"{marketplace.capabilities.name} has no drafts; leave out --draft, and use --dry-run to see the cost."
        )
    with context.reading() as session:
        if session.scalar(select(Posting.id).limit(1)) is not None:
            raise RootnoteError(
                f"the study is open on {marketplace.capabilities.name} already, so it cannot become a draft again."
            )


def make_draft(context: RecruitingContext, schedule: str, *, live: bool) -> LaunchDraft:
    """Record the launch and make its draft; a draft that exists is brought up to date."""
    with context.writing() as session:
        launch.begin(session, context, schedule, live=live, budget=0)
        found = ledger.launch(session)
        assert found is not None
        name = found.name
        places = session.scalar(select(func.count()).select_from(Place).where(~Place.filled)) or 0
    order = PostingOrder(
        f"draft-{name}"[:64], name, places, places, context.reward, context.url, context.config.pay.minutes
    )
    made = context.marketplace.draft(order)
    with context.writing() as session:
        study_control.write_log(
            session, current_actor(), "made a draft", context.clock(), detail=f"{places} places, {made}"
        )
    return LaunchDraft(made, context.marketplace.draft_address(made), places)
