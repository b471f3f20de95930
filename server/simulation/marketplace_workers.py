"""Simulated workers of a marketplace: they preview, take a place, take the study, submit or return the place.

In every twenty workers, each of these happens once: one `fails` the prescreen; one `vanishes` or leaves midway; one
`retakes` a place after returning one; one `returns` a place for good; one `forgets` to submit until the time runs out;
one `submits_early`, before finishing; one `never_opens` the study and submits; one submits `twice`. All others take the
study to the end, except those who fail or leave at the rates of study.toml.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import httpx

from embeddings.errors import RootnoteError
from server.simulation.bots import TIMEOUT, BotError, ResponseModel, SimulatedListener, StimulusLookup
from server.simulation.marketplace_client import HeldSubmission, MarketplaceClient
from server.simulation.marketplaces.account import RefusedError
from server.simulation.page_parser import ParsedPage, read_page

Deviation = Literal["", "fails", "vanishes", "retakes", "returns", "forgets", "submits_early", "twice", "never_opens"]
DEVIATIONS: dict[int, Deviation] = {
    1: "fails",
    2: "retakes",
    3: "forgets",
    4: "returns",
    5: "submits_early",
    6: "vanishes",
    7: "twice",
    8: "never_opens",
}
OVERRIDES: dict[Deviation, dict[str, float]] = {
    "fails": {"fail_prescreen": 1.0, "abandon": 0.0},
    "vanishes": {"fail_prescreen": 0.0, "abandon": 1.0},
    "forgets": {"fail_prescreen": 0.0, "abandon": 0.0},
    "twice": {"fail_prescreen": 0.0, "abandon": 0.0},
}
EVERY = 20
PAUSE_SECONDS = 0.1
BACK_LATER_SECONDS = 2.0
NO_PLACE = ("full", "complete", "too_late")


@dataclass
class WorkerVisit:
    """The actions of one worker, and the result."""

    worker: str
    deviation: Deviation
    outcome: str = ""
    previewed: bool = False
    submitted: int = 0
    held: HeldSubmission | None = None


@dataclass
class WorkerPool:
    """The state that the workers' threads share, under one lock."""

    client: MarketplaceClient
    stimuli: StimulusLookup
    model: ResponseModel
    seed: int
    patience: float
    visits: list[WorkerVisit] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    enrolled: int = 0
    begun: int = 0
    again: list[int] = field(default_factory=list)  # turns of workers who found no place, for others

    def enrol(self) -> tuple[str, int]:
        """A new worker and their turn."""
        with self.lock:
            self.enrolled += 1
            if not self.again:
                self.begun += 1
            return self.client.enrol(self.enrolled - 1), self.again.pop() if self.again else self.begun - 1

    def add(self, visit: WorkerVisit, turn: int | None = None) -> None:
        with self.lock:
            self.visits.append(visit)
            if turn is not None and visit.outcome in NO_PLACE:
                self.again.append(turn)

    def outcomes(self) -> Counter[str]:
        with self.lock:
            return Counter(visit.outcome for visit in self.visits)


