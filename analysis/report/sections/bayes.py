"""The Bayesian mixed model next to the mixed model by maximum likelihood, where `--bayes` asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.presentation.tables import one_line
from analysis.report.plain_data import plain
from analysis.report.section import Report, ReportInputs, ReportSection
from analysis.statistics.bayesian import (
    LEAST_EFFECTIVE,
    MOST_RHAT,
    PRIOR_OF_DEVIATIONS,
    PRIOR_OF_EFFECTS,
    BayesianModel,
    fit_bayesian,
    require_numpyro,
)


@dataclass(frozen=True)
class BayesResult:
    """The posterior of every embedder, the versions of the packages that sampled, and the seed."""

    models: Mapping[str, BayesianModel]
    software: Mapping[str, str]
    seed: int
    smallest_effect: float


class BayesSection(ReportSection):
    """Posterior rates, standard deviations and orderings, next to the mixed model, with their checks."""

    template = "bayes.html.j2"

    def compute(self, inputs: ReportInputs) -> BayesResult | None:
        if not inputs.bayes:
            return None
        frame, least = inputs.responses.frame, inputs.test.smallest_effect
        return BayesResult(
            models={
                name: fit_bayesian(frame[frame["embedder"] == name], least, inputs.seed)
                for name in inputs.responses.embedders
            },
            software=require_numpyro(),
            seed=inputs.seed,
            smallest_effect=least,
        )

    def values(self, result: BayesResult, report: Report) -> Mapping[str, Any]:
        mixed = report.results["dependence"].mixed
        return {
            "mixed": mixed,
            "likelihood_sds": {
                name: {"listener": one.sd_listener, "prompt": one.sd_prompt, "triplet": one.sd_triplet}
                for name, one in mixed.items()
            },
            "least": 100 * (0.5 + result.smallest_effect),
            "prior_of_effects": PRIOR_OF_EFFECTS,
            "prior_of_deviations": PRIOR_OF_DEVIATIONS,
            "most_rhat": MOST_RHAT,
            "least_effective": LEAST_EFFECTIVE,
        }

    def data(self, result: BayesResult | None) -> Mapping[str, Any]:
        if result is None:
            return {}
        models = {name: dataclasses.asdict(model) for name, model in result.models.items()}
        return {
            "bayes": {
                "models": {name: plain(model) for name, model in models.items()},
                "software": dict(result.software),
                "seed": result.seed,
                "smallest_effect": result.smallest_effect,
            }
        }

    def frames(self, result: BayesResult | None) -> Mapping[str, pd.DataFrame]:
        if result is None:
            return {}
        rows: list[dict[str, Any]] = []
        orders: list[dict[str, Any]] = []
        for name, model in result.models.items():
            for label, pair in model.pairs.items():
                values = dataclasses.asdict(pair)
                effect = {f"effect_{key}": value for key, value in values.pop("effect").items()}
                rows.append({"embedder": name, "bins": label.replace("–", "-")} | values | effect)
            for one in model.orders:
                outer, inner = (text.replace("–", "-") for text in (one.outer, one.inner))
                orders.append({"embedder": name, "higher": outer, "lower": inner, "probability": one.probability})
        columns = ["embedder", "higher", "lower", "probability"]
        return {"bayes.csv": pd.DataFrame(rows), "bayes_orders.csv": pd.DataFrame(orders, columns=columns)}

    def warnings(self, result: BayesResult | None) -> Sequence[str]:
        return [
            f"{one_line(name)}, Bayesian model: {text} Do not use its results."
            for name, model in (result.models if result else {}).items()
            for text in model.trouble
        ]
