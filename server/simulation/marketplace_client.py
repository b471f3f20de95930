"""The local marketplaces as simulated workers use them: offers, taking a place, returning it, submitting.

Pages are fetched and forms posted over HTTP, as browsers do. A time limit that passes, which takes too long in a
rehearsal, is set in the local marketplace itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Protocol

import httpx

from embeddings.errors import RootnoteError
from server.simulation.fake_mturk import FakeMTurk
from server.simulation.fake_prolific import FakeProlific
from server.simulation.marketplaces.loopback import FakeMarketplace
from server.simulation.page_parser import ParsedForm
from study.marketplaces import MARKETPLACES, load_marketplace


@dataclass(frozen=True)
class HeldSubmission:
    """A place that a worker has taken, and where the study opens for it."""

    id: str
    url: str


class MarketplaceClient(Protocol):
    """The actions of workers at a marketplace."""

    @property
    def market(self) -> FakeMarketplace: ...

    def enrol(self, index: int) -> str:
        """A new worker, qualified for the study; their id."""

    def offer(self, worker: str, skip: Container[str] = ()) -> str | None:
        """The first offer to this worker now that is not in `skip`, or None."""

    def preview(self, offer: str) -> str | None:
        """The study's address before a place is taken; None if the marketplace shows none."""

    def take(self, worker: str, offer: str) -> HeldSubmission:
        """Take a place."""

    def return_place(self, held: HeldSubmission) -> None:
        """Return a place."""

    def time_out(self, held: HeldSubmission) -> None:
        """Let the time limit of a place pass."""

    def submit(self, worker: str, held: HeldSubmission, back: ParsedForm | None) -> bool:
        """Submit by the form or link of the study's last page, or without one; whether it was accepted."""

    def reject(self, held: HeldSubmission) -> None:
        """Reject a submission, as a researcher does on the marketplace's own pages."""


class MTurkClientPages:
    """Mechanical Turk."""

    def __init__(self, market: FakeMTurk) -> None:
        self.market = market

    def enrol(self, index: int) -> str:
        return self.market.workers.add(f"A{index:05d}").id

    def offer(self, worker: str, skip: Container[str] = ()) -> str | None:
        with self.market.lock:
            self.market.tick()
            who = self.market.workers[worker]
            fitting = (hit.id for hit in self.market.state.offers(who) if who.may("accept", hit.type))
            return next((hit for hit in fitting if hit not in skip), None)

    def preview(self, offer: str) -> str | None:
        return self.market.preview(offer)

    def take(self, worker: str, offer: str) -> HeldSubmission:
        held = self.market.accept(worker, offer)
        return HeldSubmission(held.assignment_id, held.external_url)

    def return_place(self, held: HeldSubmission) -> None:
        self.market.return_(held.id)

    def time_out(self, held: HeldSubmission) -> None:
        self.market.abandon(held.id)

    def submit(self, worker: str, held: HeldSubmission, back: ParsedForm | None) -> bool:
        address = back.action if back else f"{self.market.worker_url}/mturk/externalSubmit"
        fields = back.fields if back else {"assignmentId": held.id, "code": "none"}
        return httpx.post(address, data=fields).status_code == 200

    def reject(self, held: HeldSubmission) -> None:
        with self.market.lock:
            self.market.state.reject(self.market.state.assignment(held.id), "Submitted without taking the study.")


class ProlificClientPages:
    """Prolific."""

    def __init__(self, market: FakeProlific) -> None:
        self.market = market

    def enrol(self, index: int) -> str:
        return self.market.participants.add(f"{index + 1:024x}").id

    def offer(self, worker: str, skip: Container[str] = ()) -> str | None:
        with self.market.lock:
            self.market.tick()
            offered = (study.id for study in self.market.state.offers(self.market.participants[worker]))
            return next((study for study in offered if study not in skip), None)

    def preview(self, offer: str) -> str | None:
        return None

    def take(self, worker: str, offer: str) -> HeldSubmission:
        held = self.market.take(worker, offer)
        return HeldSubmission(held.submission_id, held.external_url)

    def return_place(self, held: HeldSubmission) -> None:
        self.market.return_(held.id)

    def time_out(self, held: HeldSubmission) -> None:
        self.market.abandon(held.id)

    def submit(self, worker: str, held: HeldSubmission, back: ParsedForm | None) -> bool:
        address = back.action if back else f"{self.market.worker_url}/submissions/complete?cc=NOCODE"
        with httpx.Client(base_url=self.market.worker_url) as browser:
            browser.get("/signin", params={"participant": worker})
            accepted = browser.get(address).status_code == 200
        with self.market.acting():
            one = self.market.state.submissions[held.id]
            if one.return_requested and one.status == "AWAITING REVIEW":  # who is asked to return a place does so
                self.market.state.return_place(one)
        return accepted

    def reject(self, held: HeldSubmission) -> None:
        with self.market.lock:
            self.market.state.reject(self.market.state.submission(held.id))


def local_mturk(balance: str) -> MTurkClientPages:
    """A local Mechanical Turk with this balance in US dollars."""
    return MTurkClientPages(FakeMTurk(balance=balance))


def local_prolific(balance: str) -> ProlificClientPages:
    """A local Prolific with this balance in US dollars."""
    return ProlificClientPages(FakeProlific(balance=balance))


def local_marketplace(kind: str, balance: str) -> MarketplaceClient:
    """The local marketplace of a kind, by its workers' side; it is not open yet.

    Raises:
        RootnoteError: if there is no such marketplace, or no local one for it.
    """
    module, _, function = load_marketplace(kind).simulator.partition(":")
    if not module:
        known = [name for name in MARKETPLACES if load_marketplace(name).simulator]
        raise RootnoteError(f"'{kind}' has no local marketplace to rehearse with; choose one of {', '.join(known)}.")
    make: Callable[[str], MarketplaceClient] = getattr(importlib.import_module(module), function)
    return make(balance)
