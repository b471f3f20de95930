"""[recruiter.prolific]: the text that people on Prolific see, who may take part, and which account pays."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from server.recruiting.marketplaces.base import MarketplaceConfig
from study.config_sections import ConfigSection

LEAST_HOURLY = {"USD": 800, "GBP": 600}  # cents an hour: Prolific refuses studies that pay less
LEAST_SCREEN_OUT = {"USD": 14, "GBP": 10}
LONGEST_MINUTES = 1440
BUILT_IN = ("current-country-of-residence", "fluent-languages", "previous_studies_blocklist")
RANGES = ("approval_rate", "approval_numbers")


class ProlificFilter(ConfigSection):
    """One more filter, by Prolific's id: `values` for a list of choices, `lowest` and `highest` for a range."""

    id: str = Field(min_length=1, max_length=200, description="The filter's id at Prolific.")
    values: list[str] = Field(default=[], description="The ids of the choices.")
    lowest: float | str | None = Field(default=None, description="The lower end of a range.")
    highest: float | str | None = Field(default=None, description="The upper end of a range.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.values) == (self.lowest is not None or self.highest is not None):
            raise ValueError(f"the filter '{self.id}' needs either values, or lowest and highest")
        if self.id in (*BUILT_IN, *RANGES):
            raise ValueError(f"the filter '{self.id}' has a setting of its own in [recruiter.prolific]")
        return self

    def as_prolific(self) -> dict[str, Any]:
        """The filter as Prolific's API takes it."""
        if self.values:
            return {"filter_id": self.id, "selected_values": list(self.values)}
        ends = {"lower": self.lowest, "upper": self.highest}
        return {
            "filter_id": self.id,
            "selected_range": {name: _whole(end) for name, end in ends.items() if end is not None},
        }


def _whole(end: float | str) -> float | int | str:
    return int(end) if isinstance(end, float) and end.is_integer() else end


class ProlificConfig(MarketplaceConfig):
    """The text that people on Prolific see, who may take part, and which account pays.

    `countries` and `languages` are Prolific's choice ids ("1" is the United States, "0" the United Kingdom; "19" is
    English). `fee` is the account's: a third of what is paid (academic), or 42.8 % (corporate); `tax_percent` is on it.
    """

    private = {"workspace": "", "project": "", "exclude_studies": []}  # noqa: RUF012
    changeable = frozenset({"workspace", "project"})  # earlier versions needed neither

    title: str = Field(
        default="Listen to short clips of music: which two sound more alike?",
        min_length=1,
        max_length=120,
        description="The title of the study on Prolific.",
    )
    description: str = Field(
        default="Compare short clips of music and answer a few questions. Please use headphones.",
        min_length=1,
        description="The description of the study on Prolific.",
    )
    countries: list[str] = Field(
        default=["1"],
        description='Where participants live, as choice ids ("1": United States, "0": United Kingdom); empty: all.',
    )
    languages: list[str] = Field(
        default=["19"], description='Fluent languages, as Prolific\'s choice ids ("19": English); empty: any.'
    )
    approved_percent: int = Field(
        default=98, ge=0, le=100, description="The least share of a participant's submissions that were approved."
    )
    approved: int = Field(
        default=0, ge=0, le=10_000, description="The least number of a participant's approved submissions."
    )
    filters: list[ProlificFilter] = Field(
        default=[], description="More filters, by Prolific's ids; `open` checks them and shows how many people pass."
    )
    exclude_studies: list[str] = Field(
        default=[],
        description="Ids of other studies whose participants may not take part. Earlier launches of this study are "
        "excluded without this.",
    )
    devices: list[Literal["desktop", "mobile", "tablet"]] = Field(
        default=["desktop"], description="The devices that may be used."
    )
    max_minutes: int = Field(
        default=60,
        ge=2,
        le=LONGEST_MINUTES,
        description="The longest that a participant may take; it is raised to Prolific's minimum for pay.minutes.",
    )
    screen_out: Literal["auto", "approve", "return_and_bonus"] = Field(
        default="auto",
        description="How listeners who are screened out are paid: by Prolific itself where the workspace may and the "
        "amount is below the reward (auto), by approving them, or by a bonus after they return their place.",
    )
    workspace: str = Field(default="", description="The id of the workspace that pays, if the account has several.")
    project: str = Field(
        default="", description="The id of the project that the study is created in, if the workspace has several."
    )
    currency: Literal["USD", "GBP"] = Field(
        default="USD", description="The currency of the workspace; all amounts of study.toml are in it."
    )
    fee: Literal["academic", "corporate"] = Field(
        default="academic", description="The fee of the account: academic is a third of what is paid, corporate 42.8 %."
    )
    tax_percent: float = Field(default=0, ge=0, le=50, description="The VAT on the fee, where it is charged.")

    @property
    def charge(self) -> Fraction:
        """The fee with its tax, as a share of what a participant is paid."""
        rate = Fraction(1, 3) if self.fee == "academic" else Fraction(428, 1000)
        return rate * (1 + Fraction(str(self.tax_percent)) / 100)

    def longest(self, minutes: float) -> int:
        """The longest that a participant may take, at least what Prolific demands for this length."""
        return max(self.max_minutes, least_maximum(minutes))


def least_maximum(minutes: float) -> int:
    """The least maximum_allowed_time that Prolific takes for a study of this length, in whole minutes."""
    return math.ceil(2 + 2 * minutes + 2 * math.sqrt(minutes) - 1e-9)


def choices(config: ProlificConfig, blocked: list[str] | None = None) -> dict[str, list[str]]:
    """The built-in filters that choose from lists, by Prolific's ids; `blocked`: further studies to exclude."""
    studies = list(dict.fromkeys([*config.exclude_studies, *(blocked or [])]))
    lists = (config.countries, config.languages, studies)
    return {name: list(values) for name, values in zip(BUILT_IN, lists, strict=True) if values}


def read_filters(config: ProlificConfig, blocked: list[str] | None = None) -> list[dict[str, Any]]:
    """Who may take part, as filters of Prolific."""
    filters: list[dict[str, Any]] = [
        {"filter_id": name, "selected_values": values} for name, values in choices(config, blocked).items()
    ]
    for name, lower, upper in (("approval_rate", config.approved_percent, 100), (RANGES[1], config.approved, 10_000)):
        if lower:
            filters.append({"filter_id": name, "selected_range": {"lower": lower, "upper": upper}})
    return [*filters, *(one.as_prolific() for one in config.filters)]
