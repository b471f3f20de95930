"""The actions of `rootnote server` open, sync, approve, pay and close: show, confirm, call server.recruiting."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path

import click
from sqlalchemy import func, select

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.audit import study_control
from server.audit.actor import current_actor
from server.commands.common import opened
from server.db import database
from server.db.models import Posting
from server.identity.tokens import TokenSigner
from server.identity.vault import Vault, has_keys, read_vault
from server.payments import ledger
from server.payments.formatting import NO_LIMIT, dollars
from server.recruiting import approvals, direct_payments, launch, opening, payouts, postings, snapshot, sync, wage_floor
from server.recruiting.context import RecruitingContext
from server.recruiting.due import (
    DuePayment,
    PaymentMethod,
    all_due,
    approvable_by_override,
    needs_manual_review,
)
from server.recruiting.exclusive import exclusive
from server.recruiting.marketplaces.base import MarketplaceError
from server.recruiting.marketplaces.registry import make_marketplace
from server.recruiting.payment_audit import logged
from server.recruiting.reachability import require_reachable
from server.recruiting.wage_floor import WageTopUp
from server.recruiting.watch import repeat_until_complete
from server.settings import Settings, read_settings
from study.config import Study, cents
from study.trial_plan import read_plan


@dataclass(frozen=True)
class CommandContext:
    """The context of a command: the recruiting context, the study, its settings, and whether real money is spent."""

    recruiting: RecruitingContext
    study: Study
    settings: Settings
    live: bool

    @property
    def by_hand(self) -> bool:
        """Whether the researcher pays outside Rootnote."""
        return self.recruiting.marketplace.capabilities.pays_by_hand


@contextlib.contextmanager
def open_context(folder: Path, rehearsal: bool, live: bool | None = None) -> Iterator[CommandContext]:
    """Lock the study's ledger and connect to the marketplace; `live` None: as the study was launched."""
    with opened(folder, rehearsal, secret=True) as (study, engine), exclusive(engine):
        settings = read_settings(study, os.environ, rehearsal=rehearsal)
        with database.reading(engine) as session:
            found = ledger.launch(session)
        real = bool(found and found.live) if live is None else live
        marketplace = make_marketplace(study, live=real, endpoint=settings.market_url)
        context = RecruitingContext(
            engine,
            marketplace,
            settings.adjust(study.config),
            TokenSigner(settings.secret),
            settings.vault or _unused_vault(),
            f"{settings.public_url}/take",
        )
        if settings.market_url:  # a marketplace on this machine counts at once, and a rehearsal is short
            context = replace(context, margin=timedelta(seconds=1))
        try:
            yield CommandContext(context, study, settings, real)
        finally:
            marketplace.disconnect()


def _unused_vault() -> Vault:
    """Plain links store no identities, so this vault is never used."""
    return read_vault(os.environ if has_keys(os.environ) else {}, rehearsal_secret="unused")  # noqa: S106


# ------------------------------------------------------------------ open


def open_study(
    folder: Path, live: bool, budget: str | None, watch: bool, every: float, dry_run: bool, yes: bool, rehearsal: bool
) -> None:
    """Open the study's places, or the missing ones."""
    with open_context(folder, rehearsal, live) as command:
        _open(command, _read_cents(budget), dry_run, yes)
    if watch and not dry_run:
        _watch(folder, rehearsal, every)


def _open(command: CommandContext, budget: int | None, dry_run: bool, yes: bool) -> None:
    context, marketplace = command.recruiting, command.recruiting.marketplace.capabilities
    opening.require_openable(context)
    balance = context.marketplace.account()
    if not marketplace.opens_by_hand:
        require_reachable(command.settings)
    plan = read_plan(command.study)
    opening.prepare_places(context, plan, rehearsal=command.settings.rehearsal)
    if marketplace.opens_by_hand:
        if dry_run:
            click.echo("Nothing was opened (--dry-run).")
            return
        opening.open_by_hand(context, plan.schedule_fingerprint, live=command.live, budget=budget)
        _show_manual_opening(command)
        return
    cost = opening.estimate_cost(context, budget, balance, dry_run=dry_run)
    _show_cost(command, cost)
    opening.require_affordable(cost)
    if dry_run:
        click.echo("Nothing was opened (--dry-run).")
        return
    money = "REAL money" if command.live else "no real money"
    question = (
        f"Open {counted(cost.places, 'place')} for {dollars(cost.cost)} ({money}; budget {dollars(cost.budget)})?"
    )
    _confirm(yes, question)
    done = opening.open_places(context, plan.schedule_fingerprint, cost, live=command.live, report=click.echo)
    click.echo(f"Opened {counted(done.ordered, 'place')}. Next: rootnote server status {command.study.folder}")


