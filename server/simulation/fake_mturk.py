"""A local Mechanical Turk: a stateful emulator that boto3 and browsers use over HTTP.

    with FakeMTurk(balance="1000.00") as market:
        client = boto3.client("mturk", region_name="us-east-1", endpoint_url=market.url, …)  # any credentials
        market.workers.add("A1WORKER", country="US", approved=5000, percent=99)
        held = market.accept("A1WORKER", hit_type_id)     # or a HIT's or a group's id -> Accepted
        market.submit(held.assignment_id, done="yes")     # as /mturk/externalSubmit does
        market.return_(…); market.abandon(…)              # returned; out of time
        market.advance(timedelta(hours=1))                # deadlines, auto-approval, expiry
        market.fail("SendBonus", 1, "timeout_after")      # the next SendBonus; more in marketplaces/faults.py
        market.ledger(), market.balance, market.on_hold   # every cent
        market.calls, market.deliver(), market.messages   # calls, notifications, letters to workers

Every request and every answer is checked against botocore's own service model. Rules: marketplaces/turk_state.py; pages
for workers at `market.worker_url`: marketplaces/turk_site.py. A worker gets the same assignment id again after a
return, and a returned id may go to another worker. Everything else is answered `UnknownOperationException`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from server.simulation.marketplaces import turk_site, turk_wire
from server.simulation.marketplaces.http_messages import HttpReply, HttpRequest
from server.simulation.marketplaces.loopback import FakeMarketplace, People
from server.simulation.marketplaces.turk_places import HitAssignment
from server.simulation.marketplaces.turk_state import FakeMTurkState
from server.simulation.marketplaces.turk_workers import FakeWorker


@dataclass(frozen=True)
class AcceptedHit:
    """An assignment that a worker holds; `external_url` is what their frame shows."""

    assignment_id: str
    hit_id: str
    worker_id: str
    external_url: str


class FakeMTurk(FakeMarketplace):
    """The market; `balance` is prepaid, in US dollars."""

    state: FakeMTurkState

    def __init__(self, balance: str = "1000.00", clock: Callable[[], datetime] | None = None, seed: int = 0) -> None:
        super().__init__(clock, seed)
        self.state = FakeMTurkState(Decimal(balance), self.now, self.new_id, self.pay)
        self.state.emit = self.emit
        self.workers = People(self.state.workers, FakeWorker)

    def new_id(self, prefix: str) -> str:
        return prefix + base64.b32encode(self.next_digest()).decode()[:29]

    # ------------------------------------------------------------------ workers

    def accept(self, worker_id: str, name: str) -> AcceptedHit:
        """Let a worker accept a HIT by its id, or any of a HIT type or group.

        Raises:
            FakeMTurkError: if there is none for them.
        """
        with self.acting():
            return self._accepted(self.state.accept(self.state.worker(worker_id), name))

    def preview(self, name: str) -> str:
        """The address in the frame of a HIT (by its own, its type's or its group's id) before it is accepted."""
        hit = next(hit for hit in self.state.hits.values() if name in (hit.id, hit.type.id, hit.type.group))
        return turk_site.question_address(hit, self.worker_url, None)

    def submit(self, assignment_id: str, **fields: str) -> None:
        """Submit as the question's form does.

        Raises:
            FakeMTurkError: if no worker holds the assignment.
        """
        with self.acting():
            answer = turk_site.write_answer(list(fields.items()) or [("done", "yes")])
            self.state.submit(self._place(assignment_id), answer)

    def return_(self, assignment_id: str) -> None:
        """Return an assignment."""
        with self.acting():
            self.state.return_place(self._place(assignment_id))

    def abandon(self, assignment_id: str) -> None:
        """Let an assignment's time run out, without moving the clock."""
        with self.acting():
            self.state.return_place(self._place(assignment_id), "AssignmentAbandoned")

    def _place(self, assignment_id: str) -> HitAssignment:
        return self.state.places[assignment_id]

    def _accepted(self, place: HitAssignment) -> AcceptedHit:
        address = turk_site.question_address(place.hit, self.worker_url, place)
        return AcceptedHit(place.id, place.hit.id, place.worker, address)

    # ------------------------------------------------------------------ letters

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The letters sent to workers."""
        return self.state.messages

    # ------------------------------------------------------------------ the wire

    def handle(self, request: HttpRequest) -> HttpReply:
        if "x-amz-target" not in request.headers:
            with self.acting():
                return turk_site.MTurkSite(self.state, self.worker_url).handle(request)
        if closed := turk_wire.refuse_path(request):
            return closed
        operation, given = turk_wire.operation_of(request), json.loads(request.body or b"{}")
        return self.call(operation, given, lambda: turk_wire.answer(self.state, operation, given))

    def throttled(self) -> HttpReply:
        return turk_wire.error("ThrottlingException", "Rate exceeded")

    def failed(self) -> HttpReply:
        return turk_wire.error("ServiceFault", "Service Fault", "AWS.MechanicalTurk.ServiceFault", 500)

    def refused(self, code: str) -> HttpReply:
        if code.startswith("AWS."):
            return turk_wire.error("RequestError", "The request was refused.", code)
        return turk_wire.error(code, "The request was refused.")

    def add_worker(self, given: Mapping[str, Any]) -> None:
        self.workers.add(given["worker_id"], **{name: value for name, value in given.items() if name != "worker_id"})
