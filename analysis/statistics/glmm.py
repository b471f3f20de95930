"""A mixed model: logistic regression of agreement with crossed effects of listeners, prompts and triplets.

logit P(agreed) = effect of the bin pair + effect of the listener + of the prompt + of the triplet; the last three are
normal with mean 0 and their own standard deviations. A triplet is a prompt and a bin pair, and both clips if the file
names them; it has an effect if any triplet was answered twice. Fitted by maximum likelihood with Laplace's
approximation, or by adaptive quadrature with a single grouping (analysis.statistics.glmm_fit). Two checks use
statsmodels (analysis.statistics.glmm_checks).
Conventions: effects and deviations are on the logit scale; "typical" rates are for random effects of 0; "marginal"
rates are averaged over all random effects, as a pooled rate is, with an interval by the delta method on the logit
scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits

from analysis.statistics.glmm_checks import MixedModelCheck, gee, variational
from analysis.statistics.glmm_data import CellCounts, Ints, collect, count_cells
from analysis.statistics.glmm_fit import LARGEST, PRIOR_OF_DEVIATIONS, MixedFit, fit
from study.design.bin_pairs import BIN_PAIRS

# Above this a fit takes too long: the model is fitted to a random sample of listeners, or without triplets.
MOST_WORK = 1e8
MOST_TRIPLET_WORK = 3e8
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class PairEffect:
    """One bin pair in the model: its effect and standard error, and the corresponding rates with a 95 % interval.

    `p` is two-sided, against chance.
    """

    effect: float
    error: float
    typical: float
    marginal: float
    ci_low: float
    ci_high: float
    p: float


@dataclass(frozen=True)
class MixedModel:
    """The fitted model of one embedder (logit scale), its checks, and notes on boundary cases.

    `covariance` is that of the effects, shape (pairs, pairs). A standard deviation is None if the grouping has no
    random effect in the model.
    """

    pairs: Mapping[str, PairEffect]
    sd_listener: float | None
    sd_prompt: float | None
    sd_triplet: float | None
    log_likelihood: float
    method: str
    covariance: npt.NDArray[np.float64]
    listeners: int
    prompts: int
    responses: int
    variational: MixedModelCheck | None
    gee: MixedModelCheck | None
    notes: tuple[str, ...]


def fit_mixed(frame: pd.DataFrame, seed: int = 0, checks: bool = True) -> MixedModel:
    """Fit the responses of one embedder (columns listener, prompt, bin_high, bin_low, agreed; clips if named).

    Raises:
        ValueError: if `frame` is empty.
    """
    if frame.empty:
        raise ValueError("a mixed model needs at least one response")
    notes: list[str] = []
    some = _affordable(frame, seed, notes)
    data = _without_costly_triplets(collect(some), notes)
    # Small matrices: more threads would only wait for each other.
    with threadpool_limits(1, user_api="blas"):
        found = fit(data)
    notes += _boundary_notes(data, found)
    deviations = {name: found.deviations.get(name) for name in ("listener", "prompt", "triplet")}
    return MixedModel(
        pairs=dict(zip(data.names, effects_of(data, found), strict=True)),
        sd_listener=deviations["listener"],
        sd_prompt=deviations["prompt"],
        sd_triplet=deviations["triplet"],
        log_likelihood=found.log_likelihood,
        method=found.method,
        covariance=found.covariance[: len(data.names), : len(data.names)],
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
    most = _most_listeners(frame["prompt"].nunique())
    if len(listeners) <= most:
        return frame
    drawn = np.random.default_rng(seed).choice(np.array(listeners, dtype=object), most, replace=False)
    notes.append(f"The model was fitted to {most:,} of {len(listeners):,} listeners, drawn at random (seed {seed}).")
    return frame[frame["listener"].isin(list(drawn))]


def _most_listeners(prompts: int) -> int:
    # One step costs the greater number times the square of the smaller.
    columns = prompts + len(BIN_PAIRS)
    return max(50, int(MOST_WORK / columns**2), int(min(np.sqrt(MOST_WORK / columns), columns)))


def _without_costly_triplets(data: CellCounts, notes: list[str]) -> CellCounts:
    sizes = sorted(factor.size for factor in data.factors)
    if len(sizes) < 3 or sizes[2] * (sizes[0] + sizes[1]) ** 2 <= MOST_TRIPLET_WORK:
        return data
    notes.append("There are too many triplets for effects of their own; the model has none.")
    return replace(data, factors=tuple(factor for factor in data.factors if factor.name != "triplet"))


def fit_codes(
    agreed: npt.NDArray[np.float64], listener: Ints, prompt: Ints, pair: Ints, triplet: Ints
) -> tuple[Ints, CellCounts, MixedFit]:
    """Fit answers given as codes, each shape (n,): the pairs that have answers (places in BIN_PAIRS), counts and fit.

    As `fit_mixed` does, it takes a random sample of the listeners of a very large study.
    """
    count = len(np.unique(listener))
    most = _most_listeners(len(np.unique(prompt)))
    if count > most:
        drawn = np.random.default_rng(0).permutation(count)[:most]
        rows = np.isin(np.unique(listener, return_inverse=True)[1], drawn)
        agreed = agreed[rows]
        listener, prompt, pair, triplet = (codes[rows] for codes in (listener, prompt, pair, triplet))
    pairs, own = np.unique(pair, return_inverse=True)
    names = tuple(f"{BIN_PAIRS[code][0]}–{BIN_PAIRS[code][1]}" for code in pairs)
    data = _without_costly_triplets(count_cells(agreed, listener, prompt, own.astype(np.intp), triplet, names), [])
    return pairs, data, fit(data)


def marginal_rate(effect: float, spread: float) -> float:
    """The rate averaged over normal effects of standard deviation `spread`, by Gauss-Hermite quadrature."""
    return float(expit(effect + spread * _NODES) @ _WEIGHTS)


def degrees_of_freedom(data: CellCounts) -> int:
    """Of Student's t: the number of listeners or prompts, whichever is smaller (of those that vary), minus one."""
    return max(min((size for size in data.sizes[1:] if size > 1), default=2) - 1, 1)


