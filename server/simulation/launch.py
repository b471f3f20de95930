"""A rehearsed launch: `rootnote server rehearse --recruiter mturk|prolific`, from opening to the last payment.

It uses a local marketplace, a server of its own and simulated workers. The researcher's steps are the commands of a
real launch, shown with their output. In the end, our ledger and the marketplace's must equal to the cent the costs
that were shown before opening.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import click
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from embeddings.errors import RootnoteError
from server.cli import cli
from server.db import database
from server.db.models import Payment, Posting
from server.payments import ledger
from server.payments.fees import rounded
from server.payments.formatting import as_money, use_currency
from server.settings import read_settings
from server.simulation.bots import ResponseModel, StimulusLookup
from server.simulation.marketplace_client import MarketplaceClient, local_marketplace
from server.simulation.marketplace_workers import WorkerPool, WorkerVisit, collect_owed, send_workers
from server.simulation.marketplaces.loopback import FakeMarketplace
from server.simulation.server_process import own_server
from study.config import Study, cents, load_study
from study.marketplaces import load_marketplace
from study.trial_plan import read_plan

INCOMPLETE = re.compile(r"incomplete submission at \S+ by assignment ([0-9a-f]+)")
UNCONFIRMED = re.compile(r"^Not confirmed by .*: assignment ([0-9a-f]+), finished", re.MULTILINE)
PLACES = re.compile(r"([\d,]+) x \([$£€][\d,.]+ \+ [$£€][\d,.]+ fee\) = [$£€]([\d,.]+)")
SCREEN_OUT = re.compile(r"fails the prescreen costs [$£€]([\d,.]+)")
WITH_FEES = re.compile(r"[$£€]([\d,.]+) with fees")
EVERY_SECONDS = "1"
EXACT_FEES = func.sum(Payment.fee_cents) + func.sum(Payment.fee_millionths) / 1e6
DEPOSIT = "100000.00"


Guest = Callable[[MarketplaceClient], WorkerVisit]  # takes a place as a person does


@dataclass(frozen=True)
class RehearsedLaunch:
    """The options of a rehearsed launch."""

    seed: int
    model: ResponseModel
    at_once: int
    patience: float


@dataclass(frozen=True)
class MoneyTotals:
    """One row of the table of payments, in cents: what our ledger says was paid, and the fees on it."""

    kind: str
    number: int
    paid: int
    fees: int


@dataclass(frozen=True)
class LaunchOutcome:
    """The result of a launch: workers by outcome, our ledger, the costs shown first, the marketplace's ledger.

    `total` is our ledger's sum, which may have fewer cents than the rounded fees of its rows.
    """

    workers: dict[str, int]
    payments: tuple[MoneyTotals, ...]
    shown: int
    total: int
    ledger: int
    on_hold: int = field(default=0)


def rehearse_launch(
    folder: Path, kind: str, wanted: RehearsedLaunch, *, quiet: bool = False, guest: Guest | None = None
) -> LaunchOutcome:
    """Rehearse the launch of a study on a marketplace; a `guest` takes the first place, before the workers.

    Raises:
        RootnoteError: if anything fails, or the sums differ.
    """
    with contextlib.ExitStack() as stack:
        study = stack.enter_context(as_recruited_by(load_study(folder), kind))
        stack.enter_context(_name_study_in_errors(study, folder))
        use_currency(study.config.currency)
        workers = local_marketplace(kind, DEPOSIT)
        market = stack.enter_context(workers.market)
        environment = _environment(study, folder, market)
        address = stack.enter_context(own_server(study, environment))
        researcher = LaunchRehearsal(study, folder.resolve(), environment | {"ROOTNOTE_PUBLIC_URL": address}, quiet)
        pool = WorkerPool(
            workers,
            StimulusLookup(read_plan(study), study.config.questions),
            wanted.model,
            wanted.seed,
            wanted.patience,
        )
        _launch(researcher, pool, wanted.at_once, guest)
        outcome = _sum_up(study, kind, researcher, market, pool)
    if not quiet:
        _print_outcome(outcome, kind)
    _require_equal(outcome)
    return outcome


@contextlib.contextmanager
def _name_study_in_errors(study: Study, folder: Path) -> Iterator[None]:
    """Name the study's own folder in errors, not the temporary one."""
    try:
        yield
    except RootnoteError as error:
        raise RootnoteError(str(error).replace(str(study.folder), str(folder))) from error


