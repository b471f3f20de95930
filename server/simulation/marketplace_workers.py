"""Simulated workers of a marketplace: they preview, take a place, take the study, hand in, give back, come again.

What every launch meets sooner or later, these workers do as well, each once in twenty: one `fails` the prescreen; one
`vanishes` or leaves midway; one `comes_again` after giving a place back; one `gives_back` for good; one `forgets` to
hand in what is finished, until the time runs out; one `hands_in_early` what is not; one `never_comes` and hands in all
the same; one hands in `twice`. All others go straight through, but for those who fail or leave by study.toml's rates.
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
from server.simulation.marketplaces.prolific_studies import FakeProlificError
from server.simulation.marketplaces.turk_places import FakeMTurkError
from server.simulation.page_parser import ParsedPage, read_page

Trick = Literal[
    "", "fails", "vanishes", "comes_again", "gives_back", "forgets", "hands_in_early", "twice", "never_comes"
]
TRICKS: dict[int, Trick] = {
    1: "fails",
    2: "comes_again",
    3: "forgets",
    4: "gives_back",
    5: "hands_in_early",
    6: "vanishes",
    7: "twice",
    8: "never_comes",
}
SURELY: dict[Trick, dict[str, float]] = {
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
    """What one worker did and what came of it."""

    worker: str
    trick: Trick
    outcome: str = ""
    previewed: bool = False
    handed_in: int = 0
    held: HeldSubmission | None = None


@dataclass
class WorkerPool:
    """What the workers' threads share, under one lock."""

    workplace: MarketplaceClient
    memory: StimulusLookup
    mind: ResponseModel
    seed: int
    patience: float
    visits: list[WorkerVisit] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    enrolled: int = 0
    begun: int = 0
    again: list[int] = field(default_factory=list)  # turns of those who found no place: somebody else's then

    def enrol(self) -> tuple[str, int]:
        """A new worker, and which turn is theirs."""
        with self.lock:
            self.enrolled += 1
            if not self.again:
                self.begun += 1
            return self.workplace.enrol(self.enrolled - 1), self.again.pop() if self.again else self.begun - 1

    def add(self, visit: WorkerVisit, turn: int | None = None) -> None:
        with self.lock:
            self.visits.append(visit)
            if turn is not None and visit.outcome in NO_PLACE:
                self.again.append(turn)

    def outcomes(self) -> Counter[str]:
        with self.lock:
            return Counter(visit.outcome for visit in self.visits)


