"""`rootnote server` open, sync, approve, pay, close: from the books to the marketplace, and the cost beforehand."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from embeddings.errors import RootnoteError
from server.commands.common import dry_run_option, opened, rehearsal_option, study_argument, yes_option

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from server.identity.vault import Vault
    from server.recruiting.due import DuePayment
    from server.recruiting.launch import RecruitingContext
    from server.recruiting.wage_floor import WageTopUp
    from server.settings import Settings
    from study.config import Study

LINK_BUDGET = 10**9


@dataclass(frozen=True)
class CommandContext:
    """An office with what the commands need beside it."""

    office: RecruitingContext
    study: Study
    settings: Settings
    live: bool


@contextlib.contextmanager
def open_context(folder: Path, rehearsal: bool, live: bool | None = None) -> Iterator[CommandContext]:
    """Open the books alone, and connect to the marketplace; `live` None: as the study was launched."""
    from server.db import database
    from server.identity.tokens import TokenSigner
    from server.payments import ledger
    from server.recruiting.launch import RecruitingContext, exclusive
    from server.recruiting.marketplaces.registry import make_marketplace
    from server.settings import read_settings
    from study.config import load_study

    settings = read_settings(load_study(folder), os.environ, rehearsal=rehearsal)
    with opened(folder, rehearsal, secret=True) as (study, engine), exclusive(engine):
        with database.reading(engine) as session:
            launch = ledger.launch(session)
        real = bool(launch and launch.live) if live is None else live
        recruiter = make_marketplace(study, live=real, endpoint=settings.market_url)
        url = f"{settings.public_url}/take"
        vault = settings.vault or _no_vault()
        office = RecruitingContext(
            engine, recruiter, settings.adjust(study.config), TokenSigner(settings.secret), vault, url
        )
        if settings.market_url:  # a marketplace of this machine counts at once, and a rehearsal is short
            office = replace(office, margin=timedelta(seconds=1))
        try:
            yield CommandContext(office, study, settings, real)
        finally:
            recruiter.disconnect()


def _no_vault() -> Vault:
    """Plain links name nobody: a vault that is never used."""
    from server.identity.vault import has_keys, read_vault

    return read_vault(os.environ if has_keys(os.environ) else {}, rehearsal_secret="no one is named")  # noqa: S106


# ------------------------------------------------------------------ open


@click.command(name="open")
@study_argument
@click.option("--live", is_flag=True, help="Spend real money (default: the sandbox, where there is one).")
@click.option("--budget", metavar="USD", help="The most that the launch may cost, fees included.")
@click.option("--watch", is_flag=True, help="Stay, and synchronise now and then, until the study is complete.")
@click.option(
    "--every", default=60.0, show_default=True, type=click.FloatRange(1), help="Seconds between, for --watch."
)
@dry_run_option
@yes_option
@rehearsal_option
def open_(
    folder: Path, live: bool, budget: str | None, watch: bool, every: float, dry_run: bool, yes: bool, rehearsal: bool
) -> None:
    """Open the study's places at the marketplace, or those that are missing."""
    with open_context(folder, rehearsal, live) as here:
        _open(here, _cents(budget), dry_run, yes)
    if watch and not dry_run:
        _watch(folder, rehearsal, every)


