"""Agreement with listeners and prompts as random: intervals, the mixed model, agreement by prompt."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.presentation.tables import one_line
from analysis.report.dependence_text import describe_model, describe_order, describe_unevenness, remarks_on
from analysis.report.methods_text import describe_sample
from analysis.report.plain_data import plain
from analysis.report.section import Report, ReportInputs, ReportSection
from analysis.statistics.glmm import MixedModel, fit_mixed
from analysis.statistics.ordering import OrderTest, order_test
from analysis.statistics.two_way import (
    Dependence,
    dependence_table,
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
    order: Mapping[str, OrderTest | None]


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
        mixed = {name: fit_mixed(part, inputs.seed) for name, part in parts.items()}
        return DependenceResult(
            cells=dependence_table(read.frame, inputs.alternative),
            bootstrap={name: two_way_bootstrap(part, resamples, inputs.seed) for name, part in parts.items()},
            resamples=resamples,
            seed=inputs.seed,
            mixed=mixed,
            items=item_table(read.frame),
            order={name: order_of(model, inputs.seed) for name, model in mixed.items()},
        )

    def values(self, result: DependenceResult, report: Report) -> Mapping[str, Any]:
        return {
            "sample": describe_sample(report.inputs.responses),
            "remarks": {name: remarks_on(cells) for name, cells in result.cells.items()},
            "model_sentences": {name: describe_model(model) for name, model in result.mixed.items()},
            "order_sentences": {name: describe_order(found) for name, found in result.order.items()},
            "most_items": MOST_ITEMS_SHOWN,
            "most_open": MOST_MODELS_OPEN,
        }

    def data(self, result: DependenceResult) -> Mapping[str, Any]:
        dependence = {
            name: {cell.label: dataclasses.asdict(cell) | {"design_effect": cell.design_effect} for cell in cells}
            for name, cells in result.cells.items()
        }
        return {
            "seed": result.seed,
            "dependence": plain(dependence),
            "bootstrap": {"resamples": result.resamples} | plain(result.bootstrap),
            "mixed": plain({name: _model_data(model) for name, model in result.mixed.items()}),
            "order": plain({name: dataclasses.asdict(one) if one else None for name, one in result.order.items()}),
        }

    def frames(self, result: DependenceResult) -> Mapping[str, pd.DataFrame]:
        rows = [
            {"embedder": name, "bins": cell.label.replace("–", "-")}
            | {key: value for key, value in dataclasses.asdict(cell).items() if key != "label"}
            | {"design_effect": cell.design_effect}
            for name, cells in result.cells.items()
            for cell in cells
        ]
        return {"dependence.csv": pd.DataFrame(rows), "items.csv": result.items}

    def warnings(self, result: DependenceResult) -> Sequence[str]:
        found = []
        for name, cells in result.cells.items():
            fallbacks = dict.fromkeys(
                text for cell in cells for text in re.split(r"(?<=\.) (?=[A-Z])", cell.fallback) if text
            )
            found += [f"{one_line(name)}: {text}" for text in fallbacks]
            found += [f"{one_line(name)}: {text}" for text in describe_unevenness(cells)]
            found += [
                f"{one_line(name)}, mixed model: {note}"
                for note in result.mixed[name].notes
                if "separate" in note or "did not" in note or "penalty" in note
            ]
        return found


def order_of(model: MixedModel, seed: int) -> OrderTest | None:
    """The order-restricted tests on the model's effects; None if they are not estimated."""
    names = list(model.pairs)
    return order_test(names, np.array([model.pairs[name].effect for name in names]), model.covariance, seed)


def _model_data(model: MixedModel) -> dict[str, Any]:
    """All fields; the key of a check's note is older than the field."""
    data = dataclasses.asdict(model)
    data["covariance"] = model.covariance.tolist()
    for name in ("variational", "gee"):
        if data[name] is not None:
            data[name]["said"] = data[name].pop("note")
    return data
