"""The actions of `rootnote server` sync, approve, pay and close: show, confirm, call server.recruiting."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from embeddings.errors import RootnoteError
from embeddings.wording import counted
from server.audit import study_control
from server.audit.actor import current_actor
from server.commands.common import opened
from server.commands.confirming import show_unconfirmed
from server.commands.recruiting_context import CommandContext, confirm, open_context, read_cents, require_launched
from server.db import database
from server.db.models import Posting
from server.payments import ledger
from server.payments.formatting import as_money
from server.recruiting import (
    approvals,
    direct_payments,
    launch,
    payouts,
    postings,
    snapshot,
    sync,
    wage_floor,
    webhooks,
)
from server.recruiting.callbacks import deliver_callbacks, has_outstanding
from server.recruiting.due import (
    DuePayment,
    PaymentMethod,
    all_due,
    approvable_by_override,
    needs_manual_review,
)
from server.recruiting.marketplaces.base import MarketplaceError
from server.recruiting.marketplaces.registry import marketplace_class
from server.recruiting.payment_audit import logged
from server.recruiting.wage_floor import WageTopUp
from server.recruiting.watch import repeat_until_complete
from study.config import cents

# ------------------------------------------------------------------ sync and approve


def sync_study(folder: Path, no_approve: bool, watch: bool, every: float, dry_run: bool, rehearsal: bool) -> None:
    """Synchronise once, or until the study is complete."""
    if watch and not dry_run:
        watch_study(folder, rehearsal, every, approve=not no_approve)
        return
    with open_context(folder, rehearsal) as command:
        require_launched(command)
        if dry_run:
            _show_sync(command)
            return
        done = _synchronize(command, not no_approve)
        click.echo(
            f"Approved {counted(done.approved, 'submission')}, opened {counted(done.ordered, 'place')}, "
            f"retried {counted(done.retried, 'payment')}."
        )
        deliver_callbacks(command.recruiting, click.echo, rehearsal=command.settings.rehearsal)
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
    click.echo(f"Would open {counted(ordered, 'place')}: {as_money(ordered * (context.reward + context.fee))}.")
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
        require_launched(command)
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
        total = as_money(sum(one.cost for one in chosen))
        confirm(yes, f"Approve {counted(len(chosen), 'submission')} for {total}?")
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
            require_launched(command)
            snapshot.record_snapshot(command.recruiting)
        if not dry_run:
            direct_payments.reconcile_direct_payments(command.recruiting, click.echo)
        if bonus:
            _pay_bonus(command, bonus[0], read_cents(bonus[1]), reason, dry_run, yes)
        elif to_floor:
            _pay_to_floor(command, reason, dry_run, yes)
        else:
            _pay_due(command, dry_run, yes)


def _pay_due(command: CommandContext, dry_run: bool, yes: bool) -> None:
    due, codes = payouts.payable(command.recruiting)
    _show_due(due)
    show_unconfirmed(command.recruiting)
    if dry_run or not due:
        return
    cost = sum(one.cost for one in due)
    people = counted(len(due), "person", "people")
    if command.by_hand:
        payouts.require_room(command.recruiting, cost)
        for one in due:
            click.echo(f"  {codes[one.assignment]}  {as_money(one.cents)}  {_words(one.kind)}")
        confirm(yes, f"Have you paid {people} {as_money(cost)}? Rootnote then records the payments")
    else:
        confirm(yes, f"Pay {people} {as_money(cost)}?")
    with logged(command.recruiting, "paid"):
        paid, places = payouts.pay_all(command.recruiting, due, lambda line: click.echo(line, err=True))
    click.echo(f"Paid {paid}." + (f" Opened {counted(places, 'place')} for payment only." if places else ""))


def _pay_bonus(
    command: CommandContext, pseudonym: str, amount: int | None, reason: str, dry_run: bool, yes: bool
) -> None:
    bonus = payouts.find_bonus(command.recruiting, pseudonym, amount, reason)
    click.echo(f"Bonus for {pseudonym}: {as_money(bonus.cents)} + {as_money(bonus.fee)} fee.")
    if dry_run:
        return
    confirm(yes, f"Pay {as_money(bonus.cents + bonus.fee)}?")
    with logged(command.recruiting, "paid a bonus", pseudonym, reason):
        payouts.pay_bonus(command.recruiting, bonus)
    click.echo("Paid 1.")


def _pay_to_floor(command: CommandContext, reason: str, dry_run: bool, yes: bool) -> None:
    context, floor = command.recruiting, as_money(cents(command.recruiting.config.pay.floor_per_hour))
    found = wage_floor.below_floor(context)
    _show_below_floor(found, floor)
    ready = [one for one in found if one.ready]
    if dry_run or not ready:
        return
    cost, people = sum(one.cents + context.marketplace.fee(one.cents) for one in ready), _people(ready)
    if command.by_hand:
        payouts.require_room(context, sum(one.cents for one in ready))
        for one in ready:
            click.echo(f"  {one.code}  {as_money(one.cents)}")
        confirm(yes, f"Have you paid {people} {as_money(cost)}?")
    else:
        confirm(yes, f"Pay {people} {as_money(cost)}, fees included?")
    with logged(context, "topped up to the hourly minimum", f"{floor} an hour", reason):
        paid = wage_floor.top_up_all(context, ready, reason)
    click.echo(f"Topped up {counted(paid, 'person', 'people')} to {floor} an hour.")


def _people(found: Sequence[object]) -> str:
    return counted(len(found), "person", "people")


def _show_below_floor(found: Sequence[WageTopUp], floor: str) -> None:
    for one in found:
        wait = "" if one.ready else "  (not paid yet: run this again later)"
        hourly = as_money(round(one.hourly * 100))
        click.echo(f"  {one.pseudonym}  {one.minutes:.1f} min  {hourly} an hour  {as_money(one.cents)}{wait}")
    if found:
        click.echo(f"{_people(found)} earned less than the hourly minimum of {floor}.")
    else:
        click.echo(f"Everyone who finished earned at least the hourly minimum of {floor}.")


# ------------------------------------------------------------------ close


def close_study(folder: Path, dry_run: bool, yes: bool, rehearsal: bool) -> None:
    """Stop recruiting."""
    with open_context(folder, rehearsal) as command:
        context = command.recruiting
        require_launched(command)
        with context.reading() as session:
            open_now = session.scalar(select(func.count()).select_from(Posting).where(Posting.closed_at.is_(None))) or 0
            committed, spent = ledger.committed(session), ledger.paid(session)
        click.echo(
            f"{counted(open_now, 'open posting')}; paid so far {as_money(spent)}, "
            f"in total at most {as_money(committed)}."
        )
        if dry_run:
            return
        confirm(yes, f"Stop recruiting and pay what is complete, at most {as_money(committed - spent)}?")
        launch.stop(context, current_actor())
        with context.writing() as session:
            study_control.write_log(
                session, current_actor(), "closed the launch", context.clock(), detail=f"at most {as_money(committed)}"
            )
        with logged(context, "synchronised"):
            done = sync.synchronize(context, report=click.echo)
        click.echo(f"Recruiting has stopped. Approved {counted(done.approved, 'submission')}; all answers are kept.")
        _show_open_questions(command)


# ------------------------------------------------------------------ words


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
            total = as_money(sum(one.cost for one in some))
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
        total = as_money(sum(one.cents for one in due))
        click.echo(f"{_people(due)} {verb} owed {total} more: run `rootnote server pay`.")
    show_unconfirmed(command.recruiting)
    for market_id, pseudonym in unclear:
        who = f"by assignment {pseudonym}" if pseudonym else "by a worker who never took the study"
        click.echo(f"Needs your decision: incomplete submission at {market_id} {who}.")


# ------------------------------------------------------------------ watch


def watch_study(folder: Path, rehearsal: bool, every: float, *, approve: bool = True) -> None:
    """Synchronise until every place is filled and nothing waits; Ctrl-C or SIGTERM stops it."""
    with _event_waiting(folder, rehearsal) as is_waiting:
        complete = repeat_until_complete(lambda: _sync_once(folder, rehearsal, approve), every, is_waiting)
    if complete:
        click.echo("The study is complete. Next: rootnote server pay, then rootnote server close.")


@contextlib.contextmanager
def _event_waiting(folder: Path, rehearsal: bool) -> Iterator[Callable[[], bool]]:
    """Asks the database whether the marketplace has sent an event that no synchronisation has seen."""
    with opened(folder, rehearsal) as (study, engine):
        sends_events = bool(marketplace_class(study.config).event_types)

        def is_waiting() -> bool:
            with contextlib.suppress(SQLAlchemyError), database.reading(engine) as session:
                return webhooks.is_waiting(session)
            return False

        yield is_waiting if sends_events else lambda: False


def _synchronize(command: CommandContext, approve: bool) -> sync.SyncResult:
    context = command.recruiting
    with context.writing() as session:
        webhooks.mark_handled(session, context.clock())
    with logged(context, "synchronised"):
        return sync.synchronize(context, approve=approve, report=click.echo)


def _sync_once(folder: Path, rehearsal: bool, approve: bool) -> bool:
    try:
        with open_context(folder, rehearsal) as command:
            require_launched(command)
            done = _synchronize(command, approve)
            deliver_callbacks(command.recruiting, click.echo, rehearsal=command.settings.rehearsal)
            with command.recruiting.reading() as session:
                over = sync.is_over(session) and not has_outstanding(session, command.recruiting)
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
