"""A plain link, or any panel that sends people to an address; you pay them yourself, or the panel does.

`/take?link=…` is a link for one person (`rootnote server links`), `/take` is open to anyone, and `/take?worker=NAME`
names a listener, so that nobody takes part twice. With [recruiter.link] a panel's participants arrive with an id of the
panel's own and return to it: docs/how-to/panel-by-link.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self
from urllib.parse import urlencode

from pydantic import Field, StringConstraints, model_validator

from server.db.enums import RunOutcome
from server.identity.arrival import Arrival
from server.identity.link_check import normalise_id
from server.recruiting.marketplaces.base import (
    ArrivalError,
    Capabilities,
    ManualMarketplace,
    MarketplaceConfig,
    PostingOrder,
    ReturnLink,
)
from server.recruiting.marketplaces.return_urls import check_address, fill, host_of, is_usable
from study.config_sections import ConfigSection

if TYPE_CHECKING:
    from study.config import Study

OWN_PARAMETERS = ("lang", "link", "owed")  # of /take itself
PLACEHOLDERS = ("worker", "code")
INCOMPLETE = "This link is incomplete; please open the study from where you found it again."
ID_LIMIT = 128

Parameter = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
Code = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{0,64}$")]


class LinkCodes(ConfigSection):
    """[recruiter.link.codes]: one code per outcome, the same for everyone; empty: everyone has a code of their own."""

    finished: Code = ""
    screened_out: Code = ""
    left: Code = ""


class LinkConfig(MarketplaceConfig):
    """[recruiter.link]: who may come, and how a panel's participants arrive and return."""

    changeable: ClassVar[frozenset[str]] = frozenset(
        {"open", "paid_at_most", "name", "id_param", "keep", "codes", "callback_url"}
        | {"finished_url", "screened_out_url", "left_url", "full_url"}
    )
    private: ClassVar[Mapping[str, Any]] = {
        **dict.fromkeys(("name", "finished_url", "screened_out_url", "left_url", "full_url", "callback_url"), ""),
        "codes": {},
    }

    open: bool | None = Field(
        default=None, description="true: anyone with the address may take part; false: personal links only."
    )
    paid_at_most: int | None = Field(
        default=None,
        ge=1,
        description="How many runs with the same outcome are paid on open links; default: the places, a fifth more, "
        "and at least ten more.",
    )
    name: str = Field(default="", max_length=60, description="The panel's name; default: the host of its addresses.")
    id_param: Parameter = Field(default="worker", description="The parameter with the participant's id.")
    keep: list[Parameter] = Field(
        default=[], max_length=10, description="Further parameters that the panel's addresses need."
    )
    finished_url: str = Field(default="", description="Where participants return who finished.")
    screened_out_url: str = Field(default="", description="Where those return who did not pass the prescreen.")
    left_url: str = Field(default="", description="Where those return who left before the end.")
    full_url: str = Field(default="", description="Where those return for whom there is no place.")
    callback_url: str = Field(default="", description="Called once by `rootnote server sync` for each finished run.")
    codes: LinkCodes = LinkCodes()

    @model_validator(mode="after")
    def _addresses(self) -> LinkConfig:
        names = (self.id_param, *self.keep)
        if taken := [name for name in names if name in OWN_PARAMETERS]:
            raise ValueError(f"the parameter '{taken[0]}' has a meaning of its own at /take")
        if clash := [name for name in self.keep if name in PLACEHOLDERS]:
            raise ValueError(f"keep cannot have '{clash[0]}', which is a placeholder of its own")
        if len(set(names)) != len(names):
            raise ValueError("id_param and keep must be distinct")
        for key in ("finished_url", "screened_out_url", "left_url", "full_url", "callback_url"):
            allowed = ("worker", *self.keep) if key == "full_url" else (*PLACEHOLDERS, *self.keep)
            try:
                check_address(getattr(self, key), allowed)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """The configured addresses."""
        every = (self.finished_url, self.screened_out_url, self.left_url, self.full_url, self.callback_url)
        return tuple(one for one in every if one)

    @property
    def has_arrivals(self) -> bool:
        """Whether a panel sends people with ids, which the vault then stores."""
        return bool(self.addresses or self.keep or self.id_param != "worker")

    @property
    def personal_only(self) -> bool:
        """Whether nobody may take part without a personal link."""
        return self.open is False and not self.has_arrivals

    @property
    def panel_name(self) -> str:
        return self.name or (host_of(self.addresses[0]) if self.addresses else "the panel")