def _show_manual_opening(command: CommandContext) -> None:
    marketplace = command.recruiting.marketplace.capabilities
    address = command.recruiting.url if command.settings.public_url else "<your server>/take"
    if marketplace.has_arrivals:
        click.echo(f"Post the study on {marketplace.name} yourself, with this address: {address}")
    else:
        click.echo(f"The link to send: {address}")
    click.echo("You pay those who finish yourself; `rootnote server pay` keeps the list.")


def _show_cost(command: CommandContext, found: opening.OpeningCost) -> None:
    sandbox = "" if command.live else " (no real money)"
    name = command.recruiting.marketplace.capabilities.name
    click.echo(f"{name}{sandbox}: {counted(found.places, 'place')} in {counted(found.postings, 'posting')}")
    click.echo(f"  {found.places} x ({dollars(found.reward)} + {found.fee_text} fee) = {dollars(found.cost)}")
    if found.single is not None:
        click.echo(f"  a single posting of {found.places} would cost {dollars(found.single)}")
    if found.screen_out:
        click.echo(f"  each listener who fails the prescreen costs {dollars(found.screen_out)}")
    for line in found.remarks():
        click.echo(f"  {line}")
    balance = "not known" if found.balance is None else dollars(found.balance)
    click.echo(f"  budget {dollars(found.budget)}, account {balance}")


# ------------------------------------------------------------------ sync and approve


def sync_study(folder: Path, no_approve: bool, watch: bool, every: float, dry_run: bool, rehearsal: bool) -> None:
    """Synchronise once, or until the study is complete."""
    if watch and not dry_run:
        _watch(folder, rehearsal, every, approve=not no_approve)
        return
    with open_context(folder, rehearsal) as command:
        _require_launched(command)
        if dry_run:
            _show_sync(command)
            return
        with logged(command.recruiting, "synchronised"):
            done = sync.synchronize(command.recruiting, approve=not no_approve, report=click.echo)
        click.echo(
            f"Approved {counted(done.approved, 'submission')}, opened {counted(done.ordered, 'place')}, "
            f"retried {counted(done.retried, 'payment')}."
        )
        _show_open_questions(command)


def _show_sync(command: CommandContext) -> None:
    """Show what `sync` and `pay` would do; the database is left as it is."""
    context = command.recruiting
    reported = snapshot.fetch_snapshot(context).postings
    with database.writing(context.engine) as session:
        snapshot.record_submissions(session, context, reported, context.clock())
        due = all_due(session, context)
        missing = postings.supply(session, reported).missing
        ordered = postings.affordable(session, context, missing) if postings.is_recruiting(session, context) else 0
        session.rollback()
    _show_due(due)
    click.echo(f"Would open {counted(ordered, 'place')}: {dollars(ordered * (context.reward + context.fee))}.")
    with context.reading() as session:
        orders, payments = len(postings.unplaced(session)), len(ledger.pending(session))
    if orders or payments:
        click.echo(f"Would check {counted(orders, 'order')} and {counted(payments, 'payment')} in unknown state.")


def approve_work(
    folder: Path, pseudonyms: tuple[str, ...], anyway: bool, dry_run: bool, yes: bool, rehearsal: bool
) -> None:
    """Approve complete work, or that of the named assignments."""
    with open_context(folder, rehearsal) as command:
        context = command.recruiting
        _require_launched(command)
        recorded = snapshot.record_snapshot(context)
        with context.reading() as session:
            due = approvable_by_override(session, context) if anyway else all_due(session, context)
        chosen = [
            one
            for one in due
            if one.method is PaymentMethod.APPROVE and (not pseudonyms or one.pseudonym in pseudonyms)
        ]
        if pseudonyms and (unknown := set(pseudonyms) - {one.pseudonym for one in chosen}):
            raise RootnoteError(
                f"there is nothing to approve for {sorted(unknown)[0]}; run `rootnote server sync` for details."
            )
        _show_due(chosen)
        if dry_run or not chosen:
            return
        total = dollars(sum(one.cost for one in chosen))
        _confirm(yes, f"Approve {counted(len(chosen), 'submission')} for {total}?")
        named = ", ".join(one.pseudonym for one in chosen) if pseudonyms else ""
        with logged(context, "approved anyway" if anyway else "approved", named):
            done = approvals.approve_listed(context, recorded, chosen)
        click.echo(f"Approved {counted(done, 'submission')}.")


