"""The actions of `rootnote server open`: a preview that touches nothing, a draft at the marketplace, the launch."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.assignments.earlier_builds import require_blind
from server.commands.recruiting_context import CommandContext, confirm, open_context, read_cents
from server.payments.formatting import NO_LIMIT, as_exact_money, as_money, use_currency
from server.payments.formatting import budget as shown_budget
from server.recruiting import drafts, opening
from server.recruiting.marketplaces.base import Capabilities
from server.recruiting.marketplaces.registry import make_marketplace
from server.recruiting.preview import LaunchPreview, preview_launch
from server.recruiting.reachability import require_reachable
from server.recruiting.readiness import require_ready
from server.settings import read_settings
from study.config import load_study
from study.trial_plan import Plan, read_plan

WIDTH = 79


def preview_open(folder: Path, budget: str | None, rehearsal: bool) -> None:
    """Show what opening would cost and what is missing; needs no key, no token and no network, and writes nothing."""
    study = load_study(folder)
    use_currency(study.config.currency)
    marketplace = make_marketplace(study, live=True)
    database = None
    with contextlib.suppress(RootnoteError):  # a variable with a wrong value is among what is missing
        database = read_settings(study, os.environ, rehearsal=rehearsal, secret=False).database
    preview = preview_launch(study, marketplace, os.environ, database, read_cents(budget), rehearsal=rehearsal)
    if marketplace.notice:
        click.echo(marketplace.notice)
    _show_preview(marketplace.capabilities, preview)
    if preview.recorded is not None:
        one = preview.recorded
        click.echo(
            f"Launched on {one.began_at:%Y-%m-%d}: {counted(one.ordered, 'place')} ordered, {one.filled} filled, "
            f"budget {shown_budget(one.budget)}."
        )
        click.echo(f"What is missing now: rootnote server sync {folder} --dry-run")
    if preview.missing:
        click.echo(f"Before the launch, {counted(len(preview.missing), 'thing')} must be done:")
        for number, text in enumerate(preview.missing, 1):
            mark = f"  {number}. "
            click.echo(click.wrap_text(text, WIDTH, mark, " " * len(mark)))
    click.echo("Nothing was written, opened or sent (--dry-run).")


def _show_preview(marketplace: Capabilities, found: LaunchPreview) -> None:
    posted = "" if marketplace.opens_by_hand else f" in {counted(found.postings, 'posting')}"
    click.echo(f"{marketplace.name[0].upper()}{marketplace.name[1:]}: {counted(found.places, 'place')}{posted}")
    rewards = found.places * found.reward
    if marketplace.pays_by_hand:
        click.echo(f"  {found.places} x {as_money(found.reward)} = {as_money(found.total)}, paid by you; no fees")
    else:
        each = f"({as_money(found.reward)} + {as_exact_money(found.fee)} fee)"
        click.echo(f"  {found.places} x {each} = {as_money(found.total)}")
        click.echo(f"  rewards {as_money(rewards)}, fees {as_money(found.total - rewards)}")
    if found.single is not None:
        click.echo(f"  a single posting of {found.places} would cost {as_money(found.single)}")
    if found.screen_out:
        click.echo(f"  each listener who fails the prescreen costs {as_money(found.screen_out)}")
    if found.screen_out_plan:
        click.echo(click.wrap_text(found.screen_out_plan, WIDTH, "  ", "    "))
    if found.screen_outs:
        most, outs = found.total + found.screen_outs * found.screen_out, counted(found.screen_outs, "screen-out")
        click.echo(f"  at most {as_money(most)} with {outs} that {marketplace.name} pays by itself")
    rule = f"; the minimum of {marketplace.name} is {as_money(found.minimum)}" if found.minimum is not None else ""
    click.echo(f"  pay {as_money(found.hourly)} an hour, for {found.minutes:g} minutes{rule}")
    if found.limit is not None:
        click.echo(f"  a listener may take {found.limit} minutes at most")
    click.echo(f"  budget {shown_budget(NO_LIMIT if found.budget is None else found.budget)}")


def open_study(
    folder: Path, live: bool, budget: str | None, watch: bool, every: float, draft: bool, yes: bool, rehearsal: bool
) -> None:
    """Open the study's places, or the missing ones; with `draft` only make the study there, for a look at it."""
    most = read_cents(budget)
    with open_context(folder, rehearsal, live) as command:
        context = command.recruiting
        opening.require_openable(context)
        if not rehearsal:
            require_ready(command.study, context.marketplace)
        if draft:
            _draft(command, most)
            return
        _open(command, most, yes)
    if watch:
        from server.commands.recruiting_actions import watch_study

        watch_study(folder, rehearsal, every)


