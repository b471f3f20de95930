"""A rehearsed launch: `rootnote server rehearse --recruiter mturk|prolific`, from opening to the last payment.

A marketplace on this machine, a server of its own, and simulated workers; the researcher's part is played by the very
commands that a real launch takes, shown as they are typed with what they say. In the end the books and the
marketplace's own ledger must agree to the cent with what was shown before anything was opened.
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
from server.payments.ledger import dollars
from server.settings import read_settings
from server.simulation.bots import ResponseModel, StimulusLookup
from server.simulation.fake_mturk import FakeMTurk
from server.simulation.fake_prolific import FakeProlific
from server.simulation.marketplace_client import MarketplaceClient, make_client
from server.simulation.marketplace_workers import WorkerPool, WorkerVisit, collect_owed, send_workers
from server.simulation.marketplaces.loopback import FakeMarketplace
from server.simulation.server_process import own_server
from study.config import Study, load_study
from study.trial_plan import read_plan

MARKETS: dict[str, type[FakeMTurk] | type[FakeProlific]] = {"mturk": FakeMTurk, "prolific": FakeProlific}
DOUBTFUL = re.compile(r"by assignment ([0-9a-f]+) is not complete")
PLACE = re.compile(r" x \(\$([\d,.]+) \+ \$([\d,.]+) fee\)")
WITH_FEES = re.compile(r"\$([\d,.]+) with fees")
EVERY_SECONDS = "1"
DEPOSIT = "100000.00"


Guest = Callable[[MarketplaceClient], WorkerVisit]  # takes a place as a person does


@dataclass(frozen=True)
class RehearsedLaunch:
    """What a rehearsed launch is to be like."""

    seed: int
    mind: ResponseModel
    at_once: int
    patience: float


@dataclass(frozen=True)
class MoneyTotals:
    """One row of the money table, in cents: what the books say was paid, and the fees on it."""

    kind: str
    number: int
    paid: int
    fees: int


@dataclass(frozen=True)
class LaunchOutcome:
    """What came of a launch: workers by outcome, the books, what was shown beforehand, what left the account."""

    workers: dict[str, int]
    books: tuple[MoneyTotals, ...]
    shown: int
    ledger: int
    on_hold: int = field(default=0)


def rehearse_launch(
    folder: Path, kind: str, wanted: RehearsedLaunch, *, quiet: bool = False, guest: Guest | None = None
) -> LaunchOutcome:
    """Rehearse the launch of a study on a marketplace; a `guest` takes the first place, and then come the workers.

    Raises:
        RootnoteError: where anything did not behave, or the sums differ.
    """
    with contextlib.ExitStack() as stack:
        study = stack.enter_context(as_recruited_by(load_study(folder), kind))
        stack.enter_context(_naming(study, folder))
        market = stack.enter_context(MARKETS[kind](balance=DEPOSIT))
        environment = _environment(study, folder, market)
        address = stack.enter_context(own_server(study, environment))
        desk = LaunchRehearsal(study, folder.resolve(), environment | {"ROOTNOTE_PUBLIC_URL": address}, quiet)
        lookup = StimulusLookup(read_plan(study), study.config.questions)
        staff = WorkerPool(make_client(kind, market), lookup, wanted.mind, wanted.seed, wanted.patience)
        _launch(desk, staff, wanted.at_once, guest)
        outcome = _sum_up(study, kind, desk, market, staff)
    if not quiet:
        _tell(outcome, kind)
    _require_equal(outcome)
    return outcome


@contextlib.contextmanager
def _naming(study: Study, folder: Path) -> Iterator[None]:
    """Name the study's own folder in what goes wrong, not the one that it is rehearsed in."""
    try:
        yield
    except RootnoteError as error:
        raise RootnoteError(str(error).replace(str(study.folder), str(folder))) from error


