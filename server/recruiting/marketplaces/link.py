"""A plain link: listeners come by an address that you send them, and you pay them yourself.

`/take?worker=NAME` names a listener, so that nobody takes part twice; `/take?link=…` is a link for one person
(`rootnote server links`). There is no marketplace: Rootnote only keeps the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping

from server.identity.arrival import Arrival
from server.recruiting.marketplaces.base import Capabilities, ManualMarketplace, PostingOrder


class LinkMarketplace(ManualMarketplace):
    """No marketplace: a place is open while the study has one, and the researcher pays."""

    capabilities = Capabilities(
        name="a plain link",
        has_arrivals=False,
        opens_by_hand=True,
        pays_by_hand=True,
        lists_submissions=False,
        pays_unsubmitted=True,
    )
    listing_title = "What participants are sent"
    listing_note = (
        "Rootnote posts nothing: the researchers send an address. They write the invitation themselves, so attach "
        "every e-mail, post and poster to this packet. The first page that the address opens is the consent below."
    )
    payment_note = "The researchers pay by hand, against the completion code that each participant is shown."
    opening = "link"

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        return Arrival(query.get("worker", "").strip() or None)

    def advert(self, order: PostingOrder) -> tuple[tuple[str, str], ...]:
        return (("Address", order.url),)
