"""A question for the listener's age, answered by a band of years."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from study.languages import mark
from study.questions.base import BaseQuestion, offered_value, single_value
from study.questions.generalise import Level, offered_level

NOT_SAID = "not said"
Band = tuple[int, int | None]  # first and last year; the last band has no last year


class AgeBandQuestion(BaseQuestion):
    """An age band, because the exact age is not needed; `ages` are the first years of the bands, the last is open."""

    description: ClassVar[str] = "an age band, or “not said”"

    type: Literal["age_band"]
    text: str = Field(
        default=mark("How old are you?"),
        min_length=1,
        max_length=300,
        description="What is asked, in the study's first language.",
    )
    ages: list[Annotated[int, Field(ge=0, le=120)]] = Field(
        default=[18, 25, 35, 45, 55, 65],
        min_length=2,
        description="The first year of each band; the last band is open.",
    )

    @model_validator(mode="after")
    def _has_rising_ages(self) -> Self:
        if self.ages != sorted(set(self.ages)):
            raise ValueError(f"question '{self.id}': ages must rise")
        return self

    @property
    def bands(self) -> list[Band]:
        """First and last year of each band; the last has no last year."""
        closed: list[Band] = [(first, after - 1) for first, after in zip(self.ages, self.ages[1:], strict=False)]
        return [*closed, (self.ages[-1], None)]

    @property
    def countable(self) -> Sequence[str]:
        return [*map(band_name, self.bands), NOT_SAID]

    def _accept(self, given: list[str]) -> str:
        return offered_value(single_value(given), self.countable)

    def levels(self, given: Sequence[str]) -> tuple[Level, ...]:
        return (*super().levels(given), *(self._merged(size) for size in range(2, len(self.ages))))

    def _merged(self, size: int) -> Level:
        """Groups of `size` bands."""
        bands = self.bands
        names = {NOT_SAID: NOT_SAID}
        for start in range(0, len(bands), size):
            members = bands[start : start + size]
            names |= {band_name(band): band_name((members[0][0], members[-1][1])) for band in members}
        return offered_level(f"{size} bands together", self.countable, names.__getitem__)


def band_name(band: Band) -> str:
    """A band as it is stored: no spreadsheet mistakes "18 to 24" for a date."""
    first, last = band
    return f"{first} or older" if last is None else f"{first} to {last}"