def _draft(command: CommandContext, budget: int | None) -> None:
    context = command.recruiting
    drafts.require_drafts(context)
    require_reachable(command.settings)
    balance = context.marketplace.account()
    plan = read_plan(command.study)
    _require_blind(command, plan)
    opening.prepare_places(context, plan, rehearsal=command.settings.rehearsal)
    drafts.follow_study(context)
    cost = opening.estimate_cost(context, budget, balance)
    _show_cost(command, cost)
    made = drafts.make_draft(context, plan.schedule_fingerprint, cost, live=command.live, report=click.echo)
    name = context.marketplace.capabilities.name
    click.echo(f"A draft with {counted(made.places, 'place')} is on {name}. Nobody sees it, and it costs nothing.")
    click.echo("Look at it as a participant would, with Preview on this page:")
    click.echo(f"  {made.address}")
    click.echo("To change it, edit study.toml and run this again. To publish it:")
    click.echo(f"  rootnote server open {command.study.folder}{' --live' if command.live else ''}")


def _open(command: CommandContext, budget: int | None, yes: bool) -> None:
    context, marketplace = command.recruiting, command.recruiting.marketplace.capabilities
    balance = context.marketplace.account()
    if not marketplace.opens_by_hand:
        require_reachable(command.settings)
    plan = read_plan(command.study)
    _require_blind(command, plan)
    opening.prepare_places(context, plan, rehearsal=command.settings.rehearsal)
    if marketplace.opens_by_hand:
        opening.open_by_hand(context, plan.schedule_fingerprint, live=command.live, budget=budget)
        _show_manual_opening(command)
        return
    if context.marketplace.notice and not command.settings.rehearsal:
        click.echo(context.marketplace.notice)
    drafts.require_previewed(context)
    cost = opening.estimate_cost(context, budget, balance)
    _show_cost(command, cost)
    opening.require_affordable(cost)
    places, price = cost.places + cost.drafted, cost.cost + cost.drafted_cost
    money = "REAL money" if command.live else "no real money"
    confirm(yes, f"Open {counted(places, 'place')} for {as_money(price)} ({money}; budget {as_money(cost.budget)})?")
    drafts.prepare_publishing(context)
    done = opening.open_places(context, plan.schedule_fingerprint, cost, live=command.live, report=click.echo)
    opened = done.ordered + cost.drafted
    click.echo(f"Opened {counted(opened, 'place')}. Next: rootnote server status {command.study.folder}")


def _require_blind(command: CommandContext, plan: Plan) -> None:
    if not command.settings.rehearsal:
        with command.recruiting.reading() as session:
            require_blind(session, plan, command.study.folder)


def _show_manual_opening(command: CommandContext) -> None:
    marketplace = command.recruiting.marketplace.capabilities
    address = command.recruiting.url if command.settings.public_url else "<your server>/take"
    address = command.recruiting.marketplace.address(address)
    if marketplace.has_arrivals:
        click.echo(f"Post the study on {marketplace.name} yourself, with this address: {address}")
    else:
        click.echo(f"The link to send: {address}")
    click.echo("You pay those who finish yourself; `rootnote server pay` keeps the list.")


def _show_cost(command: CommandContext, found: opening.OpeningCost) -> None:
    sandbox = "" if command.live else " (no real money)"
    name, places = command.recruiting.marketplace.capabilities.name, found.places + found.drafted
    posted = "in a draft" if found.drafted and not found.places else f"in {counted(found.postings, 'posting')}"
    click.echo(f"{name}{sandbox}: {counted(places, 'place')} {posted}")
    price = as_money(found.cost + found.drafted_cost)
    click.echo(f"  {places} x ({as_money(found.reward)} + {found.fee_text} fee) = {price}")
    if found.single is not None:
        click.echo(f"  a single posting of {found.places} would cost {as_money(found.single)}")
    if found.screen_out:
        click.echo(f"  each listener who fails the prescreen costs {as_money(found.screen_out)}")
    for remark in found.remarks():
        click.echo(click.wrap_text(remark, WIDTH, "  ", "    "))
    if found.audience is not None and found.audience < places:
        click.echo("  that is fewer people than places")
    balance = "not known" if found.balance is None else as_money(found.balance)
    click.echo(f"  budget {as_money(found.budget)}, account {balance}")
