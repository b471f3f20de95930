"""Findings: what the analysis adds to Table 1, computed at once for the report and for files of numbers.

Conventions: every part is None, or empty, where the responses lack what it needs; every seed is the one given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.dependence import Dependence, dependence_table, item_table, survival, two_way_bootstrap
from analysis.mixed import MixedModel, fit_mixed
from analysis.responses import Responses

SEED = 20240114
# Answers × resamples that are weighed for one bootstrap.
WORK = 200_000_000


@dataclass(frozen=True)
class Findings:
    """All that is computed from responses beside Table 1, by embedder where a mapping."""

    seed: int
    dependence: Mapping[str, tuple[Dependence, ...]]
    bootstrap: Mapping[str, Mapping[str, tuple[float, float]]]
    resamples: int
    mixed: Mapping[str, MixedModel]
    items: pd.DataFrame


def find(read: Responses, seed: int = SEED) -> Findings:
    """Everything that the responses allow."""
    frame = read.frame
    parts = {name: frame[frame["embedder"] == name] for name in read.embedders}
    resamples = int(np.clip(WORK // len(frame), 200, 2000))
    return Findings(
        seed=seed,
        dependence=dependence_table(frame),
        bootstrap={name: two_way_bootstrap(part, resamples, seed) for name, part in parts.items()},
        resamples=resamples,
        mixed={name: fit_mixed(part, seed) for name, part in parts.items()},
        items=item_table(frame),
    )


def as_data(findings: Findings) -> dict[str, Any]:
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
        "mixed": _plain({name: dataclasses.asdict(model) for name, model in findings.mixed.items()}),
    }


def frames(findings: Findings) -> dict[str, pd.DataFrame]:
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
    }


def _plain(value: Any) -> Any:
    """Numbers that JSON knows; keys as text, with a plain hyphen between bins."""
    if isinstance(value, Mapping):
        return {str(key).replace("–", "-"): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
