"""The marketplaces by name, and study.toml's [recruiter].

Study knows a marketplace only by name: its class, in server, is imported when a study that may use it is read, and
brings the model of its own section (docs/decisions/0011-marketplace-settings.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from embeddings.errors import RootnoteError
from study.config_sections import ConfigSection
from study.registry import Registry

# recruiter.kind -> "module:class"; to add a marketplace, write its file and add its line here.
MARKETPLACES: Registry[Any] = Registry(
    "rootnote.marketplaces",
    {
        "link": "server.recruiting.marketplaces.link:LinkMarketplace",
        "prolific": "server.recruiting.marketplaces.prolific:ProlificMarketplace",
        "mturk": "server.recruiting.marketplaces.mturk:MTurkMarketplace",
    },
)


def load_marketplace(kind: str) -> Any:
    """The class of a marketplace (server.recruiting.marketplaces.base.Marketplace).

    Raises:
        RootnoteError: if there is none of this name.
    """
    if kind not in MARKETPLACES:
        raise RootnoteError(f"there is no marketplace '{kind}'; choose one of {', '.join(MARKETPLACES)}.")
    return MARKETPLACES[kind]


class SectionError(ValueError):
    """Problems in [recruiter] or a marketplace's own section, as pydantic lists them, from [recruiter] on."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        super().__init__("; ".join(str(problem["msg"]) for problem in problems))
        self.problems = problems


class RecruiterConfig(ConfigSection):
    """Where listeners come from; each marketplace with settings has a section of its own, [recruiter.<kind>]."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", frozen=True)

    kind: str = Field(default="link", description="The marketplace; `rootnote study recruiters` lists them.")
    reservation_minutes: float = Field(default=60, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _read_sections(cls, data: Any) -> Any:
        """Read every marketplace's section by the marketplace's own model."""
        if not isinstance(data, Mapping):
            return data
        problems: list[dict[str, Any]] = [
            {"type": "extra_forbidden", "loc": (key,), "msg": f"unknown key '{key}'"}
            for key in data
            if key not in cls.model_fields and key not in _models()
        ]
        if isinstance(kind := data.get("kind", "link"), str) and kind not in MARKETPLACES:
            text = f"there is no marketplace '{kind[:40]}'; choose one of {', '.join(MARKETPLACES)}"
            problems.append({"type": "value_error", "loc": ("kind",), "msg": text})
        sections: dict[str, BaseModel] = {}
        for name, model in _models().items():
            try:
                sections[name] = model.model_validate(data.get(name, {}))
            except ValidationError as error:
                problems += [{**one, "loc": (name, *one["loc"])} for one in error.errors()]
        if problems:
            raise SectionError(problems)
        return {**{key: value for key, value in data.items() if key not in sections}, **sections}

    @property
    def settings(self) -> Any:
        """The section of the marketplace in use, by its own model; an empty one if it has no settings."""
        found = (self.model_extra or {}).get(self.kind)
        return load_marketplace(self.kind).Settings() if found is None else found

    @property
    def has_arrivals(self) -> bool:
        """Whether listeners arrive with a marketplace's ids, so that the vault must store who they are."""
        usual = load_marketplace(self.kind).capabilities.has_arrivals
        return bool(getattr(self.settings, "has_arrivals", usual))

    @property
    def shown_name(self) -> str:
        """The marketplace's name, or that of the panel that sends people by link."""
        own = getattr(self.settings, "panel_name", "") if self.has_arrivals else ""
        return str(own or load_marketplace(self.kind).capabilities.name)

    @property
    def minimum_hourly(self) -> int | None:
        """The least pay for an hour that the marketplace allows, in cents; None if it has no such rule."""
        found: int | None = load_marketplace(self.kind).minimum_hourly.get(self.currency)
        return found

    @property
    def currency(self) -> str:
        """The currency that the marketplace's own section names; StudyConfig.currency is the study's."""
        return str(getattr(self.settings, "currency", "USD"))


def share_currency(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """study.toml with pay.currency also in the marketplace's own section, where that has such a setting.

    Raises:
        ValueError: if the two differ, or the marketplace does not pay in this currency.
    """
    pay, recruiter = data.get("pay"), data.get("recruiter", {})
    currency = pay.get("currency") if isinstance(pay, Mapping) else None
    kind = recruiter.get("kind", "link") if isinstance(recruiter, Mapping) else None
    if currency is None or not isinstance(kind, str) or kind not in MARKETPLACES:
        return data
    marketplace, section = load_marketplace(kind), recruiter.get(kind, {})
    if not isinstance(section, Mapping):
        return data
    if section.get("currency", currency) != currency:
        raise ValueError(
            f"pay.currency is {currency} and recruiter.{kind}.currency is {section['currency']}; remove the second"
        )
    if currency not in marketplace.currencies:
        allowed = " or ".join(marketplace.currencies)
        raise ValueError(f"pay.currency is {currency}, and {marketplace.capabilities.name} pays in {allowed}")
    if "currency" not in marketplace.Settings.model_fields:
        return data
    return {**data, "recruiter": {**recruiter, kind: {**section, "currency": currency}}}


def private_settings() -> dict[str, Any]:
    """Dotted keys of study.toml that a public release does not contain, with what it has instead."""
    return {
        f"recruiter.{kind}.{key}": stand_in
        for kind, model in _models().items()
        for key, stand_in in getattr(model, "private", {}).items()
    }


def known_keys(section: tuple[Any, ...]) -> list[str]:
    """The keys of [recruiter], or of a section in it."""
    if not section:
        return [*RecruiterConfig.model_fields, *_models()]
    model = _models().get(str(section[0])) if len(section) == 1 else None
    return list(model.model_fields) if model else []


def _models() -> dict[str, type[BaseModel]]:
    """The models of the sections, of the marketplaces that have settings."""
    found: dict[str, type[BaseModel]] = {kind: load_marketplace(kind).Settings for kind in MARKETPLACES}
    return {kind: model for kind, model in found.items() if model.model_fields}
