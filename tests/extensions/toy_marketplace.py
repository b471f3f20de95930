"""A toy marketplace: participants arrive with ids of their own, the researcher posts the study and pays by hand.

It is the smallest marketplace that a developer may add: this file, and one line in study.marketplaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from server.identity.arrival import Arrival
from server.recruiting.marketplaces.base import (
    ArrivalError,
    Capabilities,
    ManualMarketplace,
    MarketplaceConfig,
    PostingOrder,
)

TOY = "tests.extensions.toy_marketplace:ToyMarketplace"
ID = re.compile(r"[a-z0-9]{1,32}")


class ToyConfig(MarketplaceConfig):
    """[recruiter.toy]: the project on the toy marketplace, and the currency that it pays in."""

    private: ClassVar[Mapping[str, str]] = {"project": ""}

    project: str = Field(default="", max_length=20)
    currency: str = "EUR"


class ToyMarketplace(ManualMarketplace):
    """Participants are known by `participant` and `session` in the address."""

    capabilities = Capabilities(
        name="Toy Panel", opens_by_hand=True, pays_by_hand=True, lists_submissions=False, pays_unsubmitted=True
    )
    Settings = ToyConfig
    frame_origins = ("https://toy.example.org",)
    listing_note = "The researchers post this address on Toy Panel."
    opening = sample_opening = "toy"

    @classmethod
    def sample_query(cls, person: int, place: int, *, preview: bool = False) -> dict[str, str]:
        return {"participant": f"p{person}", "session": f"s{person}x{place}"}

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        participant, session = query.get("participant", ""), query.get("session", "")
        if not (ID.fullmatch(participant) and ID.fullmatch(session)):
            raise ArrivalError("Please open this study from Toy Panel again.")
        return Arrival(participant, session, self.opening)

    def advert(self, order: PostingOrder) -> tuple[tuple[str, str], ...]:
        return (("Address", f"{order.url}?participant={{id}}&session={{session}}"), ("Reward", f"{order.reward / 100}"))
