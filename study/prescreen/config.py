"""[prescreen] in study.toml: the steps in their order, and a section of settings for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from study.prescreen.registry import STEPS
from study.prescreen.settings import StepConfig

Settings = TypeVar("Settings", bound=StepConfig)
SINGLE_SOUND = StepConfig(items=1, attempts=1)  # of a step without settings


class PrescreenConfig(BaseModel):
    """The steps of the prescreen, in their order. Further fields are the sections of steps, as their own models."""

    model_config = ConfigDict(extra="allow", frozen=True)
    steps: list[str] = Field(
        default=["tones"],
        description="The steps in their order: volume, tones, huggins, antiphase.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_sections(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        given = _from_former_keys(dict(data))
        errors = [
            InitErrorDetails(type="extra_forbidden", loc=(key,), input=value)
            for key, value in given.items()
            if key != "steps" and key not in configurable_steps()
        ]
        if errors:
            raise ValidationError.from_exception_data("prescreen", errors)
        sections = {}
        for step in _steps_with_sections(given):
            model = STEPS[step].settings
            if model is not None:
                sections[step] = _read_section(step, model, given.get(step, {}))
        return {key: value for key, value in given.items() if key == "steps"} | sections

    @model_validator(mode="after")
    def _known_and_distinct(self) -> Self:
        for step in self.steps:
            if step not in STEPS:
                raise ValueError(f"there is no prescreen step '{step[:40]}'; steps are {', '.join(STEPS)}")
        if len(set(self.steps)) != len(self.steps):
            raise ValueError("steps must be distinct")
        return self

    def section(self, step: str) -> StepConfig:
        """The settings of a step; one sound and one attempt for a step that has none."""
        found = (self.model_extra or {}).get(step)
        if isinstance(found, StepConfig):
            return found
        model = STEPS[step].settings
        return SINGLE_SOUND if model is None else model()

    def typed_section(self, step: str, model: type[Settings]) -> Settings:
        """The settings of a step as the model that its class names."""
        found = self.section(step)
        assert isinstance(found, model)
        return found


def configurable_steps() -> list[str]:
    """The steps that have a section of settings."""
    return [step for step in STEPS if STEPS[step].settings is not None]


def _steps_with_sections(given: Mapping[str, Any]) -> list[str]:
    """The steps whose settings are part of a study: those built in, and others that it names."""
    chosen = given.get("steps")
    named = {*given, *(chosen if isinstance(chosen, list) else ())}
    return [step for step in STEPS if step in STEPS.built_in or step in named]


def _read_section(step: str, model: type[StepConfig], data: Any) -> StepConfig:
    if isinstance(data, model):
        return data
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = [
            InitErrorDetails(type=_error_type(one), loc=(step, *one["loc"]), input=one["input"])
            for one in error.errors(include_url=False)
        ]
        raise ValidationError.from_exception_data("prescreen", details) from None


def _error_type(error: ErrorDetails) -> str | PydanticCustomError:
    """The type of an error, with its message where pydantic could not make it again."""
    if error["type"] in ("extra_forbidden", "missing"):
        return error["type"]
    return PydanticCustomError("prescreen_section", "{message}", {"message": error["msg"]})


def _from_former_keys(data: dict[str, Any]) -> dict[str, Any]:
    """Accept `kind`, and the settings of the tones without a section, from the time when there was one step."""
    if "kind" in data:
        kind = data.pop("kind")
        if kind not in ("tones", "none"):
            raise ValueError(f'kind is "tones" or "none"; for others write steps = ["{kind}"]')
        if "steps" in data:
            raise ValueError("steps replaces kind; remove kind")
        data["steps"] = [] if kind == "none" else ["tones"]
    flat = {key: data.pop(key) for key in ("items", "attempts", "min_tones", "max_tones") if key in data}
    if flat and "tones" in data:
        raise ValueError(f"'{next(iter(flat))}' belongs in [prescreen.tones]")
    return data | {"tones": flat} if flat else data
