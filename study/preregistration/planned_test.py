"""The primary test of a study: which one, one- or two-sided, and the smallest effect of interest.

`[analysis]` of study.toml says it, `study freeze` records it, `analysis power` simulates it, `analysis report` applies
it. A plan frozen before there was a choice has the exact test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from study.config_sections import AnalysisConfig

if TYPE_CHECKING:
    from study.config import Study

CHANCE = 0.5
ALPHA = 0.05
# What a frozen plan says of each test; a changed sentence would count as a changed plan.
DESCRIPTIONS: dict[str, dict[str, str]] = {
    "two_way_holm": {
        "test": "two-way (listeners and prompts as random)",
        "correction": "Holm, over the bin pairs of one embedder",
        "interval": "Wilson with the effective number of answers and Student’s t, 95 %",
    },
    "exact_holm": {
        "test": "exact binomial",
        "correction": "Holm, over the bin pairs of one embedder",
        "interval": "Clopper-Pearson, 95 %",
    },
    "mixed_holm": {
        "test": "logistic mixed model (listeners, prompts and triplets as random)",
        "correction": "Holm, over the bin pairs of one embedder",
        "interval": "marginal rate of the model, delta method on the logit scale, 95 %",
    },
}


@dataclass(frozen=True)
class PlannedTest:
    """The primary test. `smallest_effect` is a rate above chance: 0.05 means that below 55 % nothing is of interest."""

    primary: str = "two_way_holm"
    alternative: str = "two-sided"
    smallest_effect: float = 0.05

    @classmethod
    def from_config(cls, config: AnalysisConfig) -> PlannedTest:
        return cls(config.primary, config.alternative, config.smallest_effect)

    @classmethod
    def from_plan(cls, tests: Mapping[str, Any]) -> PlannedTest:
        """The test of a frozen plan's `tests`; one without a primary test was frozen for the exact test."""
        primary = str(tests.get("primary", "exact_holm"))
        return cls(
            primary if primary in DESCRIPTIONS else cls.primary,
            str(tests.get("alternative", "two-sided")),
            float(tests.get("smallest_effect", cls.smallest_effect)),
        )

    def as_data(self) -> dict[str, Any]:
        """What a frozen plan says of the test."""
        return {
            "primary": self.primary,
            **DESCRIPTIONS[self.primary],
            "alternative": self.alternative,
            "chance": CHANCE,
            "alpha": ALPHA,
            "smallest_effect": self.smallest_effect,
        }


DEFAULT_TEST = PlannedTest()


def planned_test_of(study: Study) -> PlannedTest:
    """The test of the frozen plan, or of study.toml if nothing is frozen.

    Raises:
        RootnoteError: if the frozen plan cannot be read.
    """
    from study.preregistration.document import read_frozen

    frozen = read_frozen(study.folder)
    return (
        PlannedTest.from_config(study.config.analysis)
        if frozen is None
        else PlannedTest.from_plan(frozen.plan["tests"])
    )
