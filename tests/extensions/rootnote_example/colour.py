"""A question type that does not say how its answers are published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from study.questions.base import BaseQuestion, single_value

if TYPE_CHECKING:
    import numpy as np


class ColourQuestion(BaseQuestion):
    """A colour, such as #ff8800."""

    type: Literal["colour"]

    def _accept(self, given: list[str]) -> str:
        return single_value(given)

    def simulate(self, rng: np.random.Generator) -> list[str]:
        return [f"#{rng.integers(0, 2**24):06x}"]
