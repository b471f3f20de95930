"""A launch as a draft: the study exists at the marketplace, nobody sees it there, and it costs nothing.

The order is recorded before the draft is made, under a token that marks it as a draft's: a program that dies finds the
draft again, and `sync` does not publish it. Until it is published nobody was promised anything, so study.toml may
change and `open --draft` brings the draft up to date. `open` publishes only what the last `open --draft` made.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, select

from embeddings.errors import RootnoteError
from server.db.models import Posting
from server.payments import ledger
from server.payments.fees import split
from server.recruiting import launch, opening
from server.recruiting.context import RecruitingContext, Report
from server.recruiting.marketplaces.base import MarketplaceError, PostingOrder
from server.recruiting.postings import DRAFT, order_of


@dataclass(frozen=True)
class LaunchDraft:
    """A draft at the marketplace: where a researcher looks at it, and its places."""

    address: str
    places: int


def require_drafts(context: RecruitingContext) -> None:
    """Refuse a marketplace without drafts, and a study that is open already.

    Raises:
        RootnoteError: with the reason.
    """
    name = context.marketplace.capabilities.name
    if not context.marketplace.capabilities.has_drafts:
        raise MarketplaceError(f"{name} has no drafts; leave out --draft, and use --dry-run to see the cost.")
    with context.reading() as session:
        if launch.is_promised(session, context):
            raise RootnoteError(f"the study is open on {name} already, so it cannot become a draft again.")


def follow_study(context: RecruitingContext) -> None:
    """Let orders for drafts have the pay that study.toml says now; their budget is not confirmed yet."""
    with context.writing() as session:
        found = list(session.scalars(select(Posting).where(*_is_draft())))
        for posting in found:
            posting.reward_cents = context.reward
            posting.fee_cents, posting.fee_millionths = split(context.exact_fee)
        recorded = ledger.launch(session, lock=True)
        if found and recorded is not None:
            recorded.budget_cents = 0


def make_draft(
    context: RecruitingContext, schedule: str, cost: opening.OpeningCost, *, live: bool, report: Report
) -> LaunchDraft:
    """Record the launch and make its draft; a draft that exists is brought up to date with study.toml."""
    for draft, order in _drafts(context):
        context.marketplace.update_draft(draft, order)
    opening.draft_places(context, schedule, cost, live=live, report=report)
    found = _drafts(context)
    if not found:
        raise MarketplaceError(
            f"{context.marketplace.capabilities.name} lists no draft of this study; it may have been published or "
            "deleted there. Run `rootnote server sync` for details."
        )
    draft, order = found[0]
    return LaunchDraft(context.marketplace.draft_address(draft), order.total)


def require_previewed(context: RecruitingContext) -> None:
    """Refuse to publish a draft that study.toml no longer describes.

    Raises:
        RootnoteError: naming what was changed.
    """
    with context.reading() as session:
        found = ledger.launch(session)
        changed = launch.changed_key(found, context.config) if found is not None else ""
    if changed and _drafts(context):
        raise RootnoteError(
            f"{changed} in study.toml was changed after the draft was made; run `rootnote server open --draft` again "
            "to look at it, then open it."
        )


def prepare_publishing(context: RecruitingContext) -> None:
    """Bring the draft up to date once more; from now on it counts as offered to workers."""
    for draft, order in _drafts(context):
        context.marketplace.update_draft(draft, order)
    with context.writing() as session:
        for posting in session.scalars(select(Posting).where(Posting.token.startswith(f"{DRAFT}-"))):
            if posting.market_id is not None:
                posting.token = f"places-{posting.token.removeprefix(f'{DRAFT}-')}"


def _drafts(context: RecruitingContext) -> list[tuple[str, PostingOrder]]:
    """The drafts at the marketplace, with their orders."""
    with context.reading() as session:
        found = session.scalars(select(Posting).where(*_is_draft()).order_by(Posting.id))
        return [(str(posting.market_id), order_of(session, context, posting)) for posting in found]


def _is_draft() -> tuple[ColumnElement[bool], ...]:
    return Posting.token.startswith(f"{DRAFT}-"), Posting.market_id.is_not(None), Posting.closed_at.is_(None)
