"""A launch in a marketplace's own test mode: `rootnote server rehearse --prolific-test EMAIL`.

The study, the server and the marketplace are the real ones; only the people are test participants, who cost nothing.
Everything is recorded in the rehearsal's database, which the server must serve too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import click
from sqlalchemy import select

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.audit.actor import current_actor
from server.commands.recruiting_context import CommandContext, open_context
from server.db.enums import SubmissionStatus
from server.db.models import Posting
from server.payments import ledger
from server.payments.fees import rounded_up, split
from server.recruiting import approvals, launch, opening, snapshot
from server.recruiting.context import RecruitingContext
from server.recruiting.marketplaces.base import MarketplaceError, PostingOrder
from server.recruiting.reachability import require_reachable
from server.recruiting.watch import repeat_until_complete
from study.trial_plan import read_plan

EVERY_SECONDS, EVERY_SECONDS_HERE = 5.0, 0.5  # between looks at the marketplace; at one on this machine
DECIDED = (SubmissionStatus.APPROVED, SubmissionStatus.REJECTED, SubmissionStatus.SCREENED_OUT)


class CreatedTestStudy(Protocol):
    """A study that only test participants see."""

    @property
    def id(self) -> str: ...

    @property
    def url(self) -> str: ...


class TestingMarketplace(Protocol):
    """The methods of a marketplace with a test mode (`capabilities.has_test_mode`)."""

    def create_test_participant(self, email: str) -> str:
        """Make a test participant; returns their id."""

    def create_test_study(self, study_id: str) -> CreatedTestStudy:
        """Publish a draft to the test participants; it costs nothing."""

    def discard_draft(self, draft: str) -> None:
        """Delete a draft."""


def run_test_launch(folder: Path, emails: Sequence[str]) -> None:
    """Run a launch with one place for each of these test participants, until all have taken the study.

    Raises:
        RootnoteError: if the marketplace, the workspace or the server is not ready for it.
    """
    if not os.environ.get("ROOTNOTE_SECRET"):
        raise RootnoteError("ROOTNOTE_SECRET is not set; set it as it is for the server that serves the rehearsal.")
    with open_context(folder, rehearsal=True, live=True) as command:
        context, name = command.recruiting, command.recruiting.marketplace.capabilities.name
        if not context.marketplace.capabilities.has_test_mode:
            raise RootnoteError(f"{name} has no test mode; set recruiter.kind in study.toml to a marketplace with one.")
        with context.reading() as session:
            if session.scalar(select(Posting.id).limit(1)) is not None:
                raise RootnoteError(
                    "the rehearsal's database holds a launch already; empty it with `rootnote server migrate "
                    f"{folder} --rehearsal --fresh`, restart the server, and run this again."
                )
        opening.require_openable(context)
        require_reachable(command.settings)
        context.marketplace.account()
        draft, study = _open(command, emails)
        click.echo(f"A test study is on {name}. Only test participants see it, and it costs nothing.")
        click.echo("  1. Sign in there as a test participant; reset the password of the address first.")
        click.echo(f"  2. Take the study: {study.url}")
        click.echo("Waiting for submissions; Ctrl-C stops.")
        every = EVERY_SECONDS_HERE if command.settings.market_url else EVERY_SECONDS
        try:
            done = repeat_until_complete(lambda: _look(context, study.id, len(emails)), every, lambda: False)
        finally:
            _close(context, draft, study.id)
        if not done:
            raise RootnoteError("the test launch was stopped before everyone had taken the study.")
        click.echo(f"The test launch is over. Next: rootnote server export {folder} --rehearsal")


def _open(command: CommandContext, emails: Sequence[str]) -> tuple[str, CreatedTestStudy]:
    """Make the participants and the test study, and record its posting; returns the draft's id, and the study."""
    context, testing = command.recruiting, cast(TestingMarketplace, command.recruiting.marketplace)
    for email in emails:
        try:
            testing.create_test_participant(email)
            click.echo(f"{email} is a test participant.")
        except MarketplaceError as error:
            click.echo(f"{email} was not added: {error} Earlier test participants may take part all the same.")
    plan, places = read_plan(command.study), len(emails)
    opening.prepare_places(context, plan, rehearsal=True)
    with context.writing() as session:
        budget = rounded_up(places * (context.reward + context.exact_fee))
        recorded = launch.begin(session, context, plan.schedule_fingerprint, live=True, budget=budget)
        token, name = ledger.new_token("test"), recorded.name
    order = PostingOrder(token, name, places, places, context.reward, context.url, context.config.pay.minutes)
    draft = context.marketplace.draft(order)
    try:
        study = testing.create_test_study(draft)
    except MarketplaceError as error:
        testing.discard_draft(draft)
        raise RootnoteError(
            f"{error} Only some workspaces have a test mode; without it, run a pilot of a few listeners."
        ) from error
    fee, rest = split(context.exact_fee)
    with context.writing() as session:
        session.add(
            Posting(
                token=token,
                places=places,
                reward_cents=context.reward,
                fee_cents=fee,
                fee_millionths=rest,
                market_id=study.id,
                ordered_at=context.clock(),
            )
        )
    return draft, study


def _look(context: RecruitingContext, study: str, wanted: int) -> bool:
    """Record and approve what is submitted; whether everyone has taken the study."""
    try:
        found = snapshot.record_snapshot(context)
        approved = approvals.approve_complete(context, found)
    except MarketplaceError as error:
        click.echo(f"{error} Trying again.", err=True)
        return False
    if approved:
        click.echo(f"{time.strftime('%H:%M:%S')} approved {counted(approved, 'submission')}")
    submissions = found.postings[study].submissions if study in found.postings else ()
    return sum(one.status in DECIDED for one in submissions) + approved >= wanted


def _close(context: RecruitingContext, draft: str, study: str) -> None:
    """Stop the test study and delete its draft."""
    launch.stop(context, current_actor())
    try:
        context.marketplace.close(study)
        cast(TestingMarketplace, context.marketplace).discard_draft(draft)
    except MarketplaceError as error:
        click.echo(f"The test study {study} could not be closed: {error}", err=True)
