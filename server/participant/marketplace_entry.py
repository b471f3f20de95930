"""The reception: a marketplace's worker at the door, and how they get back.

Nothing vouches for what an address says of a worker, so it opens only what is ours (an opening in our books), and
nobody is paid by it: money follows what the marketplace itself lists as submitted. No cookie is needed: the same
worker always finds the same run, whichever place they have taken, and what they hand in is the place they hold now.
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
from server.identity import vault as privacy
from server.identity.arrival import Arrival
from server.identity.tokens import ConsentTicket, TokenSigner
from server.identity.vault import Vault
from server.payments import ledger
from server.recruiting.marketplaces.base import ArrivalError, Marketplace, ReturnLink
from study.config import cents
from study.config_sections import PayConfig
from study.languages import mark

UNKNOWN = mark("This study does not know the place that you took; please return it, and take another.")
HANDED_IN = (SubmissionStatus.SUBMITTED, SubmissionStatus.APPROVED, SubmissionStatus.REJECTED)


@dataclass(frozen=True)
class MarketplaceEntry:
    """What is needed to see who arrives from a marketplace."""

    recruiter: Marketplace
    vault: Vault
    door: TokenSigner
    pay: PayConfig

    def arrive(self, session: Session, query: Mapping[str, str]) -> Arrival:
        """Who arrives; nothing is changed.

        Raises:
            StepRefusedError: where the address is none that the marketplace gives for a place of ours.
        """
        try:
            arrival = self.recruiter.arrive(query)
        except ArrivalError as error:
            raise StepRefusedError(str(error)) from None
        # An order that is on its way may have its first worker before we know its id.
        ours = or_(Posting.market_id == arrival.opening, Posting.market_id.is_(None))
        if not arrival.preview and session.scalar(select(Posting.id).where(ours).limit(1)) is None:
            raise StepRefusedError(UNKNOWN)
        return arrival

    def entry(self, consent: str, arrival: Arrival) -> ConsentTicket:
        assert arrival.worker is not None
        return self.door.welcome(consent, arrival.worker)

    def read(self, sealed: str, entry: ConsentTicket) -> Arrival | None:
        """The arrival that a form carries; None where it is not this entry's."""
        arrival = self.vault.open(sealed)
        if arrival is None or arrival.worker is None or self.entry(entry.consent, arrival) != entry:
            return None
        return arrival

    def has_handed_in(self, session: Session, assignment: Assignment, arrival: Arrival) -> bool:
        """Whether this run was submitted from another place before."""
        key = self._key(arrival)
        same = (
            MarketplaceSubmission.assignment_id == assignment.id,
            MarketplaceSubmission.key != key,
            MarketplaceSubmission.status.in_(HANDED_IN),
        )
        return session.scalar(select(MarketplaceSubmission.id).where(*same).limit(1)) is not None

    def note(self, session: Session, assignment: Assignment, arrival: Arrival, now: datetime) -> None:
        """Note the place that a listener holds now, and keep sealed who they are; nothing of who had it erased."""
        session.refresh(assignment, ["erased_at"], with_for_update={"read": True, "key_share": True})
        if assignment.erased_at is not None:
            return
        held = {
            "assignment_id": assignment.id,
            "opening": arrival.opening,
            "status": SubmissionStatus.HELD,
            "seen_at": now,
        }
        # The same worker may come twice at once, and `server sync` may hear of the place just now.
        row = find_or_add(session, MarketplaceSubmission, {"key": self._key(arrival)}, held, lock=True)
        row.assignment_id, row.seen_at = assignment.id, now
        if row.status not in HANDED_IN:
            row.status = SubmissionStatus.HELD
        privacy.remember(session, self.vault, assignment.listener, arrival, now)

    def hand_back(self, session: Session, assignment: Assignment) -> ReturnLink:
        """How a listener whose run has ended gets back; neither way where they have, or are paid in another."""
        if assignment.state in (AssignmentState.SUBMITTED, AssignmentState.APPROVED, AssignmentState.PAID):
            return ReturnLink()
        arrival = privacy.recall(session, self.vault, assignment.listener)
        amount = ledger.due(assignment.state, self.pay)[1]
        if arrival is None or (
            not self.recruiter.capabilities.pays_unsubmitted and amount < cents(self.pay.reward_usd)
        ):
            return ReturnLink()
        outcome = ledger.outcome(assignment.state, self.pay)
        return self.recruiter.hand_back(arrival, outcome, assignment.completion_code)

    def hand_back_owed(self, arrival: Arrival) -> ReturnLink:
        """How somebody gets back who took a place that was made to pay them."""
        return self.recruiter.hand_back(arrival, "finished", "OWED")

    def _key(self, arrival: Arrival) -> str:
        assert arrival.worker is not None
        return self.door.submission_key(arrival.worker, arrival.submission)