@contextlib.contextmanager
def as_recruited_by(study: Study, kind: str) -> Iterator[Study]:
    """The study with another recruiter: a folder of links to its files, with a study.toml that names the recruiter."""
    if study.config.recruiter.kind == kind:
        yield study
        return
    with tempfile.TemporaryDirectory(prefix="rootnote-") as name:
        folder = Path(name) / study.folder.name
        folder.mkdir()
        for path in study.folder.iterdir():
            if path.name != "study.toml":
                (folder / path.name).symlink_to(path)
        text = (study.folder / "study.toml").read_text(encoding="utf-8")
        (folder / "study.toml").write_text(set_recruiter(text, kind), encoding="utf-8")
        yield load_study(folder)


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
    """The environment of everything that is started: the local marketplace and the rehearsal's own database."""
    given = dict(os.environ)
    given.setdefault("ROOTNOTE_SECRET", secrets.token_hex(32))
    given.setdefault("ROOTNOTE_REHEARSAL_DATABASE_URL", f"sqlite:///{folder.resolve() / 'rehearsal.sqlite3'}")
    # Keys of real accounts have no business here, and the local Mechanical Turk takes any.
    given |= {"AWS_ACCESS_KEY_ID": "rehearsal", "AWS_SECRET_ACCESS_KEY": "rehearsal", "ROOTNOTE_MARKET_URL": market.url}
    for name in ("PROLIFIC_TOKEN", "AWS_PROFILE", "AWS_SESSION_TOKEN", "ROOTNOTE_PUBLIC_URL", "ROOTNOTE_DATABASE_URL"):
        given.pop(name, None)
    return given


# ------------------------------------------------------------------ the researcher