class LinkMarketplace(ManualMarketplace):
    """No marketplace: a place is open while the study has one, and the researcher or a panel pays."""

    capabilities = Capabilities(
        name="a plain link",
        has_arrivals=False,
        opens_by_hand=True,
        pays_by_hand=True,
        lists_submissions=False,
        pays_unsubmitted=True,
    )
    Settings = LinkConfig
    holds_places = False
    listing_title = "What participants are sent"
    listing_note = (
        "Rootnote posts nothing: the researchers send an address. They write the invitation themselves, so attach "
        "every e-mail, post and poster to this packet. The first page that the address opens is the consent below."
    )
    payment_note = "The researchers pay by hand, against the completion code that each participant is shown."
    opening = sample_opening = "link"

    def __init__(self, config: LinkConfig | None = None) -> None:
        self.config = config or LinkConfig()
        self.calls_back = bool(self.config.callback_url)
        if self.config.has_arrivals:
            self.capabilities = replace(self.capabilities, name=self.config.panel_name, has_arrivals=True)

    @classmethod
    def for_study(cls, study: Study, *, live: bool, endpoint: str) -> Self:
        return cls(study.config.recruiter.settings)

    def sample_arrival(self, person: int, place: int, *, preview: bool = False) -> dict[str, str]:
        kept = {name: f"{name}{place}" for name in self.config.keep}
        return {self.config.id_param: f"listener{person}", **kept}

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        """Who arrives: anyone by a plain link; from a panel everyone has an id and the parameters to keep."""
        worker = query.get(self.config.id_param, "").strip()
        if not self.config.has_arrivals:
            return Arrival(worker or None)
        kept = {name: query.get(name, "").strip() for name in self.config.keep}
        if len(worker) > ID_LIMIT or not all(is_usable(value) for value in (worker, *kept.values())):
            raise ArrivalError(INCOMPLETE)
        return Arrival(worker, urlencode(kept), self.opening, kept=kept)

    def spell_id(self, worker: str) -> str:
        return normalise_id(worker)

    def make_return_link(self, arrival: Arrival, outcome: RunOutcome, code: str) -> ReturnLink:
        templates = {"finished": self.config.finished_url, "screened_out": self.config.screened_out_url}
        template = templates.get(outcome, self.config.left_url)
        return self._link(template, arrival, getattr(self.config.codes, outcome) or code)

    def make_full_link(self, arrival: Arrival) -> ReturnLink:
        """How somebody returns for whom there is no place."""
        return self._link(self.config.full_url, arrival, "")

    def callback_address(self, arrival: Arrival, code: str) -> str:
        """The address that is called for a finished run."""
        return self._link(self.config.callback_url, arrival, self.config.codes.finished or code).url

    def _link(self, template: str, arrival: Arrival, code: str) -> ReturnLink:
        if not template:
            return ReturnLink()
        values = {**dict.fromkeys(self.config.keep, ""), **arrival.kept, "worker": arrival.worker or "", "code": code}
        return ReturnLink("link", fill(template, values))

    def advert(self, order: PostingOrder) -> tuple[tuple[str, str], ...]:
        return (("Address", self.address(order.url)),)

    def address(self, url: str) -> str:
        """The address to send, with the parameters that a panel fills in."""
        if not self.config.has_arrivals:
            return url
        names = (self.config.id_param, *self.config.keep)
        return f"{url}?{'&'.join(f'{name}=…' for name in names)}"
