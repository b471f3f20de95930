"""The settings that every step of the prescreen has: [prescreen.<step>] in study.toml."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class StepConfig(BaseModel):
    """A step of the prescreen: `threshold` of `items` right (None: all), in one of `attempts`.

    If it is not `required`, its outcome is recorded and everyone continues. A step adds settings in a subclass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    items: int = Field(default=6, ge=1, le=24, description="How many sounds an attempt has.")
    threshold: int | None = Field(default=None, ge=1, description="How many must be right; default: all.")
    attempts: int = Field(default=2, ge=1, le=5, description="How many attempts a listener has, each with new sounds.")
    required: bool = Field(default=True, description="false: the result is recorded and everyone continues.")

    @property
    def needed(self) -> int:
        return self.threshold or self.items

    @model_validator(mode="after")
    def _reachable(self) -> StepConfig:
        if self.needed > self.items:
            raise ValueError(f"threshold = {self.needed} is above items = {self.items}")
        return self