class LaunchRehearsal:
    """The researcher: types commands, and reads what they say; `said` has the lines of each command."""

    def __init__(self, study: Study, folder: Path, environment: Mapping[str, str], quiet: bool) -> None:
        self.study, self.folder, self.environment, self._quiet = study, folder, dict(environment), quiet
        self.said: dict[str, list[str]] = {}

    def unit(self) -> int:
        """What one place costs with its fee, in cents, as `open` says before anything is opened."""
        for line in self.said["open"]:
            if found := PLACE.search(line):
                return _cents(found[1]) + _cents(found[2])
        raise RootnoteError("`rootnote server open` did not say what a place costs.")

    def asked_for(self) -> int:
        """What `pay` said it would cost, in cents."""
        return sum(_cents(found) for line in self.said.get("pay", []) for found in WITH_FEES.findall(line))

    def type(self, *words: str) -> str:
        """One command of `rootnote server`, with its output.

        Raises:
            RootnoteError: where it failed, with what it said.
        """
        self.say(f"$ rootnote server {' '.join(words)} STUDY --rehearsal")
        ran = CliRunner().invoke(cli, self._words(*words), env=self._overlay())
        if isinstance(ran.exception, RootnoteError):
            raise RootnoteError(f"`rootnote server {words[0]}` failed: {ran.exception}") from ran.exception
        if ran.exception is not None:
            raise ran.exception
        self.said.setdefault(words[0], []).extend(ran.stdout.splitlines())
        for line in ran.stdout.rstrip().splitlines():
            self.say(f"  {line}")
        return ran.stdout

    def report(self) -> None:
        """Table 1, by the analysis, which may not be installed here."""
        responses = self.folder / "rehearsal" / "responses.csv"
        if importlib.util.find_spec("pandas") is None:
            self.say(f"Next, where rootnote[analysis] is installed: rootnote analysis report {responses}")
            return
        words = ["analysis", "report", str(responses), "--out", str(responses.parent / "report")]
        self.say(f"$ rootnote {' '.join(words)}")
        command = [sys.executable, "-m", "rootnote", *words]
        ran = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RootnoteError(f"the report failed: {ran.stderr.strip().removeprefix('rootnote: ')}")
        for line in ran.stdout.rstrip().splitlines():
            self.say(f"  {line}")

    @contextlib.contextmanager
    def watching(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command that stays; what it says is told as it comes, and it is ended at the latest here."""
        self.say(f"$ rootnote server {' '.join(words)} STUDY --rehearsal")
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
                    lines = errors.read().strip().splitlines() or ["it said nothing"]
                    raise RootnoteError(f"`rootnote server {words[0]}` failed: {lines[-1].removeprefix('rootnote: ')}")
            finally:
                if child.poll() is None:
                    child.kill()
                child.wait()
                child.stdout.close()

    def listen(self, child: subprocess.Popen[str]) -> None:
        """Tell what a command that stays has said since."""
        stdout: IO[str] | None = child.stdout
        assert stdout is not None
        for line in _lines(stdout):
            self.say(f"  {line}")

    def _words(self, *words: str) -> list[str]:
        name, *options = words
        return [name, str(self.study.folder), "--rehearsal", *options]

    def _overlay(self) -> dict[str, str | None]:
        """What makes this process's environment the rehearsal's, for the time of a command."""
        return dict.fromkeys(os.environ.keys() - self.environment.keys()) | self.environment

    def say(self, line: str) -> None:
        if not self._quiet:
            click.echo(line.replace(str(self.study.folder), "STUDY").replace(str(self.folder), "STUDY"))


def _lines(stdout: IO[str]) -> Iterator[str]:
    with contextlib.suppress(TypeError):  # nothing was said: a pipe that does not wait gives None
        for line in stdout:
            yield line.rstrip()


def _launch(desk: LaunchRehearsal, staff: WorkerPool, at_once: int, guest: Guest | None) -> None:
    desk.type("open", "--dry-run")
    places = len(read_plan(desk.study).lists)
    # Twice what all places cost: enough for those who fail, leave or hand in early.
    limit = ("--budget", f"{2 * places * desk.unit() / 100:.2f}")
    with desk.watching("open", *limit, "--yes", "--watch", "--every", EVERY_SECONDS) as child:

        def is_over() -> bool:
            desk.listen(child)
            return child.poll() is not None or staff.outcomes()["finished"] >= places

        if guest is not None:
            staff.add(guest(staff.workplace))
        send_workers(staff, at_once, is_over)
        child.terminate()  # not by SIGINT, which programs begun in a shell's background do not hear
        child.wait()
    said = desk.type("sync")
    for pseudonym in DOUBTFUL.findall(said):
        desk.type("approve", pseudonym, "--anyway", "--yes")
    for visit in staff.visits:
        if visit.outcome == "never_came" and visit.held:
            desk.say(f"(the researcher rejects by hand, at the marketplace, what {visit.worker} handed in untaken)")
            staff.workplace.reject(visit.held)
    desk.type("pay", "--yes")
    if collect_owed(staff):
        desk.type("sync")
    desk.type("close", "--yes")
    desk.type("status")
    desk.type("export", "--out", str(desk.folder / "rehearsal"))
    desk.report()


def _cents(text: str) -> int:
    return int(text.replace(",", "").replace(".", ""))


# ------------------------------------------------------------------ the money


def _sum_up(study: Study, kind: str, desk: LaunchRehearsal, market: Any, staff: WorkerPool) -> LaunchOutcome:
    engine = database.connect(read_settings(study, desk.environment, rehearsal=True).database)
    totals = select(Payment.kind, func.count(), func.sum(Payment.cents), func.sum(Payment.fee_cents))
    places = select(func.count(Payment.id)).join(Posting, Payment.opening_id == Posting.id)
    by_place = places.where(Posting.owed_to.is_(None))
    with database.reading(engine) as session:
        rows = session.execute(totals.where(Payment.state == "paid").group_by(Payment.kind).order_by(Payment.kind))
        books = tuple(MoneyTotals(str(kind_), int(n), int(paid), int(fees)) for kind_, n, paid, fees in rows)
        approved = session.scalar(by_place.where(Payment.state == "paid")) or 0
    engine.dispose()
    shown = approved * desk.unit() + desk.asked_for()
    ledger = sum((entry.amount for entry in market.ledger()), start=market.balance * 0)
    return LaunchOutcome(dict(staff.outcomes()), books, shown, int(ledger * 100), int(market.on_hold * 100))


def _tell(outcome: LaunchOutcome, kind: str) -> None:
    click.echo("")
    told = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in sorted(outcome.workers.items()))
    click.echo(f"Workers: {told}.")
    table = Table(title="Money", title_justify="left", box=None, pad_edge=False)
    for name in ("", "people", "paid", "fees", "total"):
        table.add_column(name, justify="left" if not name else "right")
    for row in outcome.books:
        sums = (dollars(row.paid), dollars(row.fees), dollars(row.paid + row.fees))
        table.add_row(row.kind.replace("_", " "), str(row.number), *sums)
    total = sum(row.paid + row.fees for row in outcome.books)
    table.add_row("our books", "", "", "", dollars(total), style="bold")
    table.add_row("shown beforehand", "", "", "", dollars(outcome.shown), style="bold")
    table.add_row(f"{MARKETS[kind].__name__.removeprefix('Fake')}'s ledger", "", "", "", dollars(outcome.ledger))
    table.add_row("still held back there", "", "", "", dollars(outcome.on_hold))
    Console().print(table)


def _require_equal(outcome: LaunchOutcome) -> None:
    books = sum(row.paid + row.fees for row in outcome.books)
    if not books == outcome.shown == outcome.ledger:
        raise RootnoteError(
            f"the sums differ: our books {dollars(books)}, shown beforehand {dollars(outcome.shown)}, the "
            f"marketplace's ledger {dollars(outcome.ledger)}."
        )
    if outcome.on_hold:
        raise RootnoteError(
            f"{dollars(outcome.on_hold)} are still held back at the marketplace after the last payment."
        )
