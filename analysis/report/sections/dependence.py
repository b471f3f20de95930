"""Agreement with listeners and prompts as random: intervals, the mixed model, agreement by prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.presentation.tables import one_line
from analysis.report.methods_text import describe_sample
from analysis.report.plain_data import plain
from analysis.report.section import Report, ReportInputs, ReportSection
from analysis.statistics.glmm import MixedModel, fit_mixed
from analysis.statistics.two_way import (
    Dependence,
    dependence_table,
    describe_dependence,
    item_table,
    two_way_bootstrap,
)

# Answers × resamples of one bootstrap.
BOOTSTRAP_WORK = 200_000_000
MOST_ITEMS_SHOWN = 400
MOST_MODELS_OPEN = 4


@dataclass(frozen=True)
class DependenceResult:
    """By embedder: the cells of the table, bootstrap intervals of the overall rate, the mixed model; and `items`.

    `items` has agreement by embedder and prompt (columns: `analysis.statistics.two_way.item_table`).
    """

    cells: Mapping[str, tuple[Dependence, ...]]
    bootstrap: Mapping[str, Mapping[str, tuple[float, float]]]
    resamples: int
    seed: int
    mixed: Mapping[str, MixedModel]
    items: pd.DataFrame


def resamples_for(frame: pd.DataFrame) -> int:
    """How many bootstrap resamples are affordable: 200 to 2,000."""
    return int(np.clip(BOOTSTRAP_WORK // len(frame), 200, 2000))


class DependenceSection(ReportSection):
    """For each embedder the table, the conclusions in words, and the mixed model with its checks."""

    template = "dependence.html.j2"

    def compute(self, inputs: ReportInputs) -> DependenceResult:
        read = inputs.responses
        parts = {name: read.frame[read.frame["embedder"] == name] for name in read.embedders}
        resamples = resamples_for(read.frame)
        return DependenceResult(
            cells=dependence_table(read.frame, inputs.alternative),
            bootstrap={name: two_way_bootstrap(part, resamples, inputs.seed) for name, part in parts.items()},
            resamples=resamples,
            seed=inputs.seed,
            mixed={name: fit_mixed(part, inputs.seed) for name, part in parts.items()},
            items=item_table(read.frame),
        )

    def values(self, result: DependenceResult, report: Report) -> Mapping[str, Any]:
        return {
            "sample": describe_sample(report.inputs.responses),
            "conclusions": {name: summarise_conclusions(cells) for name, cells in result.cells.items()},
            "most_items": MOST_ITEMS_SHOWN,
            "most_open": MOST_MODELS_OPEN,
        }

    def data(self, result: DependenceResult) -> Mapping[str, Any]:
        dependence = {
            name: {
                cell.label: dataclasses.asdict(cell)
                | {
                    "design_effect": cell.design_effect,
                    "survives": cell.survives,
                    "in_words": describe_dependence(cell),
                }
                for cell in cells
            }
            for name, cells in result.cells.items()
        }
        return {
            "seed": result.seed,
            "dependence": plain(dependence),
            "bootstrap": {"resamples": result.resamples} | plain(result.bootstrap),
            "mixed": plain({name: _model_data(model) for name, model in result.mixed.items()}),
        }

    def frames(self, result: DependenceResult) -> Mapping[str, pd.DataFrame]:
        rows = [
            {"embedder": name, "bins": cell.label.replace("–", "-")}
            | {key: value for key, value in dataclasses.asdict(cell).items() if key != "label"}
            | {"design_effect": cell.design_effect, "survives": cell.survives}
            for name, cells in result.cells.items()
            for cell in cells
        ]
        return {"dependence.csv": pd.DataFrame(rows), "items.csv": result.items}

    def warnings(self, result: DependenceResult) -> Sequence[str]:
        found = []
        for name, cells in result.cells.items():
            lost = [cell.label for cell in cells if cell.survives is False]
            if lost:
                found.append(
                    f"{one_line(name)}: the pooled result for {', '.join(lost)} is not significant with listeners and "
                    "prompts as random effects."
                )
            fallbacks = dict.fromkeys(cell.fallback for cell in cells if cell.fallback)
            found += [f"{one_line(name)}: {text}" for text in fallbacks]
            found += [
                f"{one_line(name)}, mixed model: {note}"
                for note in result.mixed[name].notes
                if "no estimate" in note or "did not" in note
            ]
        return found


def _model_data(model: MixedModel) -> dict[str, Any]:
    """All fields; the key of a check's note is older than the field."""
    data = dataclasses.asdict(model)
    for name in ("variational", "gee"):
        if data[name] is not None:
            data[name]["said"] = data[name].pop("note")
    return data


def summarise_conclusions(cells: Sequence[Dependence]) -> list[str]:
    """The conclusion for every cell, cells with the same one together; then where another method was needed."""
    groups: dict[str, list[str]] = {}
    for cell in cells:
        label = cell.label if "–" in cell.label else "everything" if cell.label == "all" else f"row {cell.label[0]}"
        groups.setdefault(describe_dependence(cell), []).append(label)
    fallbacks: dict[str, list[str]] = {}
    for cell in cells:
        if cell.fallback:
            fallbacks.setdefault(cell.fallback, []).append(cell.label)
    lines = [
        f"{', '.join(labels)}: {sentence[0].lower()}{sentence[1:]}"
        for sentence, labels in (*groups.items(), *fallbacks.items())
    ]
    return [line[0].upper() + line[1:] for line in lines]