@contextlib.contextmanager
def as_recruited_by(study: Study, kind: str) -> Iterator[Study]:
    """The study with another marketplace: a folder of links to its files, with a study.toml that names it."""
    panel = kind == "link" and study.config.recruiter.has_arrivals  # whose participants nobody sends here
    if study.config.recruiter.kind == kind and not panel:
        yield study
        return
    with tempfile.TemporaryDirectory(prefix="rootnote-") as name:
        folder = Path(name) / study.folder.name
        folder.mkdir()
        for path in study.folder.iterdir():
            if path.name != "study.toml":
                (folder / path.name).symlink_to(path)
        text = (study.folder / "study.toml").read_text(encoding="utf-8")
        (folder / "study.toml").write_text(
            set_recruiter(_without_panel(text) if kind == "link" else text, kind), encoding="utf-8"
        )
        yield load_study(folder)


def _without_panel(text: str) -> str:
    """The text of a study.toml without [recruiter.link] and the sections in it."""
    kept, within = [], False
    for line in text.splitlines():
        if found := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            within = found[1] == "recruiter.link" or found[1].startswith("recruiter.link.")
        kept += [] if within else [line]
    return "\n".join(kept) + "\n"


def set_recruiter(text: str, kind: str) -> str:
    """The text of a study.toml with another recruiter.kind."""
    lines, section, done = [], "", False
    for line in text.splitlines():
        if found := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            section = found[1]
        if section == "recruiter" and re.match(r"\s*kind\s*=", line):
            continue
        lines.append(line)
        if section == "recruiter" and found:
            lines.append(f'kind = "{kind}"')
            done = True
    if not done:
        lines += ["[recruiter]", f'kind = "{kind}"']
    return "\n".join(lines) + "\n"


def _environment(study: Study, folder: Path, market: FakeMarketplace) -> dict[str, str]:
    """The environment of every program that is started: the local marketplace and the rehearsal database."""
    given = dict(os.environ)
    given.setdefault("ROOTNOTE_SECRET", secrets.token_hex(32))
    given.setdefault("ROOTNOTE_REHEARSAL_DATABASE_URL", f"sqlite:///{folder.resolve() / 'rehearsal.sqlite3'}")
    # No keys of real accounts; the local Mechanical Turk accepts any.
    given |= {"AWS_ACCESS_KEY_ID": "rehearsal", "AWS_SECRET_ACCESS_KEY": "rehearsal", "ROOTNOTE_MARKET_URL": market.url}
    for name in ("PROLIFIC_TOKEN", "AWS_PROFILE", "AWS_SESSION_TOKEN", "ROOTNOTE_PUBLIC_URL", "ROOTNOTE_DATABASE_URL"):
        given.pop(name, None)
    return given


# ------------------------------------------------------------------ the researcher