def send_workers(staff: WorkerPool, at_once: int, watch: Callable[[], bool]) -> None:
    """Send workers until `watch` says that the launch is over.

    Raises:
        RootnoteError: where the study or the marketplace did not behave, or nobody was offered a place for too long.
    """
    threads = [threading.Thread(target=_work, args=(staff,), daemon=True) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        while staff.error is None and not watch():
            time.sleep(PAUSE_SECONDS)
    finally:
        staff.over.set()
        for thread in threads:
            thread.join()
    _raise_kindly(staff.error)


def _raise_kindly(error: BaseException | None) -> None:
    if isinstance(error, BotError | LookupError | FakeMTurkError | FakeProlificError):
        raise RootnoteError(f"the rehearsal found a fault: {error}.") from error
    if isinstance(error, httpx.HTTPError):
        raise RootnoteError(f"the rehearsal's server does not answer ({type(error).__name__}).") from error
    if error is not None:
        raise error


def _work(staff: WorkerPool) -> None:
    try:
        while not staff.over.is_set():
            worker, turn = staff.enrol()
            visit = WorkerVisit(worker, TRICKS.get(turn % EVERY, ""))
            offer = _wait_for_offer(staff, worker)
            if offer is None:
                return
            staff.add(_visit(staff, turn, visit, offer), turn)
            if visit.outcome in NO_PLACE:
                staff.over.wait(BACK_LATER_SECONDS)
    except BaseException as error:
        staff.error = staff.error or error


def _wait_for_offer(staff: WorkerPool, worker: str) -> str | None:
    until = time.monotonic() + staff.patience
    while not staff.over.is_set():
        if offer := staff.workplace.offer(worker):
            return offer
        if time.monotonic() > until:
            raise RootnoteError(f"for {staff.patience:.0f} seconds no place was offered, and the launch is not over.")
        time.sleep(PAUSE_SECONDS)
    return None


def _visit(staff: WorkerPool, turn: int, visit: WorkerVisit, offer: str) -> WorkerVisit:
    """One worker's whole visit."""
    place = staff.workplace
    visit.previewed = _preview(place, offer)
    held = _take(staff, visit.worker, offer)
    if held is None:
        visit.outcome = "too_late"
        return visit
    if visit.trick == "gives_back":
        _look(held.url)
        place.give_back(held)
        visit.outcome = "gave_back"
        return visit
    if visit.trick in ("hands_in_early", "never_comes"):
        came = visit.trick == "hands_in_early" and _agree(held.url)
        visit.handed_in += place.hand_in(visit.worker, held, None)
        visit.outcome, visit.held = "handed_in_early" if came else "never_came", held
        return visit
    if visit.trick == "comes_again":
        _agree(held.url)
        place.give_back(held)
        again = _take(staff, visit.worker, place.offer(visit.worker) or offer)
        if again is None:
            visit.outcome = "gave_back"
            return visit
        held = again
    surely = SURELY.get(visit.trick, {})
    mind = ResponseModel(staff.mind.config.model_copy(update=surely), staff.mind.true_rates)
    listener = SimulatedListener("", turn, staff.seed, staff.memory, mind, start_url=held.url)
    visit.outcome = listener.take_study().outcome
    _go_back(place, visit, held, listener.page)
    return visit


def _take(staff: WorkerPool, worker: str, offer: str) -> HeldSubmission | None:
    """Take a place; None where somebody else was faster, or the marketplace lets nobody come again."""
    try:
        return staff.workplace.take(worker, offer)
    except (FakeMTurkError, FakeProlificError):
        return None


def _preview(place: MarketplaceClient, offer: str) -> bool:
    address = place.preview(offer)
    if address is None:
        return False
    page = _look(address)
    if page.step not in ("preview", "full"):
        raise BotError(f"a preview shows the page '{page.step}'")
    if page.forms:
        raise BotError("a preview has a form, so somebody could begin without a place")
    return True


def _look(address: str) -> ParsedPage:
    reply = httpx.get(address, timeout=TIMEOUT, follow_redirects=True)
    if reply.status_code != 200:
        raise BotError(f"the study's page answered with status {reply.status_code}")
    return read_page(reply.text)


def _agree(address: str) -> bool:
    """Read the consent page, agree, and go no further; False where there was no place to agree to."""
    form = next((form for form in _look(address).forms if form.action.endswith("/take")), None)
    if form is None:
        return False
    to = str(httpx.URL(address).join(form.action))
    reply = httpx.post(to, data=form.fields, timeout=TIMEOUT, follow_redirects=True)
    return read_page(reply.text).step != "full"


def _go_back(place: MarketplaceClient, visit: WorkerVisit, held: HeldSubmission, page: ParsedPage) -> None:
    """How a visit ends at the marketplace."""
    if visit.outcome == "vanished" or (visit.outcome == "finished" and visit.trick == "forgets"):
        place.run_out(held)
    elif page.back is None or visit.outcome in ("withdrawn", "expired"):
        place.give_back(held)
    else:
        for _ in range(1 + (visit.trick == "twice")):
            visit.handed_in += place.hand_in(visit.worker, held, page.back)
        if not visit.handed_in:
            raise BotError(f"what worker {visit.worker} handed in was not taken")


def collect_owed(staff: WorkerPool) -> int:
    """Let everybody who is offered a place that was made to pay them take it and hand in; how many did."""
    paid = 0
    for visit in staff.visits:
        offer = staff.workplace.offer(visit.worker) if visit.outcome == "finished" and not visit.handed_in else None
        if offer is None:
            continue
        held = staff.workplace.take(visit.worker, offer)
        page = _look(held.url)
        if page.step != "owed" or page.back is None:
            raise BotError(f"a place made to pay somebody shows the page '{page.step}'")
        visit.handed_in += staff.workplace.hand_in(visit.worker, held, page.back)
        paid += 1
    return paid
