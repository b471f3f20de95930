"""A mixed model: logistic regression of agreement with crossed effects of listeners and prompts.

logit P(agreed) = effect of the bin pair + effect of the listener + effect of the prompt; the latter two are normal with
mean 0 and their own standard deviations. Fitted with Laplace's approximation (analysis.statistics.glmm_laplace;
Breslow and Clayton, JASA 88, 1993). A weak normal prior on the bin pairs (sd 5 on the logit scale) keeps the effect of
a pair finite if all answers agreed. Two checks use statsmodels (analysis.statistics.glmm_checks).
Conventions: effects and deviations are on the logit scale; "typical" rates are for a listener and a prompt with effect
0; "marginal" rates are averaged over listeners and prompts, like a pooled rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

from analysis.statistics.glmm_checks import MixedModelCheck, gee, variational
from analysis.statistics.glmm_laplace import LARGEST, PRIOR_SD, CellCounts, LaplaceFit, collect, fit_laplace
from study.design.bin_pairs import BIN_PAIRS

# Above this a fit takes too long, so the model is fitted to a random sample of listeners.
MOST_WORK = 1e8
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


@dataclass(frozen=True)
class PairEffect:
    """One bin pair in the model: its effect and standard error, and the corresponding rates with a 95 % interval."""

    effect: float
    error: float
    typical: float
    marginal: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class MixedModel:
    """The fitted model of one embedder (logit scale), its checks, and notes on boundary cases."""

    pairs: Mapping[str, PairEffect]
    sd_listener: float
    sd_prompt: float
    listeners: int
    prompts: int
    responses: int
    variational: MixedModelCheck | None
    gee: MixedModelCheck | None
    notes: tuple[str, ...]


def fit_mixed(frame: pd.DataFrame, seed: int = 0, checks: bool = True) -> MixedModel:
    """Fit the responses of one embedder (columns listener, prompt, bin_high, bin_low, agreed).

    Raises:
        ValueError: if `frame` is empty.
    """
    if frame.empty:
        raise ValueError("a mixed model needs at least one response")
    notes: list[str] = []
    some = _affordable(frame, seed, notes)
    data = collect(some)
    fit = fit_laplace(data)
    notes += _boundary_notes(data, fit)
    # With only one listener or prompt, the result generalises only over the other, as in two_way.
    df = max(min((size for size in data.sizes[1:] if size > 1), default=2) - 1, 1)
    spread = float(np.hypot(fit.sd_listener, fit.sd_prompt))
    pairs = {name: _pair_effect(fit, i, spread, df) for i, name in enumerate(data.names)}
    return MixedModel(
        pairs=pairs,
        sd_listener=fit.sd_listener,
        sd_prompt=fit.sd_prompt,
        listeners=data.sizes[1],
        prompts=data.sizes[2],
        responses=len(some),
        variational=variational(data) if checks else None,
        gee=gee(data) if checks else None,
        notes=tuple(notes),
    )


def _affordable(frame: pd.DataFrame, seed: int, notes: list[str]) -> pd.DataFrame:
    """All responses, or those of a random sample of listeners that can be fitted in seconds."""
    listeners = sorted(frame["listener"].unique(), key=str)
    columns = frame["prompt"].nunique() + len(BIN_PAIRS)
    # One step costs the greater number times the square of the smaller.
    most = max(50, int(MOST_WORK / columns**2), int(min(np.sqrt(MOST_WORK / columns), columns)))
    if len(listeners) <= most:
        return frame
    drawn = np.random.default_rng(seed).choice(np.array(listeners, dtype=object), most, replace=False)
    notes.append(f"The model was fitted to {most:,} of {len(listeners):,} listeners, drawn at random (seed {seed}).")
    return frame[frame["listener"].isin(list(drawn))]


def marginal_rate(effect: float, spread: float) -> float:
    """The rate averaged over normal effects of standard deviation `spread`, by Gauss-Hermite quadrature."""
    return float(expit(effect + spread * _NODES) @ _WEIGHTS / _WEIGHTS.sum())


def _pair_effect(fit: LaplaceFit, index: int, spread: float, df: int) -> PairEffect:
    effect, error = float(fit.effects[index]), float(np.sqrt(fit.covariance[index, index]))
    reach = float(stats.t.ppf(0.975, df)) * error
    low, high = marginal_rate(effect - reach, spread), marginal_rate(effect + reach, spread)
    return PairEffect(effect, error, float(expit(effect)), marginal_rate(effect, spread), low, high)


def _boundary_notes(data: CellCounts, fit: LaplaceFit) -> list[str]:
    found = []
    for name, count, sd in (("listener", data.sizes[1], fit.sd_listener), ("prompt", data.sizes[2], fit.sd_prompt)):
        if count == 1:
            found.append(f"There is only one {name}, so the model has no random effect of {name}s.")
        elif sd < 0.01:
            found.append(
                f"The likelihood is highest if {name}s do not differ at all; their standard deviation is given as 0."
            )
        elif sd > 0.99 * LARGEST:
            found.append(
                f"The {name}s separate the answers: their standard deviation has no estimate and is limited to "
                f"{LARGEST:g}."
            )
    same = [
        name for i, name in enumerate(data.names) if data.y[data.pair == i].sum() in (0, data.n[data.pair == i].sum())
    ]
    if same:
        found.append(
            f"All answers are the same for bins {', '.join(same)}: the best effect would be infinite; the prior "
            f"(normal, sd {PRIOR_SD:g} on the logit scale) keeps it finite."
        )
    if not fit.converged:
        found.append(
            "The fit did not converge; its values are those of the last step. Use the two-way intervals instead."
        )
    return found