class LaunchRehearsal:
    """The researcher: runs commands and reads their output; `output` has the lines of each command."""

    def __init__(self, study: Study, folder: Path, environment: Mapping[str, str], quiet: bool) -> None:
        self.study, self.folder, self.environment, self._quiet = study, folder, dict(environment), quiet
        self.output: dict[str, list[str]] = {}

    def unit(self) -> Fraction:
        """The cost of one place with its fee, in cents, as `open` shows it before opening."""
        for line in self.output["open"]:
            if found := PLACES.search(line):
                return Fraction(_cents(found[2]), int(found[1].replace(",", "")))
        raise RootnoteError("`rootnote server open` did not show what a place costs.")

    def screen_out(self) -> int:
        """The cost of a listener who fails the prescreen, in cents, as `open` shows it; 0 if it shows none."""
        return next((_cents(found[1]) for line in self.output["open"] if (found := SCREEN_OUT.search(line))), 0)

    def asked_for(self) -> int:
        """The cost that `pay` showed, in cents."""
        return sum(_cents(found) for line in self.output.get("pay", []) for found in WITH_FEES.findall(line))

    def type(self, *words: str) -> str:
        """Run a command of `rootnote server`; returns its output.

        Raises:
            RootnoteError: if it failed, with its message.
        """
        self.echo(f"$ rootnote server {' '.join(words)} STUDY --rehearsal")
        ran = CliRunner().invoke(cli, self._words(*words), env=self._overlay())
        if isinstance(ran.exception, RootnoteError):
            raise RootnoteError(f"`rootnote server {words[0]}` failed: {ran.exception}") from ran.exception
        if ran.exception is not None:
            raise ran.exception
        self.output.setdefault(words[0], []).extend(ran.stdout.splitlines())
        for line in ran.stdout.rstrip().splitlines():
            self.echo(f"  {line}")
        return ran.stdout

    def report(self) -> None:
        """Make Table 1, if the analysis is installed."""
        responses = self.folder / "rehearsal" / "responses.csv"
        if importlib.util.find_spec("pandas") is None:
            self.echo(f"Next, where rootnote[analysis] is installed: rootnote analysis report {responses}")
            return
        words = ["analysis", "report", str(responses), "--out", str(responses.parent / "report")]
        self.echo(f"$ rootnote {' '.join(words)}")
        command = [sys.executable, "-m", "rootnote", *words]
        ran = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RootnoteError(f"the report failed: {ran.stderr.strip().removeprefix('rootnote: ')}")
        for line in ran.stdout.rstrip().splitlines():
            self.echo(f"  {line}")

    @contextlib.contextmanager
    def watching(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command that keeps running; its output is shown as it comes, and it ends with this block."""
        self.echo(f"$ rootnote server {' '.join(words)} STUDY --rehearsal")
        with tempfile.TemporaryFile("w+") as errors:
            command = [sys.executable, "-m", "rootnote", "server", *self._words(*words)]
            child = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=errors, text=True)
            assert child.stdout is not None
            os.set_blocking(child.stdout.fileno(), False)
            try:
                yield child
                self.listen(child)
                errors.seek(0)
                if child.returncode:
                    lines = errors.read().strip().splitlines() or ["no message"]
                    raise RootnoteError(f"`rootnote server {words[0]}` failed: {lines[-1].removeprefix('rootnote: ')}")
            finally:
                if child.poll() is None:
                    child.kill()
                child.wait()
                child.stdout.close()

    def listen(self, child: subprocess.Popen[str]) -> None:
        """Show the new output of a running command."""
        stdout: IO[str] | None = child.stdout
        assert stdout is not None
        for line in _lines(stdout):
            self.echo(f"  {line}")

    def _words(self, *words: str) -> list[str]:
        name, *options = words
        return [name, str(self.study.folder), "--rehearsal", *options]

    def _overlay(self) -> dict[str, str | None]:
        """Changes that make this process's environment the rehearsal's, for one command."""
        return dict.fromkeys(os.environ.keys() - self.environment.keys()) | self.environment

    def echo(self, line: str) -> None:
        if not self._quiet:
            click.echo(line.replace(str(self.study.folder), "STUDY").replace(str(self.folder), "STUDY"))


def _lines(stdout: IO[str]) -> Iterator[str]:
    with contextlib.suppress(TypeError):  # no output: a pipe that does not wait gives None
        for line in stdout:
            yield line.rstrip()


def _launch(researcher: LaunchRehearsal, pool: WorkerPool, at_once: int, guest: Guest | None) -> None:
    researcher.type("open", "--dry-run")
    places = len(read_plan(researcher.study).lists)
    # Twice the cost of all places: enough for workers who fail, leave or submit early.
    limit = ("--budget", f"{float(2 * places * researcher.unit()) / 100:.2f}")
    with researcher.watching("open", *limit, "--yes", "--watch", "--every", EVERY_SECONDS) as child:

        def is_over() -> bool:
            researcher.listen(child)
            return child.poll() is not None or pool.outcomes()["finished"] >= places

        if guest is not None:
            pool.add(guest(pool.client))
        send_workers(pool, at_once, is_over)
        child.terminate()  # not SIGINT, which programs in a shell's background ignore
        child.wait()
    shown = researcher.type("sync")
    for pseudonym in INCOMPLETE.findall(shown):
        researcher.type("approve", pseudonym, "--anyway", "--yes")
    for visit in pool.visits:
        if visit.outcome == "never_opened" and visit.held:
            researcher.echo(f"(the researcher rejects the submission of {visit.worker}, who never took the study)")
            pool.client.reject(visit.held)
    for pseudonym in UNCONFIRMED.findall(researcher.type("sync")):  # they wrote that they could not submit in time
        researcher.type("confirm", pseudonym, "--reason", "The worker wrote to us.")
    researcher.type("pay", "--yes")
    if collect_owed(pool):
        researcher.type("sync")
    researcher.type("close", "--yes")
    researcher.type("status")
    researcher.type("export", "--out", str(researcher.folder / "rehearsal"))
    researcher.report()


def _cents(text: str) -> int:
    return int(text.replace(",", "").replace(".", ""))


# ------------------------------------------------------------------ the money


def _sum_up(study: Study, kind: str, researcher: LaunchRehearsal, market: Any, pool: WorkerPool) -> LaunchOutcome:
    engine = database.connect(read_settings(study, researcher.environment, rehearsal=True).database)
    totals = select(Payment.kind, func.count(), func.sum(Payment.cents), EXACT_FEES)
    places = select(func.count(Payment.id)).join(Posting, Payment.opening_id == Posting.id)
    by_place = places.where(Posting.owed_to.is_(None))
    reward = cents(study.config.pay.reward)
    with database.reading(engine) as session:
        rows = session.execute(totals.where(Payment.state == "paid").group_by(Payment.kind).order_by(Payment.kind))
        payments = tuple(MoneyTotals(str(kind_), int(n), int(paid), round(fees)) for kind_, n, paid, fees in rows)
        approved = session.scalar(by_place.where(Payment.state == "paid", Payment.cents == reward)) or 0
        screened = session.scalar(by_place.where(Payment.state == "paid", Payment.cents != reward)) or 0
        total = ledger.paid(session)
    engine.dispose()
    shown = rounded(approved * researcher.unit()) + screened * researcher.screen_out() + researcher.asked_for()
    spent = sum((entry.amount for entry in market.ledger()), start=market.balance * 0)
    return LaunchOutcome(dict(pool.outcomes()), payments, shown, total, round(spent * 100), round(market.on_hold * 100))


def _print_outcome(outcome: LaunchOutcome, kind: str) -> None:
    click.echo("")
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in sorted(outcome.workers.items()))
    click.echo(f"Workers: {counts}.")
    table = Table(title="Payments", title_justify="left", box=None, pad_edge=False)
    for name in ("", "people", "paid", "fees", "total"):
        table.add_column(name, justify="left" if not name else "right")
    for row in outcome.payments:
        sums = (as_money(row.paid), as_money(row.fees), as_money(row.paid + row.fees))
        table.add_row(row.kind.replace("_", " "), str(row.number), *sums)
    table.add_row("our ledger", "", "", "", as_money(outcome.total), style="bold")
    table.add_row("shown beforehand", "", "", "", as_money(outcome.shown), style="bold")
    table.add_row(f"ledger of {load_marketplace(kind).capabilities.name}", "", "", "", as_money(outcome.ledger))
    table.add_row("still held there", "", "", "", as_money(outcome.on_hold))
    Console().print(table)


def _require_equal(outcome: LaunchOutcome) -> None:
    # What `open` and `pay` show is rounded up for every screen-out and bonus, so that it is never exceeded.
    rounding = sum(row.number for row in outcome.payments if row.kind != "reward")
    if outcome.total != outcome.ledger or not outcome.total <= outcome.shown <= outcome.total + rounding:
        raise RootnoteError(
            f"the sums differ: our ledger {as_money(outcome.total)}, shown beforehand {as_money(outcome.shown)}, the "
            f"marketplace's ledger {as_money(outcome.ledger)}."
        )
    if outcome.on_hold:
        raise RootnoteError(f"{as_money(outcome.on_hold)} are still held at the marketplace after the last payment.")