def marginal_logits(data: CellCounts, found: MixedFit) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The logit of each pair's marginal rate and its standard error (delta method), each shape (pairs,)."""
    sds = np.array(list(found.deviations.values()))
    spread = float(np.linalg.norm(sds)) if len(sds) else 0.0
    at = found.effects[:, None] + spread * _NODES
    density = expit(at) * expit(-at)
    rate = np.clip(expit(at) @ _WEIGHTS, 1e-12, 1 - 1e-12)
    k = len(found.effects)
    slope = np.zeros((k, len(found.covariance)))
    slope[:, :k] = np.diag(density @ _WEIGHTS)
    if spread > 0:
        slope[:, k:] = (density @ (_WEIGHTS * _NODES))[:, None] * sds / spread
    slope /= (rate * (1 - rate))[:, None]
    variance = np.einsum("ij,jk,ik->i", slope, found.covariance, slope)
    return logit(rate), np.sqrt(np.maximum(variance, 1e-12))


def effects_of(data: CellCounts, found: MixedFit) -> list[PairEffect]:
    """The effect of every pair, with its rates."""
    at, error = marginal_logits(data, found)
    df = degrees_of_freedom(data)
    reach = float(stats.t.ppf(0.975, df)) * error
    errors = np.sqrt(np.diag(found.covariance))
    return [
        PairEffect(
            float(effect), float(errors[i]), float(expit(effect)), float(expit(at[i])),
            float(expit(at[i] - reach[i])), float(expit(at[i] + reach[i])),
            float(2 * stats.t.sf(abs(at[i]) / error[i], df)),
        )
        for i, effect in enumerate(found.effects)
    ]  # fmt: skip


def _boundary_notes(data: CellCounts, found: MixedFit) -> list[str]:
    notes = []
    for name, count in (("listener", data.sizes[1]), ("prompt", data.sizes[2])):
        if count == 1:
            notes.append(f"There is only one {name}, so the model has no random effect of {name}s.")
    for name in found.deviations:
        if name in found.bounded:
            notes.append(
                f"The {name}s separate the answers, so the likelihood has no maximum below a standard deviation of "
                f"{LARGEST:g}; a half-normal prior (standard deviation {PRIOR_OF_DEVIATIONS:g}) keeps it finite."
            )
    if alike := [f"{name}s" for name, sd in found.deviations.items() if sd < 0.01 and name not in found.bounded]:
        *most, last = alike
        names = f"{', '.join(most)} and {last}" if most else last
        given = "deviations are" if most else "deviation is"
        notes.append(f"The likelihood is highest if {names} do not differ at all; their standard {given} given as 0.")
    if found.penalised:
        notes.append(
            f"All answers are the same for bins {', '.join(found.penalised)}: the best effect would be infinite. A "
            "penalty keeps it finite, as if half an answer more agreed and half an answer more did not (log-F(1, 1))."
        )
    if not found.converged:
        notes.append(
            "The fit did not converge; its values are those of the last step. Use the two-way intervals instead."
        )
    return notes
