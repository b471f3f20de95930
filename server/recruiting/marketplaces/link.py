"""A plain link: listeners come by an address that you send them, and you pay them yourself.

`/take?worker=NAME` names somebody, so that nobody takes part twice; `/take?link=…` is a link for one person (`rootnote
server links`). There is no marketplace: nothing is opened or closed elsewhere, and Rootnote only keeps the books.
"""

from __future__ import annotations

from collections.abc import Mapping

from server.identity.arrival import Arrival
from server.recruiting.marketplaces.base import (
    Capabilities,
    DirectPayment,
    Outcome,
    PostingOrder,
    PostingStatus,
    ReturnLink,
    SubmissionStatus,
)
from study.config import Study

OPENING = "link"


class LinkMarketplace:
    """No marketplace: a place is open while the study has one, and paying is the researcher's."""

    terms = Capabilities(name="a plain link", by_hand=True, pays_unsubmitted=True)

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        return Arrival(query.get("worker", "").strip() or None)

    def hand_back(self, arrival: Arrival, outcome: Outcome, code: str) -> ReturnLink:
        return ReturnLink()

    def advert(self, order: PostingOrder) -> tuple[tuple[str, str], ...]:
        return (("Address", order.url),)

    def open(self, order: PostingOrder) -> str:
        return OPENING

    def submissions(self, opening: str) -> PostingStatus:
        return PostingStatus(free=0, held=0)

    def approve(self, submission: SubmissionStatus) -> None:
        """Nobody else keeps a record of it."""

    def bonus(self, grant: DirectPayment) -> None:
        """Nobody else keeps a record of it."""

    def close(self, opening: str) -> None:
        """The server itself lets nobody in."""

    def account(self) -> int | None:
        return None

    def fee(self, cents: int, places: int = 1) -> int:
        return 0

    def has_paid(self, grant: DirectPayment) -> bool:
        return False

    def exclude(self, worker: str, launch: str) -> None:
        """The server knows them again by their name's hash."""

    def disconnect(self) -> None:
        """There is nothing to let go of."""


def make(study: Study, *, live: bool, endpoint: str) -> LinkMarketplace:
    """The recruiter of plain links; it has no settings and no client."""
    return LinkMarketplace()