# ------------------------------------------------------------------ pay


def pay_listeners(
    folder: Path, bonus: tuple[str, str] | None, to_floor: bool, reason: str, dry_run: bool, yes: bool, rehearsal: bool
) -> None:
    """Send outstanding payments, a bonus, or top-ups to the hourly minimum."""
    with open_context(folder, rehearsal) as command:
        if not command.by_hand:
            _require_launched(command)
            snapshot.record_snapshot(command.recruiting)
        if not dry_run:
            direct_payments.reconcile_direct_payments(command.recruiting, click.echo)
        if bonus:
            _pay_bonus(command, bonus[0], _read_cents(bonus[1]), reason, dry_run, yes)
        elif to_floor:
            _pay_to_floor(command, reason, dry_run, yes)
        else:
            _pay_due(command, dry_run, yes)


def _pay_due(command: CommandContext, dry_run: bool, yes: bool) -> None:
    due, codes = payouts.payable(command.recruiting)
    _show_due(due)
    if dry_run or not due:
        return
    cost = sum(one.cost for one in due)
    people = counted(len(due), "person", "people")
    if command.by_hand:
        payouts.require_room(command.recruiting, cost)
        for one in due:
            click.echo(f"  {codes[one.assignment]}  {dollars(one.cents)}  {_words(one.kind)}")
        _confirm(yes, f"Have you paid {people} {dollars(cost)}? Rootnote then records the payments")
    else:
        _confirm(yes, f"Pay {people} {dollars(cost)}?")
    with logged(command.recruiting, "paid"):
        paid, places = payouts.pay_all(command.recruiting, due, lambda line: click.echo(line, err=True))
    click.echo(f"Paid {paid}." + (f" Opened {counted(places, 'place')} for payment only." if places else ""))


def _pay_bonus(
    command: CommandContext, pseudonym: str, amount: int | None, reason: str, dry_run: bool, yes: bool
) -> None:
    bonus = payouts.find_bonus(command.recruiting, pseudonym, amount, reason)
    click.echo(f"Bonus for {pseudonym}: {dollars(bonus.cents)} + {dollars(bonus.fee)} fee.")
    if dry_run:
        return
    _confirm(yes, f"Pay {dollars(bonus.cents + bonus.fee)}?")
    with logged(command.recruiting, "paid a bonus", pseudonym, reason):
        payouts.pay_bonus(command.recruiting, bonus)
    click.echo("Paid 1.")


def _pay_to_floor(command: CommandContext, reason: str, dry_run: bool, yes: bool) -> None:
    context, floor = command.recruiting, dollars(cents(command.recruiting.config.pay.floor_usd_per_hour))
    found = wage_floor.below_floor(context)
    _show_below_floor(found, floor)
    ready = [one for one in found if one.ready]
    if dry_run or not ready:
        return
    cost, people = sum(one.cents + context.marketplace.fee(one.cents) for one in ready), _people(ready)
    if command.by_hand:
        payouts.require_room(context, sum(one.cents for one in ready))
        for one in ready:
            click.echo(f"  {one.code}  {dollars(one.cents)}")
        _confirm(yes, f"Have you paid {people} {dollars(cost)}?")
    else:
        _confirm(yes, f"Pay {people} {dollars(cost)}, fees included?")
    with logged(context, "topped up to the hourly minimum", f"{floor} an hour", reason):
        paid = wage_floor.top_up_all(context, ready, reason)
    click.echo(f"Topped up {counted(paid, 'person', 'people')} to {floor} an hour.")


def _people(found: Sequence[object]) -> str:
    return counted(len(found), "person", "people")


def _show_below_floor(found: Sequence[WageTopUp], floor: str) -> None:
    for one in found:
        wait = "" if one.ready else "  (not paid yet: run this again later)"
        click.echo(f"  {one.pseudonym}  {one.minutes:.1f} min  ${one.hourly:.2f} an hour  {dollars(one.cents)}{wait}")
    if found:
        click.echo(f"{_people(found)} earned less than the hourly minimum of {floor}.")
    else:
        click.echo(f"Everyone who finished earned at least the hourly minimum of {floor}.")


# ------------------------------------------------------------------ close