def _open(here: CommandContext, budget: int | None, dry_run: bool, yes: bool) -> None:
    from server.assignments import experiment as assignments_experiment
    from server.assignments import places as assignments_places
    from server.payments import ledger
    from server.payments.ledger import dollars
    from server.recruiting import launch as recruiting
    from server.recruiting import snapshot
    from server.recruiting import sync as recruiting_sync
    from server.recruiting.payment_audit import logged
    from study.trial_plan import read_plan

    office, at = here.office, here.office.recruiter.terms
    with office.reading() as session:
        if (found := ledger.launch(session)) is not None:
            recruiting.require_unchanged(found, office.config)
    recruiting.require_payable(office)
    balance = office.recruiter.account()
    if not at.by_hand:
        require_reachable(here.settings)
    plan = read_plan(here.study)
    with office.writing() as session:
        experiment = assignments_experiment.Experiment(
            office.config, plan, office.clock, rehearsal=here.settings.rehearsal
        )
        assignments_places.sync_places(session, experiment)
    if at.by_hand:
        _open_link(here, plan.schedule_fingerprint, budget)
        return
    if found is not None and not dry_run:
        recruiting_sync.reconcile_postings(office)
    standings = snapshot.record_snapshot(office).standings
    with office.reading() as session:
        missing = recruiting.supply(session, standings).missing
        bound, known = ledger.committed(session), ledger.launch(session)
    cost = missing * (office.reward + office.fee)
    most = budget or _cents(here.study.config.pay.budget_usd) or 0
    most = max(most, known.budget_cents if known else 0) or bound + cost
    _show_cost(office, missing, cost, most, balance, here.live)
    if bound + cost > most:
        raise RootnoteError(
            f"{missing} places would bring the launch to {dollars(bound + cost)}, above its budget of "
            f"{dollars(most)}; raise it with --budget, or open fewer by design.listeners."
        )
    if balance is not None and balance < cost:
        raise RootnoteError(
            f"the account has {dollars(balance)} and {dollars(cost)} are needed; add to its balance first."
        )
    if dry_run:
        click.echo("Nothing was opened (--dry-run).")
        return
    kind = "REAL money" if here.live else "no real money"
    _confirm(yes, f"Open {missing} places for {dollars(cost)} ({kind}; budget {dollars(most)})?")
    with office.writing() as session:
        recruiting.begin(session, office, plan.schedule_fingerprint, live=here.live, budget=most)
        _resume(session, office)
    with logged(office, "opened places", f"{kind}, budget {dollars(most)}"):
        done = recruiting_sync.synchronize(office, tell=click.echo)
    click.echo(f"Opened {done.ordered} places. Next: rootnote server status {here.study.folder}")


def _open_link(here: CommandContext, schedule: str, budget: int | None) -> None:
    from server.recruiting import launch as recruiting

    most = budget or _cents(here.study.config.pay.budget_usd) or LINK_BUDGET
    with here.office.writing() as session:
        recruiting.begin(session, here.office, schedule, live=here.live, budget=most)
        _resume(session, here.office)
    click.echo(f"The link to send: {here.office.url if here.settings.public_url else '<your server>/take'}")
    click.echo("You pay those who finish yourself; `rootnote server pay` keeps the list.")


def _resume(session: Session, office: RecruitingContext) -> None:
    from server.audit import study_control
    from server.audit.actor import current_actor

    try:
        study_control.resume(session, current_actor(), "opened from the command line", office.clock())
    except study_control.ControlRefusedError as error:
        raise RootnoteError(str(error)) from None


def _show_cost(office: RecruitingContext, missing: int, cost: int, most: int, balance: int | None, live: bool) -> None:
    from server.payments.ledger import dollars
    from server.recruiting import launch as recruiting
    from study.config import cents

    at = office.recruiter.terms
    openings = len(recruiting.batches(missing, at.batch))
    click.echo(f"{at.name}{'' if live else ' (no real money)'}: {missing} places in {openings} openings")
    click.echo(f"  {missing} x ({dollars(office.reward)} + {dollars(office.fee)} fee) = {dollars(cost)}")
    if at.batch and missing >= 10 and (much := office.recruiter.fee(office.reward, missing)) > office.fee:
        click.echo(f"  one opening of {missing} would cost {dollars(missing * (office.reward + much))}")
    screened = cents(office.config.pay.screened_out_usd)
    if screened and not at.screen_out_apart:
        click.echo(
            f"  each listener who fails the prescreen costs {dollars(screened + office.recruiter.fee(screened))}"
        )
    click.echo(f"  budget {dollars(most)}, account {'not known' if balance is None else dollars(balance)}")


def require_reachable(settings: Settings) -> None:
    """Refuse an address at which a marketplace's workers cannot reach the server.

    Raises:
        RootnoteError: with what is wrong with it.
    """
    import httpx

    from server.settings import LOOPBACK

    url = settings.public_url
    if not url:
        raise RootnoteError(
            "the environment variable ROOTNOTE_PUBLIC_URL is not set: say where listeners reach the server, such as "
            "https://study.example.org."
        )
    host = urlsplit(url).hostname or ""
    if settings.market_url and host in LOOPBACK:
        return
    if not url.startswith("https://"):
        raise RootnoteError(f"ROOTNOTE_PUBLIC_URL is {url}: a marketplace shows pages by https only.")
    if not _is_public(host):
        raise RootnoteError(f"ROOTNOTE_PUBLIC_URL is {url}, which listeners elsewhere cannot reach.")
    try:
        status = httpx.get(f"{url}/healthz", timeout=10, follow_redirects=False).status_code
    except httpx.HTTPError as error:
        raise RootnoteError(
            f"the server cannot be reached at {url} ({type(error).__name__}); start it first."
        ) from None
    if status != 200:
        raise RootnoteError(f"{url}/healthz answers with status {status}, so no study of ours is there.")


