"""A study at a local Mechanical Turk: the site, the market, the context, and workers who walk through both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from server.assignments import experiment, places
from server.audit import study_control
from server.db.models import Base, Payment
from server.identity.tokens import TokenSigner
from server.identity.vault import Vault, new_key
from server.payments import ledger
from server.recruiting import confirmation, direct_payments, launch, snapshot, sync
from server.recruiting import due as due_payments
from server.recruiting.context import RecruitingContext
from server.recruiting.marketplaces.base import ForeignSubmissionError
from server.recruiting.marketplaces.mturk import MTurkMarketplace
from server.simulation.fake_mturk import AcceptedHit, FakeMTurk
from server.simulation.marketplaces.turk_places import FakeMTurkError
from study.config import load_study
from study.trial_plan import read_plan
from tests.server.conftest import SECRET, FakeClock, Site, Walker

MTURK = '[recruiter]\nkind = "mturk"\n'
NO_PRESCREEN = '[prescreen]\nkind = "none"\n'
KEY = new_key()
URL = "https://study.example.org"


def empty_database(engine: Engine) -> None:
    """Delete every run, posting and payment, as if nobody had come and nothing had been launched."""
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(text("UPDATE places SET assignment_id = NULL, expires_at = NULL, filled = false"))
        connection.execute(text("UPDATE control SET recruiting = true"))
        for table in reversed(Base.metadata.sorted_tables):
            if table.name not in ("study", "places", "control", "log", "log_head", "consent_texts"):
                connection.execute(table.delete())


@dataclass
class MTurkStudy:
    """Everything of one study at one market."""

    site: Site
    market: FakeMTurk
    context: RecruitingContext
    clock: FakeClock
    reported: list[str] = field(default_factory=list)

    def launch(self, budget: int = 100_000) -> sync.SyncResult:
        plan = read_plan(self.site.study)
        with self.context.writing() as session:
            places.sync_places(session, experiment.Experiment(self.context.config, plan, self.clock))
            launch.begin(session, self.context, plan.schedule_fingerprint, live=False, budget=budget)
            with contextlib.suppress(study_control.ControlRefusedError):
                study_control.resume(session, "test", "", self.clock())
        return self.sync()

    def sync(self) -> sync.SyncResult:
        return sync.synchronize(self.context, report=self.reported.append)

    def pay(self, *, confirms: bool = True) -> list[due_payments.DuePayment]:
        """What `rootnote server pay` does, after the researcher has confirmed whoever the market did not list."""
        snapshot.record_snapshot(self.context)
        if confirms:
            self.confirm_all()
        direct_payments.reconcile_direct_payments(self.context)
        with self.context.reading() as session:
            due = [one for one in due_payments.all_due(session, self.context) if one.method not in ("approve", "wait")]
        for one in due:
            if one.method == "place":
                direct_payments.post_place_for(self.context, one)
            else:
                with contextlib.suppress(ForeignSubmissionError):
                    direct_payments.pay_directly(self.context, one.assignment, one.kind, one.cents, "", one.submission)
        return due

    def confirm_all(self) -> None:
        """What `rootnote server confirm` does, for every run that waits for it."""
        with self.context.reading() as session:
            waiting = confirmation.unconfirmed_work(session, self.context)
        for one in waiting:
            confirmation.decide(self.context, one.pseudonym, "test", "wrote to us", decline=False)

    def wait(self, minutes: float) -> None:
        self.clock.advance(minutes)

    # ---------------------------------------------------------- workers

    def accept(self, worker: str) -> AcceptedHit | None:
        """Let a worker accept whatever of ours is offered to them."""
        if worker not in {one.id for one in self.market.workers}:
            self.market.workers.add(worker)
        for hit in list(self.market.state.hits.values()):
            with contextlib.suppress(FakeMTurkError):
                return self.market.accept(worker, hit.id)
        return None

    def arrive(self, accepted: AcceptedHit) -> MTurkWalker:
        walker = MTurkWalker(self.site)
        walker.mturk, walker.accepted = self, accepted
        return walker.arrive()

    def worker(self, name: str) -> MTurkWalker:
        accepted = self.accept(name)
        assert accepted is not None, f"nothing is offered to {name}"
        return self.arrive(accepted)

    # ---------------------------------------------------------- what is seen

    @property
    def cost(self) -> int:
        """Everything that left the account, in cents."""
        spent = sum((entry.amount for entry in self.market.ledger()), Decimal()) * 100
        return int(spent.to_integral_value(ROUND_HALF_UP))

    @property
    def paid(self) -> int:
        """The same, as our ledger has it."""
        with self.context.reading() as session:
            return ledger.paid(session)

    def states(self) -> list[str]:
        return [row[0] for row in self.site.query("SELECT state FROM assignments ORDER BY id")]

    def rewards(self) -> list[str]:
        """Who was paid a reward by the market, once a reward."""
        return sorted(entry.worker for entry in self.market.ledger() if entry.kind == "reward")

    def open_places(self) -> int:
        return sum(hit.count("free") for hit in self.market.state.hits.values() if hit.is_open(self.market.now()))


class MTurkWalker(Walker):
    """A worker with a browser, in the frame of a HIT; no cookie is sent back."""

    mturk: MTurkStudy
    accepted: AcceptedHit

    def __post_init__(self) -> None:
        super().__post_init__()
        self.client._cookies = None  # third-party cookies are blocked

    def arrive(self) -> MTurkWalker:
        reply = self.client.get("/take", query_string=query_of(self.accepted.external_url))
        if reply.status_code == 303:
            self.address = reply.location
            self.reload()
        else:
            self.page = reply
        return self

    def agree(self) -> MTurkWalker:
        fields = {name: self.find(rf'name="{name}" value="([^"]+)"') for name in ("entry", "arrival")}
        reply = self.client.post("/take", data=fields)
        if reply.status_code == 303:
            self.address = reply.location
            self.reload()
        else:
            self.page = reply
        return self

    def take_part(self) -> MTurkWalker:
        self.agree().screen()
        self.go("instructions")
        self.listen().finish()
        return self

    @property
    def may_hand_in(self) -> bool:
        return 'action="' in self.html and "/mturk/externalSubmit" in self.html

    def hand_in(self) -> MTurkWalker:
        """Press the button at the end: the form goes to the marketplace, with what it carries."""
        assert self.find(r'<form class="actions" method="post" action="([^"]+)" data-back>').endswith("/externalSubmit")
        fields = {name: self.find(rf'name="{name}" value="([^"]+)"') for name in ("assignmentId", "code", "outcome")}
        self.mturk.market.submit(fields.pop("assignmentId"), **fields)
        return self


def query_of(address: str) -> dict[str, str]:
    """The parameters with which a worker arrives."""
    return dict(parse_qsl(urlsplit(address).query))


@pytest.fixture
def make_mturk(make_site: Callable[..., Site], clock: FakeClock) -> Iterator[Callable[..., MTurkStudy]]:
    """Make a study at a market: `make_mturk(listeners=2, balance="100.00", toml="[pay]…")`."""
    with contextlib.ExitStack() as stack:

        def make(balance: str = "1000.00", attempts: int = 1, toml: str = "", **options: Any) -> MTurkStudy:
            market = stack.enter_context(FakeMTurk(balance, clock=clock))
            vault = Vault([KEY])
            settings = {"vault": vault, "market_url": market.url, "rehearsal": True}
            site = make_site(toml=MTURK + toml, settings=settings, **options)
            config = load_study(site.study.folder).config
            recruiter = MTurkMarketplace(config.recruiter.settings, "Test", endpoint=market.url, attempts=attempts)
            stack.callback(recruiter.disconnect)
            engine = site.app.extensions["rootnote"].engine
            context = RecruitingContext(engine, recruiter, config, TokenSigner(SECRET), vault, f"{URL}/take", clock)
            return MTurkStudy(site, market, context, clock)

        yield make


def made_payments(session: Session) -> list[Payment]:
    """Every payment that was made, oldest first."""
    return list(session.scalars(select(Payment).where(Payment.state == "paid").order_by(Payment.id)))