def close_study(folder: Path, dry_run: bool, yes: bool, rehearsal: bool) -> None:
    """Stop recruiting."""
    with open_context(folder, rehearsal) as command:
        context = command.recruiting
        _require_launched(command)
        with context.reading() as session:
            open_now = session.scalar(select(func.count()).select_from(Posting).where(Posting.closed_at.is_(None))) or 0
            committed, spent = ledger.committed(session), ledger.paid(session)
        click.echo(
            f"{counted(open_now, 'open posting')}; paid so far {dollars(spent)}, in total at most {dollars(committed)}."
        )
        if dry_run:
            return
        _confirm(yes, f"Stop recruiting and pay what is complete, at most {dollars(committed - spent)}?")
        launch.stop(context, current_actor())
        with context.writing() as session:
            study_control.write_log(
                session, current_actor(), "closed the launch", context.clock(), detail=f"at most {dollars(committed)}"
            )
        with logged(context, "synchronised"):
            done = sync.synchronize(context, report=click.echo)
        click.echo(f"Recruiting has stopped. Approved {counted(done.approved, 'submission')}; all answers are kept.")
        _show_open_questions(command)


# ------------------------------------------------------------------ words


def _confirm(yes: bool, question: str) -> None:
    if not yes:
        click.confirm(question, abort=True)


def _read_cents(amount: str | None) -> int | None:
    """An amount as typed, in cents.

    Raises:
        RootnoteError: if it is not a whole number of cents.
    """
    if amount is None:
        return None
    try:
        value = Decimal(amount.removeprefix("$")) * 100
        if not value.is_finite() or value % 1 or not 0 <= value < 10 * NO_LIMIT:
            raise InvalidOperation
    except InvalidOperation:
        raise RootnoteError(f"'{amount}' is not an amount in US dollars and cents, such as 200 or 12.50.") from None
    return int(value)


def _require_launched(command: CommandContext) -> None:
    with command.recruiting.reading() as session:
        launch.require_launched(session, command.recruiting)


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _show_due(due: Sequence[DuePayment]) -> None:
    words = {
        PaymentMethod.APPROVE: "approve",
        PaymentMethod.DIRECT: "pay",
        PaymentMethod.PLACE: "open a place for payment only",
        PaymentMethod.BY_HAND: "pay by hand",
    }
    for method, text in words.items():
        found = [one for one in due if one.method is method]
        for kind in sorted({one.kind for one in found}):
            some = [one for one in found if one.kind is kind]
            total = dollars(sum(one.cost for one in some))
            click.echo(f"  {text}: {len(some)} x {_words(kind)}, {total} with fees")
    waiting = sum(one.method is PaymentMethod.WAIT for one in due)
    if waiting:
        click.echo(f"  {counted(waiting, 'listener')} ended the study but may still submit")
    if not due:
        click.echo("Nothing is due.")


def _show_open_questions(command: CommandContext) -> None:
    with command.recruiting.reading() as session:
        payable = (PaymentMethod.DIRECT, PaymentMethod.PLACE)
        due = [one for one in all_due(session, command.recruiting) if one.method in payable]
        unclear = [
            (row.opening, assignment.pseudonym if assignment else "")
            for row, assignment in needs_manual_review(session, command.recruiting)
        ]
    if due:
        verb = "is" if len(due) == 1 else "are"
        total = dollars(sum(one.cents for one in due))
        click.echo(f"{_people(due)} {verb} owed {total} more: run `rootnote server pay`.")
    for market_id, pseudonym in unclear:
        who = f"by assignment {pseudonym}" if pseudonym else "by a worker who never took the study"
        click.echo(f"Needs your decision: incomplete submission at {market_id} {who}.")


# ------------------------------------------------------------------ watch


def _watch(folder: Path, rehearsal: bool, every: float, *, approve: bool = True) -> None:
    """Synchronise until every place is filled and nothing waits; Ctrl-C or SIGTERM stops it."""
    if repeat_until_complete(lambda: _sync_once(folder, rehearsal, approve), every):
        click.echo("The study is complete. Next: rootnote server pay, then rootnote server close.")


def _sync_once(folder: Path, rehearsal: bool, approve: bool) -> bool:
    try:
        with open_context(folder, rehearsal) as command:
            _require_launched(command)
            with logged(command.recruiting, "synchronised"):
                done = sync.synchronize(command.recruiting, approve=approve, report=click.echo)
            with command.recruiting.reading() as session:
                over = sync.is_over(session)
    except MarketplaceError as error:
        click.echo(f"{error} Trying again.", err=True)
        return False
    parts = (
        ("approved", done.approved, "submission"),
        ("opened", done.ordered, "place"),
        ("retried", done.retried, "payment"),
    )
    if changed := [f"{verb} {counted(number, noun)}" for verb, number, noun in parts if number]:
        click.echo(f"{time.strftime('%H:%M:%S')} {', '.join(changed)}")
    return over
