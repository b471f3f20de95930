"""Entry from a marketplace: who arrives, and how they return there.

Nothing vouches for what an address claims about a worker. It is accepted only for a posting of this study, and money
never follows from it: payments follow what the marketplace itself lists as submitted. A run is bound to a worker and a
submission; no cookie is needed, because the same two always find the same run. With another submission, the same worker
must prove themselves: the marketplace signed the ids, has listed them, or lists them when it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from server.assignments import lifecycle
from server.assignments.experiment import Experiment, StepRefusedError
from server.assignments.places import Availability, availability, count_unconfirmed
from server.db.enums import RunOutcome, SubmissionStatus
from server.db.models import COMPLETED, Assignment, AssignmentState, Listener, MarketplaceSubmission, Posting
from server.db.upsert import find_or_add
from server.identity import vault as vaults
from server.identity.arrival import Arrival
from server.identity.tokens import ConsentTicket, TokenSigner, sha256
from server.identity.vault import Vault
from server.payments import ledger
from server.recruiting.arrival_proof import Listing, SubmissionLookup, UnconfirmedLimit, most_unconfirmed
from server.recruiting.marketplaces.base import Marketplace, ReturnLink
from study.config import cents
from study.config_sections import PayConfig
from study.languages import mark

UNKNOWN_PLACE = mark("This study does not recognise the place that you took; please return it and take another one.")
SUBMITTED = (SubmissionStatus.SUBMITTED, SubmissionStatus.APPROVED, SubmissionStatus.REJECTED)


@dataclass(frozen=True)
class MarketplaceEntry:
    """Identifies people who arrive from a marketplace, and links them back to it."""

    marketplace: Marketplace
    vault: Vault
    signer: TokenSigner
    pay: PayConfig
    limit: UnconfirmedLimit = field(default_factory=UnconfirmedLimit)
    lookup: SubmissionLookup | None = None

    @property
    def lists_submissions(self) -> bool:
        """Whether runs wait until the marketplace has listed them."""
        return self.marketplace.capabilities.lists_submissions

    @property
    def lists_held(self) -> bool:
        """Whether a worker who has just taken a place can be looked up."""
        return self.lists_submissions and self.marketplace.capabilities.lists_held

    # ------------------------------------------------------------------ who arrives

    def read_arrival(self, session: Session, query: Mapping[str, str], host: str = "") -> Arrival:
        """The person who arrives; changes nothing.

        Args:
            host: our own name and port in the address that listeners open, for signed arrivals.

        Raises:
            ArrivalError: if the address, or its signature, cannot be the marketplace's.
            StepRefusedError: if it is for no posting of this study.
        """
        arrival = self.marketplace.arrive(query)
        # The first worker may arrive before the posting's id is stored.
        known = or_(Posting.market_id == arrival.opening, Posting.market_id.is_(None))
        if not arrival.preview and session.scalar(select(Posting.id).where(known).limit(1)) is None:
            raise StepRefusedError(UNKNOWN_PLACE)
        if arrival.preview or not self.marketplace.verify_arrival(query, arrival, host):
            return arrival
        return replace(arrival, signed=True)

    def ticket_for(self, consent: str, arrival: Arrival) -> ConsentTicket:
        """The ticket of a worker with this submission, always the same."""
        ticket = self.signer.ticket_for_worker(consent, self._worker(arrival), arrival.submission)
        return replace(ticket, proven=arrival.signed)

    def read_sealed(self, sealed: str, ticket: ConsentTicket) -> Arrival | None:
        """The arrival that a form carries; None if it is not this ticket's."""
        arrival = self.vault.open(sealed)
        if arrival is None or arrival.worker is None or self.ticket_for(ticket.consent, arrival) != ticket:
            return None
        return arrival

    def find_run(self, session: Session, ticket: ConsentTicket, arrival: Arrival) -> Assignment | None:
        """The run that this worker began with this submission."""
        found = lifecycle.find_by_ticket(session, ticket)
        if found is not None:
            return found
        other = self.find_by_worker(session, arrival)  # begun by an earlier version, or continued with this submission
        identity = vaults.load_identity(session, self.vault, other.listener) if other is not None else None
        return other if identity is not None and identity.submission == arrival.submission else None

    def find_by_worker(self, session: Session, arrival: Arrival) -> Assignment | None:
        """The run that this worker's id belongs to, with whichever submission."""
        runs = select(Assignment).join(Listener, Assignment.listener_id == Listener.id)
        return session.scalar(runs.where(Listener.worker_hash == self.signer.worker_hash(self._worker(arrival))))

    def token_of(self, session: Session, assignment: Assignment, ticket: ConsentTicket, arrival: Arrival) -> str | None:
        """The token in the address of a run; None if nothing stored leads to it any more."""
        identity = vaults.load_identity(session, self.vault, assignment.listener)
        former = self.signer.ticket_for_worker(ticket.consent, self._worker(arrival))
        for number in (ticket.number, identity.entry if identity else "", former.number):
            if number and sha256(number) == assignment.entry_hash:
                return self.signer.token_for(replace(ticket, number=number))
        return None

    def is_over(self, session: Session, assignment: Assignment, arrival: Arrival) -> bool:
        """Whether this worker's run is complete, or was submitted from another place."""
        return assignment.state in COMPLETED or self.has_submitted_elsewhere(session, assignment, arrival)

    def has_submitted_elsewhere(self, session: Session, assignment: Assignment, arrival: Arrival) -> bool:
        """Whether this assignment was submitted from another place before."""
        key = self._key(arrival)
        same = (
            MarketplaceSubmission.assignment_id == assignment.id,
            MarketplaceSubmission.key != key,
            MarketplaceSubmission.status.in_(SUBMITTED),
        )
        return session.scalar(select(MarketplaceSubmission.id).where(*same).limit(1)) is not None

    # ------------------------------------------------------------------ proof

    def is_proven(self, session: Session, arrival: Arrival) -> bool:
        """Whether the marketplace signed these ids, or has listed them."""
        listed = (MarketplaceSubmission.key == self._key(arrival), MarketplaceSubmission.listed)
        return arrival.signed or session.scalar(select(MarketplaceSubmission.id).where(*listed)) is not None

    def needs_proof(self, session: Session, experiment: Experiment, network: str) -> bool:
        """Whether no more unconfirmed runs are admitted: from this network, or at all."""
        places = len(experiment.plan.lists)
        most = most_unconfirmed(places, lists_held=self.lists_held)
        if count_unconfirmed(session, experiment) >= most:
            return True
        return availability(session, experiment) is not Availability.OPEN or not self.limit.admits(network)

    def is_of_posting(self, session: Session, arrival: Arrival) -> bool:
        """Whether an arrival names a posting of this study; another study's list would prove nothing."""
        known = select(Posting.id).where(Posting.market_id == arrival.opening)
        return session.scalar(known.limit(1)) is not None

    def look_up(self, arrival: Arrival) -> Listing | None:
        """The marketplace's list that has this submission; None if there is none, or it cannot be asked now.

        It may take seconds, so the caller holds no connection to the database.
        """
        if self.lookup is None or arrival.worker is None:
            return None
        return self.lookup.find(arrival.opening, arrival.worker, arrival.submission)

    def record_arrival(
        self, session: Session, assignment: Assignment, arrival: Arrival, now: datetime, *, proven: bool = False
    ) -> None:
        """Store the place that a listener holds now, and their identity in the vault; nothing after an erasure.

        A stored identity is replaced only by one that is `proven`.
        """
        session.refresh(assignment, ["erased_at"], with_for_update={"read": True, "key_share": True})
        if assignment.erased_at is not None:
            return
        held = {
            "assignment_id": assignment.id,
            "opening": arrival.opening,
            "status": SubmissionStatus.HELD,
            "seen_at": now,
        }
        # The same worker may arrive twice at once, and `server sync` may record the same place now.
        row = find_or_add(session, MarketplaceSubmission, {"key": self._key(arrival)}, held, lock=True)
        if row.assignment_id is None or proven:
            row.assignment_id = assignment.id
        if row.assignment_id == assignment.id:
            row.seen_at = now
            if row.status not in SUBMITTED:
                row.status = SubmissionStatus.HELD
        stored = vaults.load_identity(session, self.vault, assignment.listener)
        if stored is None or (proven and stored.submission != arrival.submission):
            entry = stored.entry if stored is not None else self.ticket_for("", arrival).number
            vaults.store_identity(session, self.vault, assignment.listener, replace(arrival, entry=entry), now)

    def _key(self, arrival: Arrival) -> str:
        return self.signer.submission_key(self._worker(arrival), arrival.submission)

    def _worker(self, arrival: Arrival) -> str:
        assert arrival.worker is not None
        return self.marketplace.spell_id(arrival.worker)

    # ------------------------------------------------------------------ how they return

    def return_link(self, session: Session, assignment: Assignment) -> ReturnLink:
        """How a listener whose assignment has ended returns; empty if they have returned already, or are paid in
        another way."""
        if assignment.state in (AssignmentState.SUBMITTED, AssignmentState.APPROVED, AssignmentState.PAID):
            return ReturnLink()
        arrival = vaults.load_identity(session, self.vault, assignment.listener)
        amount = ledger.due(assignment.state, self.pay)[1]
        if arrival is None or (not self.marketplace.capabilities.pays_unsubmitted and amount < cents(self.pay.reward)):
            return ReturnLink()
        outcome = ledger.outcome(assignment.state, self.pay)
        code = self.shared_code(session, outcome) or assignment.completion_code
        return self.marketplace.make_return_link(arrival, outcome, code)

    def return_link_when_owed(self, session: Session, arrival: Arrival) -> ReturnLink:
        """How a listener who took a place that was made to pay them returns."""
        return self.marketplace.make_return_link(arrival, "finished", self.shared_code(session, "finished") or "OWED")

    def shared_code(self, session: Session, outcome: RunOutcome) -> str:
        """The code that everybody with this outcome hands in; "" where everybody has their own, or none."""
        if outcome == "left":
            return ""
        launch = ledger.launch(session)
        return self.marketplace.code(outcome, (launch and launch.code_key) or "")
