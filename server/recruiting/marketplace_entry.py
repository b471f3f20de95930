"""Entry from a marketplace: who arrives, and how they return there.

Nothing vouches for what an address claims about a worker. It is accepted only for a posting of this study, and money
never follows from it: payments follow what the marketplace itself lists as submitted. No cookie is needed: the same
worker always finds the same assignment, and submits the place that they hold now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from server.assignments.experiment import StepRefusedError
from server.db.enums import SubmissionStatus
from server.db.models import Assignment, AssignmentState, MarketplaceSubmission, Posting
from server.db.upsert import find_or_add
from server.identity import vault as vaults
from server.identity.arrival import Arrival
from server.identity.tokens import ConsentTicket, TokenSigner
from server.identity.vault import Vault
from server.payments import ledger
from server.recruiting.marketplaces.base import ArrivalError, Marketplace, ReturnLink
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

    def read_arrival(self, session: Session, query: Mapping[str, str]) -> Arrival:
        """The person who arrives; changes nothing.

        Raises:
            StepRefusedError: if the marketplace gives no such address for a posting of this study.
        """
        try:
            arrival = self.marketplace.arrive(query)
        except ArrivalError as error:
            raise StepRefusedError(str(error)) from None
        # The first worker may arrive before the posting's id is stored.
        known = or_(Posting.market_id == arrival.opening, Posting.market_id.is_(None))
        if not arrival.preview and session.scalar(select(Posting.id).where(known).limit(1)) is None:
            raise StepRefusedError(UNKNOWN_PLACE)
        return arrival

    def ticket_for(self, consent: str, arrival: Arrival) -> ConsentTicket:
        """The ticket of a worker, always the same."""
        assert arrival.worker is not None
        return self.signer.ticket_for_worker(consent, arrival.worker)

    def read_sealed(self, sealed: str, ticket: ConsentTicket) -> Arrival | None:
        """The arrival that a form carries; None if it is not this ticket's."""
        arrival = self.vault.open(sealed)
        if arrival is None or arrival.worker is None or self.ticket_for(ticket.consent, arrival) != ticket:
            return None
        return arrival

    def has_submitted_elsewhere(self, session: Session, assignment: Assignment, arrival: Arrival) -> bool:
        """Whether this assignment was submitted from another place before."""
        key = self._key(arrival)
        same = (
            MarketplaceSubmission.assignment_id == assignment.id,
            MarketplaceSubmission.key != key,
            MarketplaceSubmission.status.in_(SUBMITTED),
        )
        return session.scalar(select(MarketplaceSubmission.id).where(*same).limit(1)) is not None

    def record_arrival(self, session: Session, assignment: Assignment, arrival: Arrival, now: datetime) -> None:
        """Store the place that a listener holds now, and their identity in the vault; nothing after an erasure."""
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
        row.assignment_id, row.seen_at = assignment.id, now
        if row.status not in SUBMITTED:
            row.status = SubmissionStatus.HELD
        vaults.store_identity(session, self.vault, assignment.listener, arrival, now)

    def return_link(self, session: Session, assignment: Assignment) -> ReturnLink:
        """How a listener whose assignment has ended returns; empty if they have returned already, or are paid in
        another way."""
        if assignment.state in (AssignmentState.SUBMITTED, AssignmentState.APPROVED, AssignmentState.PAID):
            return ReturnLink()
        arrival = vaults.load_identity(session, self.vault, assignment.listener)
        amount = ledger.due(assignment.state, self.pay)[1]
        if arrival is None or (
            not self.marketplace.capabilities.pays_unsubmitted and amount < cents(self.pay.reward_usd)
        ):
            return ReturnLink()
        outcome = ledger.outcome(assignment.state, self.pay)
        return self.marketplace.make_return_link(arrival, outcome, assignment.completion_code)

    def return_link_when_owed(self, arrival: Arrival) -> ReturnLink:
        """How a listener who took a place that was made to pay them returns."""
        return self.marketplace.make_return_link(arrival, "finished", "OWED")

    def _key(self, arrival: Arrival) -> str:
        assert arrival.worker is not None
        return self.signer.submission_key(arrival.worker, arrival.submission)