def send_workers(pool: WorkerPool, at_once: int, watch: Callable[[], bool]) -> None:
    """Send workers until `watch` says that the launch is over.

    Raises:
        RootnoteError: if the study or the marketplace did not behave, or no place was offered for too long.
    """
    threads = [threading.Thread(target=_work, args=(pool,), daemon=True) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        while pool.error is None and not watch():
            time.sleep(PAUSE_SECONDS)
    finally:
        pool.over.set()
        for thread in threads:
            thread.join()
    _raise_readable(pool.error)


def _raise_readable(error: BaseException | None) -> None:
    if isinstance(error, BotError | LookupError | RefusedError):
        raise RootnoteError(f"the rehearsal found a fault: {error}.") from error
    if isinstance(error, httpx.HTTPError):
        raise RootnoteError(f"the rehearsal's server does not answer ({type(error).__name__}).") from error
    if error is not None:
        raise error


def _work(pool: WorkerPool) -> None:
    try:
        while not pool.over.is_set():
            worker, turn = pool.enrol()
            visit = WorkerVisit(worker, DEVIATIONS.get(turn % EVERY, ""))
            offer = _wait_for_offer(pool, worker)
            if offer is None:
                return
            pool.add(_visit(pool, turn, visit, offer), turn)
            if visit.outcome in NO_PLACE:
                pool.over.wait(BACK_LATER_SECONDS)
    except BaseException as error:
        pool.error = pool.error or error


def _wait_for_offer(pool: WorkerPool, worker: str) -> str | None:
    until = time.monotonic() + pool.patience
    while not pool.over.is_set():
        if offer := pool.client.offer(worker):
            return offer
        if time.monotonic() > until:
            raise RootnoteError(f"no place was offered for {pool.patience:.0f} seconds, but the launch is not over.")
        time.sleep(PAUSE_SECONDS)
    return None


def _visit(pool: WorkerPool, turn: int, visit: WorkerVisit, offer: str) -> WorkerVisit:
    """One worker's whole visit."""
    client = pool.client
    visit.previewed = _preview(client, offer)
    held = _take(pool, visit.worker, offer)
    if held is None:
        visit.outcome = "too_late"
        return visit
    if visit.deviation == "returns":
        _fetch_page(held.url)
        client.return_place(held)
        visit.outcome = "returned"
        return visit
    if visit.deviation in ("submits_early", "never_opens"):
        came = visit.deviation == "submits_early" and _agree(held.url)
        visit.submitted += client.submit(visit.worker, held, None)
        visit.outcome, visit.held = "submitted_early" if came else "never_opened", held
        return visit
    if visit.deviation == "retakes":
        _agree(held.url)
        client.return_place(held)
        again = _take(pool, visit.worker, client.offer(visit.worker) or offer)
        if again is None:
            visit.outcome = "returned"
            return visit
        held = again
    overrides = OVERRIDES.get(visit.deviation, {})
    model = ResponseModel(pool.model.config.model_copy(update=overrides), pool.model.true_rates)
    listener = SimulatedListener("", turn, pool.seed, pool.stimuli, model, start_url=held.url)
    visit.outcome = listener.take_study().outcome
    _end_visit(client, visit, held, listener.page)
    return visit


def _take(pool: WorkerPool, worker: str, offer: str) -> HeldSubmission | None:
    """Take a place; None if another worker was faster, or the marketplace allows no second place."""
    try:
        return pool.client.take(worker, offer)
    except RefusedError:
        return None


def _preview(client: MarketplaceClient, offer: str) -> bool:
    address = client.preview(offer)
    if address is None:
        return False
    page = _fetch_page(address)
    if page.step not in ("preview", "full"):
        raise BotError(f"a preview shows the page '{page.step}'")
    if page.forms:
        raise BotError("a preview has a form, so a worker could begin without a place")
    return True


def _fetch_page(address: str) -> ParsedPage:
    reply = httpx.get(address, timeout=TIMEOUT, follow_redirects=True)
    if reply.status_code != 200:
        raise BotError(f"the study's page answered with status {reply.status_code}")
    return read_page(reply.text)


def _agree(address: str) -> bool:
    """Read the consent page, agree and stop; False if there was no place."""
    form = next((form for form in _fetch_page(address).forms if form.action.endswith("/take")), None)
    if form is None:
        return False
    to = str(httpx.URL(address).join(form.action))
    reply = httpx.post(to, data=form.fields, timeout=TIMEOUT, follow_redirects=True)
    return read_page(reply.text).step != "full"


def _end_visit(client: MarketplaceClient, visit: WorkerVisit, held: HeldSubmission, page: ParsedPage) -> None:
    """End a visit at the marketplace."""
    if visit.outcome == "vanished" or (visit.outcome == "finished" and visit.deviation == "forgets"):
        client.time_out(held)
    elif page.back is None or visit.outcome in ("withdrawn", "expired"):
        client.return_place(held)
    else:
        for _ in range(1 + (visit.deviation == "twice")):
            visit.submitted += client.submit(visit.worker, held, page.back)
        if not visit.submitted:
            raise BotError(f"the marketplace did not accept the submission of worker {visit.worker}")


def collect_owed(pool: WorkerPool) -> int:
    """Let workers take the places that were made to pay them, and submit; returns how many did."""
    paid = 0
    for visit in pool.visits:
        refused: set[str] = set()  # places for others, which are still open
        while visit.outcome == "finished" and not visit.submitted:
            offer = pool.client.offer(visit.worker, refused)
            if offer is None:
                break
            held = pool.client.take(visit.worker, offer)
            page = _fetch_page(held.url)
            if page.step == "taken":
                refused.add(offer)
                pool.client.return_place(held)
                continue
            if page.step != "owed" or page.back is None:
                raise BotError(f"a place made for a payment shows the page '{page.step}'")
            visit.submitted += pool.client.submit(visit.worker, held, page.back)
            paid += 1
    return paid