def _is_public(host: str) -> bool:
    """Whether a host's addresses are ones that the world can reach; one that cannot be looked up is not."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(one).partition("%")[0]).is_global for one in found)


# ------------------------------------------------------------------ sync and approve


@click.command()
@study_argument
@click.option("--no-approve", is_flag=True, help="Approve nothing.")
@click.option("--watch", is_flag=True, help="Stay, and synchronise now and then, until the study is complete.")
@click.option(
    "--every", default=60.0, show_default=True, type=click.FloatRange(1), help="Seconds between, for --watch."
)
@dry_run_option
@rehearsal_option
def sync(folder: Path, no_approve: bool, watch: bool, every: float, dry_run: bool, rehearsal: bool) -> None:
    """Ask the marketplace what happened; approve complete work, open what is missing, settle what is in doubt."""
    from server.recruiting import sync as recruiting_sync
    from server.recruiting.payment_audit import logged

    if watch and not dry_run:
        _watch(folder, rehearsal, every, approve=not no_approve)
        return
    with open_context(folder, rehearsal) as here:
        _require_launched(here)
        if dry_run:
            _dry(here)
            return
        with logged(here.office, "synchronised"):
            done = recruiting_sync.synchronize(here.office, approve=not no_approve, tell=click.echo)
        click.echo(f"Approved {done.approved}, opened {done.ordered} places, sent {done.granted} payments anew.")
        _tell_open_questions(here)


def _dry(here: CommandContext) -> None:
    """What `sync` and `pay` would do, by looking only: the books are read, and left as they are."""
    from server.db import database
    from server.payments import ledger
    from server.payments.ledger import dollars
    from server.recruiting import due as recruiting_due
    from server.recruiting import launch as recruiting
    from server.recruiting import snapshot

    office = here.office
    openings = snapshot.fetch_snapshot(office).standings
    with database.writing(office.engine) as session:
        snapshot.record_submissions(session, office, openings, office.clock())
        due = recruiting_due.all_due(session, office)
        missing = recruiting.supply(session, openings).missing
        ordered = recruiting.affordable(session, office, missing) if _recruits(session) else 0
        session.rollback()
    _tell_due(due)
    click.echo(f"Would open {ordered} places: {dollars(ordered * (office.reward + office.fee))}.")
    with office.reading() as session:
        doubt = len(recruiting.unplaced(session)), len(ledger.pending(session))
    if any(doubt):
        click.echo(f"Would ask about {doubt[0]} orders and {doubt[1]} payments in doubt.")


def _recruits(session: Session) -> bool:
    from server.audit import study_control
    from server.payments import ledger

    launch = ledger.launch(session)
    return launch is not None and launch.closed_at is None and study_control.control(session).recruiting


@click.command()
@study_argument
@click.argument("pseudonyms", nargs=-1)
@click.option("--anyway", is_flag=True, help="Approve the named listeners' work though it is not complete here.")
@dry_run_option
@yes_option
@rehearsal_option
def approve(folder: Path, pseudonyms: tuple[str, ...], anyway: bool, dry_run: bool, yes: bool, rehearsal: bool) -> None:
    """Approve the work that is complete (of the named assignments only, where any is named)."""
    from server.payments.ledger import dollars
    from server.recruiting import approvals, snapshot
    from server.recruiting import due as recruiting_due
    from server.recruiting.payment_audit import logged

    if anyway and not pseudonyms:
        raise click.UsageError("--anyway needs the pseudonyms of assignments.")
    with open_context(folder, rehearsal) as here:
        _require_launched(here)
        sight = snapshot.record_snapshot(here.office)
        with here.office.reading() as session:
            due = (
                recruiting_due.approvable_by_override(session, here.office)
                if anyway
                else recruiting_due.all_due(session, here.office)
            )
        chosen = [one for one in due if one.how == "approve" and (not pseudonyms or one.pseudonym in pseudonyms)]
        if pseudonyms and (unknown := set(pseudonyms) - {one.pseudonym for one in chosen}):
            raise RootnoteError(
                f"there is nothing to approve for {sorted(unknown)[0]}; `rootnote server sync` says more."
            )
        _tell_due(chosen)
        if dry_run or not chosen:
            return
        _confirm(yes, f"Approve {len(chosen)} for {dollars(sum(one.cost for one in chosen))}?")
        named = ", ".join(one.pseudonym for one in chosen) if pseudonyms else ""
        with logged(here.office, "approved anyway" if anyway else "approved", named):
            done = approvals.approve_listed(here.office, sight, chosen)
        click.echo(f"Approved {done}.")


# ------------------------------------------------------------------ pay and close


@click.command()
@study_argument
@click.option("--bonus", nargs=2, metavar="ASSIGNMENT USD", help="Pay a bonus to one, by pseudonym.")
@click.option("--to-floor", is_flag=True, help="Pay everybody who finished what lifts their hour to the floor.")
@click.option("--reason", default="", help="What the listener reads with a bonus.")
@dry_run_option
@yes_option
@rehearsal_option
def pay(
    folder: Path,
    bonus: tuple[str, str] | None,
    to_floor: bool,
    reason: str,
    dry_run: bool,
    yes: bool,
    rehearsal: bool,
) -> None:
    """Pay everything that is due beside approvals: screen-outs, those who left, those who could not submit."""
    from server.payments.ledger import dollars
    from server.recruiting import due as recruiting_due
    from server.recruiting import grants, snapshot
    from server.recruiting.payment_audit import logged

    with open_context(folder, rehearsal) as here:
        if not here.office.recruiter.terms.by_hand:
            _require_launched(here)
            snapshot.record_snapshot(here.office)
        if not dry_run:
            grants.reconcile_grants(here.office, click.echo)
        if bonus:
            _bonus(here, bonus, reason, dry_run, yes)
            return
        if to_floor:
            _lift(here, reason, dry_run, yes)
            return
        with here.office.reading() as session:
            due = [one for one in recruiting_due.all_due(session, here.office) if one.how not in ("approve", "wait")]
            codes = _codes(session, due)
        _tell_due(due)
        if dry_run or not due:
            return
        total = dollars(sum(one.cost for one in due))
        if here.office.recruiter.terms.by_hand:
            _require_room(here.office, sum(one.cost for one in due))
            for one in due:
                click.echo(f"  {codes[one.assignment]}  {dollars(one.cents)}  {one.kind.replace('_', ' ')}")
            _confirm(yes, f"Have you paid these {len(due)} people {total}? They are written down as paid then")
        else:
            _confirm(yes, f"Pay {len(due)} people {total}?")
        with logged(here.office, "paid"):
            paid, places = _pay_all(here.office, due)
        click.echo(f"Paid {paid}." + (f" Made {places} places to be paid by." if places else ""))


def _require_room(office: RecruitingContext, amount: int) -> None:
    """What is paid by hand is paid before it is written down: whether there is room for it is asked before that."""
    from server.payments import ledger

    with office.writing() as session:
        ledger.require_budget(session, amount)


def _pay_all(office: RecruitingContext, due: list[DuePayment]) -> tuple[int, int]:
    """Pay these: how many were paid, and how many places made for others; neither for who came by a false name."""
    from server.recruiting import grants
    from server.recruiting.marketplaces.base import ForeignSubmissionError, UnknownWorkerError

    if office.recruiter.terms.by_hand:
        return grants.record_manual_payments(office, [(one.assignment, one.kind, one.cents, "") for one in due]), 0
    paid, places = 0, 0
    for one in due:
        try:
            if one.how == "place":
                grants.post_place_for(office, one)
                places += 1
            else:
                paid += grants.pay_directly(office, one.assignment, one.kind, one.cents, "", one.submission)
        except (UnknownWorkerError, ForeignSubmissionError) as error:
            click.echo(f"Assignment {one.pseudonym} is not paid: {error}", err=True)
    return paid, places


def _codes(session: Session, due: list[DuePayment]) -> dict[int, str]:
    from server.db.models import Assignment

    return {one.assignment: session.get_one(Assignment, one.assignment).completion_code for one in due}


def _bonus(here: CommandContext, bonus: tuple[str, str], reason: str, dry_run: bool, yes: bool) -> None:
    from sqlalchemy import select

    from server.db.models import Assignment
    from server.payments import ledger
    from server.payments.ledger import dollars
    from server.recruiting import grants
    from server.recruiting.payment_audit import logged

    pseudonym, amount = bonus[0], _cents(bonus[1])
    if not amount or not reason.strip():
        raise RootnoteError("a bonus needs an amount above 0 and a --reason, which the listener reads.")
    with here.office.reading() as session:
        found = session.scalar(select(Assignment).where(Assignment.pseudonym == pseudonym))
        if found is None:
            raise RootnoteError(
                f"there is no assignment {pseudonym}; listeners.csv of `rootnote server export` has all."
            )
        if ledger.find(session, found, "bonus") is not None:
            raise RootnoteError(f"assignment {pseudonym} has had a bonus already; there is one for each.")
        submission = grants.paid_submission(session, found)
    if submission is None and not here.office.recruiter.terms.pays_unsubmitted:
        raise RootnoteError(f"assignment {pseudonym} has submitted nothing, so no bonus can reach them.")
    click.echo(f"Bonus for {pseudonym}: {dollars(amount)} + {dollars(here.office.recruiter.fee(amount))} fee.")
    if dry_run:
        return
    _confirm(yes, f"Pay {dollars(amount + here.office.recruiter.fee(amount))}?")
    with logged(here.office, "paid a bonus", pseudonym, reason):
        grants.pay_directly(here.office, found.id, "bonus", amount, reason, submission)
    click.echo("Paid 1.")


def _lift(here: CommandContext, reason: str, dry_run: bool, yes: bool) -> None:
    """Lift everybody who finished to the floor of study.toml."""
    from server.payments.ledger import dollars
    from server.recruiting.payment_audit import logged
    from server.recruiting.wage_floor import below_floor, top_up_all
    from study.config import cents

    floor = dollars(cents(here.office.config.pay.floor_usd_per_hour))
    found = below_floor(here.office)
    _tell_short(found, floor)
    ready = [one for one in found if one.ready]
    if dry_run or not ready:
        return
    cost = dollars(sum(one.cents + here.office.recruiter.fee(one.cents) for one in ready))
    if by_hand := here.office.recruiter.terms.by_hand:
        _require_room(here.office, sum(one.cents for one in ready))
        for one in ready:
            click.echo(f"  {one.code}  {dollars(one.cents)}")
    _confirm(yes, f"Have you paid these {len(ready)} people {cost}?" if by_hand else f"Pay {cost}, fees included?")
    with logged(here.office, "lifted to the floor", f"{floor} an hour", reason):
        paid = top_up_all(here.office, ready, reason)
    click.echo(f"Lifted {paid} people to {floor} an hour.")


def _tell_short(found: list[WageTopUp], floor: str) -> None:
    from server.payments.ledger import dollars

    for one in found:
        wait = "" if one.ready else "  (not paid yet: again later)"
        click.echo(f"  {one.pseudonym}  {one.minutes:.1f} min  ${one.hourly:.2f} an hour  {dollars(one.cents)}{wait}")
    if not found:
        click.echo(f"Everybody who finished has {floor} an hour or more.")


@click.command()
@study_argument
@dry_run_option
@yes_option
@rehearsal_option
def close(folder: Path, dry_run: bool, yes: bool, rehearsal: bool) -> None:
    """Stop recruiting: nobody new is let in, those who are in may finish and are paid. Nothing is deleted."""
    from sqlalchemy import select

    from server.audit import study_control
    from server.audit.actor import current_actor
    from server.db.models import Posting
    from server.payments import ledger
    from server.payments.ledger import dollars
    from server.recruiting import launch as recruiting
    from server.recruiting import sync as recruiting_sync
    from server.recruiting.payment_audit import logged

    with open_context(folder, rehearsal) as here:
        _require_launched(here)
        with here.office.reading() as session:
            openings = len(list(session.scalars(select(Posting.id).where(Posting.closed_at.is_(None)))))
            bound, spent = ledger.committed(session), ledger.paid(session)
        click.echo(f"{openings} openings; paid so far {dollars(spent)}, at most {dollars(bound)} as it stands.")
        if dry_run:
            return
        _confirm(yes, f"Stop recruiting and pay what is complete, at most {dollars(bound - spent)}?")
        recruiting.stop(here.office, current_actor())
        with here.office.writing() as session:
            study_control.write_log(
                session, current_actor(), "closed the launch", here.office.clock(), detail=f"at most {dollars(bound)}"
            )
        with logged(here.office, "synchronised"):
            done = recruiting_sync.synchronize(here.office, tell=click.echo)
        click.echo(f"Recruiting has stopped. Approved {done.approved}; answers are kept as they are.")
        _tell_open_questions(here)


# ------------------------------------------------------------------ words


def _confirm(yes: bool, question: str) -> None:
    if not yes:
        click.confirm(question, abort=True)


def _cents(amount: str | float | None) -> int | None:
    """An amount as somebody writes it, in cents.

    Raises:
        RootnoteError: where it is no whole number of cents.
    """
    if amount is None:
        return None
    try:
        value = Decimal(str(amount).removeprefix("$")) * 100
        if not value.is_finite() or value % 1 or not 0 <= value < 10**10:
            raise InvalidOperation
    except InvalidOperation:
        raise RootnoteError(f"'{amount}' is no amount of US dollars and cents, such as 200 or 12.50.") from None
    return int(value)


def _require_launched(here: CommandContext) -> None:
    from server.recruiting import launch as recruiting

    with here.office.reading() as session:
        recruiting.require_launched(session, here.office)


def _tell_due(due: list[DuePayment]) -> None:
    from server.payments.ledger import dollars

    words = {"approve": "approve", "grant": "pay", "place": "make a place to be paid by", "by hand": "pay by hand"}
    for how, text in words.items():
        found = [one for one in due if one.how == how]
        for kind in sorted({one.kind for one in found}):
            some = [one for one in found if one.kind == kind]
            total = dollars(sum(one.cost for one in some))
            click.echo(f"  {text}: {len(some)} x {kind.replace('_', ' ')}, {total} with fees")
    waiting = sum(one.how == "wait" for one in due)
    if waiting:
        click.echo(f"  {waiting} have ended here and may still submit")
    if not due:
        click.echo("Nothing is due.")


def _tell_open_questions(here: CommandContext) -> None:
    from server.payments.ledger import dollars
    from server.recruiting import due as recruiting_due

    with here.office.reading() as session:
        due = [one for one in recruiting_due.all_due(session, here.office) if one.how in ("grant", "place")]
        unsure = recruiting_due.needs_manual_review(session, here.office)
        codes = [(row.opening, assignment.pseudonym if assignment else "") for row, assignment in unsure]
    if due:
        click.echo(f"{len(due)} people are owed {dollars(sum(one.cents for one in due))} more: `rootnote server pay`.")
    for opening, pseudonym in codes:
        who_ = f"by assignment {pseudonym}" if pseudonym else "by somebody who never took the study"
        click.echo(f"To be decided by you: work handed in at {opening} {who_} is not complete.")


def _watch(folder: Path, rehearsal: bool, every: float, *, approve: bool = True) -> None:
    """Synchronise now and then, until every place is filled and nothing waits; Ctrl-C or SIGTERM stops it."""
    with contextlib.suppress(KeyboardInterrupt), _ended_by_sigterm():
        while not _once(folder, rehearsal, approve):
            time.sleep(every)
        click.echo("The study is complete. Next: rootnote server pay, then rootnote server close.")


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end it as Ctrl-C does: a service manager sends it, and so does a rehearsed launch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _once(folder: Path, rehearsal: bool, approve: bool) -> bool:
    from server.recruiting import sync as recruiting_sync
    from server.recruiting.marketplaces.base import MarketplaceError
    from server.recruiting.payment_audit import logged

    try:
        with open_context(folder, rehearsal) as here:
            _require_launched(here)
            with logged(here.office, "synchronised"):
                done = recruiting_sync.synchronize(here.office, approve=approve, tell=click.echo)
            with here.office.reading() as session:
                over = recruiting_sync.is_over(session)
    except MarketplaceError as error:
        click.echo(f"{error} Trying again.", err=True)
        return False
    if any((done.approved, done.granted, done.ordered)):
        click.echo(f"{time.strftime('%H:%M:%S')} approved {done.approved}, opened {done.ordered} places")
    return over
