"""The interface of a section of the report, and its input.

A section computes its result once from the inputs; the page, the files of numbers and the figures are made from that
result. To add one: a file in `analysis.report.sections`, a template, one line in `analysis.report.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from analysis.preregistration.deviations import PreregistrationCheck
from analysis.report.compare_studies import ComparedStudy
from analysis.responses.load import Responses
from analysis.statistics.agreement import Alternative, Table1
from analysis.statistics.bins import Bins
from analysis.statistics.primary import PairVerdict
from study.design.eligibility import Prompts, TagDifference
from study.preregistration.planned_test import DEFAULT_TEST, PlannedTest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SEED = 20240114


@dataclass(frozen=True)
class EligiblePrompts:
    """An embedder's random prompts, and how the eligible ones differ from the others."""

    prompts: Prompts
    differences: Sequence[TagDifference]


@dataclass(frozen=True)
class ReportInputs:
    """Everything that sections are computed from.

    `test` is the primary test and `verdicts` its results by embedder and bin pair; `planned` says whether it was frozen
    before the answers. `by` names columns to group agreement by; `others` are studies to compare with; `notes` are
    remarks on the input files; `rules_source` says where the exclusion rules come from; `leaks` are names in
    study.leaks.LEAKS; `bayes` asks for the Bayesian model.
    """

    responses: Responses
    tables: Table1
    bins: Mapping[str, Bins]
    verdicts: Mapping[str, Mapping[tuple[int, int], PairVerdict]] = field(default_factory=dict)
    test: PlannedTest = DEFAULT_TEST
    planned: bool = False
    study: str = ""
    note: str = ""
    notes: Sequence[str] = ()
    rules_source: str = ""
    preregistration: PreregistrationCheck | None = None
    others: Sequence[ComparedStudy] = ()
    by: Sequence[str] = ()
    prompts: Mapping[str, EligiblePrompts] = field(default_factory=dict)
    seed: int = SEED
    leaks: tuple[str, ...] = ()
    bayes: bool = False

    @property
    def alternative(self) -> Alternative:
        return "greater" if self.test.alternative == "greater" else "two-sided"

    def intervals(self, embedder: str) -> dict[tuple[int, int], tuple[float, float]]:
        """The primary test's 95 % intervals by bin pair."""
        return {pair: (one.ci_low, one.ci_high) for pair, one in self.verdicts.get(embedder, {}).items()}


@dataclass(frozen=True)
class Report:
    """The inputs, and the result of every section by the section's name in the registry."""

    inputs: ReportInputs
    results: Mapping[str, Any]


@dataclass(frozen=True)
class Plot:
    """A figure file: the text that describes it, and the function that draws it."""

    label: str
    draw: Callable[[], Figure]


class ReportSection:
    """One section of the report; a subclass overrides what it has.

    `template` is a file in `analysis/templates`, or in the folder `templates` next to the module of a section that
    another package adds. It gets `result`, `report`, `inputs` and what `values` returns.
    """

    template: ClassVar[str]

    def compute(self, inputs: ReportInputs) -> Any:
        """The result of the section, from which everything else is made."""
        raise NotImplementedError

    def is_shown(self, result: Any) -> bool:
        """Whether the section appears on the page; by default if there is a result."""
        return bool(result)

    def values(self, result: Any, report: Report) -> Mapping[str, Any]:
        """Further variables for the template."""
        return {}

    def data(self, result: Any) -> Mapping[str, Any]:
        """What the section adds to numbers.json, by top-level key: JSON-able values."""
        return {}

    def frames(self, result: Any) -> Mapping[str, pd.DataFrame]:
        """Tables to be written as CSV, by file name."""
        return {}

    def files(self, result: Any, report: Report) -> Mapping[str, str]:
        """Further text files, by file name."""
        return {}

    def plots(self, result: Any, report: Report) -> Mapping[str, Plot]:
        """Figures to be written as SVG and PDF, by file name without suffix."""
        return {}

    def warnings(self, result: Any) -> Sequence[str]:
        """Sentences that a reader must see before the tables."""
        return ()
