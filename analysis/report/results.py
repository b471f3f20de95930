"""Findings: what the analysis adds to Table 1, computed at once for the report and for files of numbers.

Conventions: every part is None, or empty, where the responses lack what it needs; every seed is the one given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.report.reliability_text import in_words as reliability_in_words
from analysis.responses.load import Responses
from analysis.statistics.agreement import Alternative
from analysis.statistics.bins import Bins
from analysis.statistics.bradley_terry import Scale, listeners_scale
from analysis.statistics.bradley_terry import in_words as scale_in_words
from analysis.statistics.glmm import MixedModel, fit_mixed
from analysis.statistics.psychometric import Curve, psychometric
from analysis.statistics.reliability import Reliability, reliability
from analysis.statistics.two_way import Dependence, dependence_table, item_table, survival, two_way_bootstrap

SEED = 20240114
# Answers × resamples that are weighed for one bootstrap.
WORK = 200_000_000


@dataclass(frozen=True)
class ReportResults:
    """All that is computed from responses beside Table 1, by embedder where a mapping."""

    seed: int
    dependence: Mapping[str, tuple[Dependence, ...]]
    bootstrap: Mapping[str, Mapping[str, tuple[float, float]]]
    resamples: int
    mixed: Mapping[str, MixedModel]
    items: pd.DataFrame
    curves: Sequence[Curve]
    scales: Sequence[Scale]
    reliability: Reliability


def compute_results(
    read: Responses,
    bins: Mapping[str, Bins] | None = None,
    seed: int = SEED,
    alternative: Alternative = "two-sided",
) -> ReportResults:
    """Everything that the responses allow; the bins, where known, give the spread of an embedder's similarities."""
    frame = read.frame
    parts = {name: frame[frame["embedder"] == name] for name in read.embedders}
    resamples = int(np.clip(WORK // len(frame), 200, 2000))
    return ReportResults(
        seed=seed,
        dependence=dependence_table(frame, alternative),
        bootstrap={name: two_way_bootstrap(part, resamples, seed) for name, part in parts.items()},
        resamples=resamples,
        mixed={name: fit_mixed(part, seed) for name, part in parts.items()},
        items=item_table(frame),
        curves=psychometric(frame, {name: one.sigma for name, one in (bins or {}).items()}, resamples // 4, seed),
        scales=listeners_scale(frame, seed),
        reliability=reliability(frame, read.kept, read.everything),
    )


def as_data(findings: ReportResults) -> dict[str, Any]:
    """The findings as plain data for JSON: no NaN, nothing infinite."""
    dependence = {
        name: {
            cell.label.replace("–", "-"): dataclasses.asdict(cell)
            | {"design_effect": cell.design_effect, "survives": cell.survives, "in_words": survival(cell)}
            for cell in cells
        }
        for name, cells in findings.dependence.items()
    }
    return {
        "seed": findings.seed,
        "dependence": _plain(dependence),
        "bootstrap": {"resamples": findings.resamples} | _plain(findings.bootstrap),
        "psychometric": _plain([dataclasses.asdict(curve) for curve in findings.curves]),
        "scale": _plain([_scale_data(scale) for scale in findings.scales]),
        "reliability": _plain(dataclasses.asdict(findings.reliability)),
        "reliability_in_words": reliability_in_words(findings.reliability),
        "mixed": _plain({name: dataclasses.asdict(model) for name, model in findings.mixed.items()}),
    }


def _scale_data(scale: Scale) -> dict[str, Any]:
    """All but the table of prompts, which has a file of its own."""
    fields = {field.name: getattr(scale, field.name) for field in dataclasses.fields(scale)}
    return {name: value for name, value in fields.items() if name != "by_prompt"} | {"in_words": scale_in_words(scale)}


def frames(findings: ReportResults) -> dict[str, pd.DataFrame]:
    """The findings as tables, by the name of the CSV file they go to."""
    rows = [
        {"embedder": name}
        | {key: value for key, value in dataclasses.asdict(cell).items() if key != "label"}
        | {"bins": cell.label.replace("–", "-"), "design_effect": cell.design_effect, "survives": cell.survives}
        for name, cells in findings.dependence.items()
        for cell in cells
    ]
    dependence = pd.DataFrame(rows)
    front = ["embedder", "bins"]
    return {
        "dependence.csv": dependence[[*front, *(name for name in dependence if name not in front)]],
        "items.csv": findings.items,
        "scale.csv": pd.concat([scale.by_prompt for scale in findings.scales]),
        **_curve_frames(findings.curves),
    }


def _curve_frames(curves: Sequence[Curve]) -> dict[str, pd.DataFrame]:
    """The curves with their bands, and the points of answers; nothing where there are no similarities."""
    if not curves:
        return {}
    lines = [
        pd.DataFrame(
            {"embedder": c.embedder, "difference": c.at, "z": np.array(c.at) / c.spread, "rate": c.rate, "low": c.low,
             "high": c.high}
        )
        for c in curves
    ]  # fmt: skip
    points = [
        {"embedder": c.embedder, "z": point.difference / c.spread} | dataclasses.asdict(point)
        for c in curves
        for point in c.points
    ]
    return {"curves.csv": pd.concat(lines), "curve_points.csv": pd.DataFrame(points)}


def _plain(value: Any) -> Any:
    """Numbers that JSON knows; keys as text, with a plain hyphen between bins."""
    if isinstance(value, Mapping):
        return {str(key).replace("–", "-"): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
