"""A mixed model: logistic regression of agreement with crossed effects of listeners and prompts.

logit P(agreed) = effect of the bin pair + effect of the listener + effect of the prompt, the latter two normal with
mean 0 and standard deviations of their own. Fitted by Laplace's approximation: for given deviations the mode of all
effects by Newton's method, listeners eliminated first because their block is diagonal; then the deviations that
maximise the approximate marginal likelihood. A weak normal prior on the bin pairs (sd 5 on the logit scale) keeps a
pair on which all agreed finite. Two checks with statsmodels: variational Bayes of the same model
(`BinomialBayesMixedGLM`) and estimating equations clustered on listeners (`GEE`, bias-reduced errors, t).
Conventions: effects and deviations on the logit scale; "typical" rates are of a listener and prompt with effect 0,
"marginal" ones averaged over listeners and prompts, as a pooled rate is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import linalg, optimize, stats
from scipy.special import expit, log_expit

from analysis.agreement import BIN_PAIRS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
PRIOR_SD = 5.0
SMALLEST, LARGEST = 1e-3, 5.0
# Above this a fit takes too long to be waited for; a random part of the listeners is fitted instead.
MOST_WORK = 1e8
MOST_FOR_VARIATIONAL = 250  # random effects
MOST_FOR_GEE = 20_000  # responses
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


@dataclass(frozen=True)
class PairEffect:
    """One bin pair in the model: its effect and error, and the rates it stands for, with a 95 % interval."""

    effect: float
    error: float
    typical: float
    marginal: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class Check:
    """The same effects by another method, by bin pair: effect and error; and what has to be said."""

    effects: Mapping[str, tuple[float, float]]
    sd_listener: float | None
    sd_prompt: float | None
    said: str


@dataclass(frozen=True)
class MixedModel:
    """The fitted model of one embedder, its checks, and in words what had to be done otherwise."""

    pairs: Mapping[str, PairEffect]
    sd_listener: float
    sd_prompt: float
    listeners: int
    prompts: int
    responses: int
    variational: Check | None
    gee: Check | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Data:
    y: Floats
    n: Floats
    pair: Ints
    listener: Ints
    prompt: Ints
    names: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, int, int]:
        return len(self.names), int(self.listener.max()) + 1, int(self.prompt.max()) + 1


def fit_mixed(frame: pd.DataFrame, seed: int = 0, checks: bool = True) -> MixedModel:
    """Fit the responses of one embedder (columns listener, prompt, bin_high, bin_low, agreed).

    Raises:
        ValueError: where `frame` is empty.
    """
    if frame.empty:
        raise ValueError("a mixed model needs at least one response")
    notes: list[str] = []
    some = _affordable(frame, seed, notes)
    data = _collect(some)
    fit = fit_crossed(data)
    notes += _say_boundaries(data, fit)
    df = max(min(data.sizes[1:]) - 1, 1)
    spread = float(np.hypot(fit.sd_listener, fit.sd_prompt))
    pairs = {name: _pair_effect(fit, i, spread, df) for i, name in enumerate(data.names)}
    return MixedModel(
        pairs=pairs,
        sd_listener=fit.sd_listener,
        sd_prompt=fit.sd_prompt,
        listeners=data.sizes[1],
        prompts=data.sizes[2],
        responses=len(some),
        variational=_variational(data) if checks else None,
        gee=_gee(data) if checks else None,
        notes=tuple(notes),
    )


def _affordable(frame: pd.DataFrame, seed: int, notes: list[str]) -> pd.DataFrame:
    """All responses, or those of as many random listeners as can be fitted in seconds."""
    listeners = frame["listener"].unique()
    columns = frame["prompt"].nunique() + len(BIN_PAIRS)
    # One step costs the greater number times the square of the smaller.
    most = max(50, int(MOST_WORK / columns**2), int(min(np.sqrt(MOST_WORK / columns), columns)))
    if len(listeners) <= most:
        return frame
    drawn = np.random.default_rng(seed).choice(np.array(listeners, dtype=object), most, replace=False)
    notes.append(f"The model was fitted to {most:,} of {len(listeners):,} listeners, drawn at random (seed {seed}).")
    return frame[frame["listener"].isin(list(drawn))]


def _collect(frame: pd.DataFrame) -> _Data:
    """Answers of one listener on one prompt and pair are added up."""
    label = frame["bin_high"].to_numpy() * 10 + frame["bin_low"].to_numpy()
    present = [pair for pair in BIN_PAIRS if (label == pair[0] * 10 + pair[1]).any()]
    codes = {high * 10 + low: i for i, (high, low) in enumerate(present)}
    pair = np.searchsorted(sorted(codes), label).astype(np.intp)
    listener = pd.factorize(frame["listener"])[0].astype(np.intp)
    prompt = pd.factorize(frame["prompt"])[0].astype(np.intp)
    k, size = len(present), int(prompt.max()) + 1
    cells, inverse = np.unique((listener * size + prompt) * k + pair, return_inverse=True)
    return _Data(
        y=np.bincount(inverse, frame["agreed"].to_numpy(float)).astype(np.float64),
        n=np.bincount(inverse).astype(np.float64),
        pair=cells % k,
        listener=cells // k // size,
        prompt=cells // k % size,
        names=tuple(f"{high}–{low}" for high, low in present),
    )


@dataclass(frozen=True)
class CrossedFit:
    """Effects of the pairs with their covariance, and the two deviations; `converged` is of both searches."""

    effects: Floats
    covariance: Floats
    sd_listener: float
    sd_prompt: float
    converged: bool


def fit_crossed(data: _Data) -> CrossedFit:
    """Maximise the Laplace approximation over both standard deviations; one that nothing informs is nothing."""
    _, listeners, prompts = data.sizes
    if prompts > listeners:
        # The effects that are more are the ones to eliminate.
        turned = fit_crossed(replace(data, listener=data.prompt, prompt=data.listener))
        return replace(turned, sd_listener=turned.sd_prompt, sd_prompt=turned.sd_listener)
    free = [listeners > 1, prompts > 1]
    state: dict[str, Floats] = {}

    def sds(logs: Floats) -> tuple[float, float]:
        found = iter(np.exp(logs))
        one, two = (float(next(found)) if use else SMALLEST for use in free)
        return one, two

    def loss(logs: Floats) -> float:
        if np.any(logs < np.log(SMALLEST)) or np.any(logs > np.log(LARGEST)):
            return 1e12
        mode = _mode(data, *sds(logs), state.get("at"))
        state["at"] = mode.at
        return -mode.log_marginal

    logs = np.full(sum(free), np.log(0.5))
    ended = True
    if sum(free):
        result = optimize.minimize(loss, logs, method="Nelder-Mead", options={"xatol": 0.01, "fatol": 1e-3})
        logs, ended = result.x, bool(result.success)
    one, two = sds(logs)
    mode = _mode(data, one, two, state.get("at"))
    k = len(data.names)
    covariance = np.linalg.inv(mode.schur)[:k, :k].astype(np.float64)
    return CrossedFit(mode.at[:k], covariance, one, two, ended and mode.converged)


@dataclass(frozen=True)
class _Mode:
    at: Floats
    schur: Floats
    log_marginal: float
    converged: bool


def _mode(data: _Data, sd_listener: float, sd_prompt: float, start: Floats | None) -> _Mode:
    """The mode of all effects, ordered (pairs, prompts, listeners), by damped Newton steps."""
    k, listeners, prompts = data.sizes
    precision = np.concatenate(
        [np.full(k, PRIOR_SD**-2), np.full(prompts, sd_prompt**-2), np.full(listeners, sd_listener**-2)]
    )
    at = np.zeros(k + prompts + listeners) if start is None else start
    value = _log_posterior(data, at, precision)
    converged = False
    for _ in range(100):
        diagonal, cross, schur, slope = _curvature(data, at, precision)
        rest = linalg.cho_solve(
            (np.linalg.cholesky(schur), True), slope[: k + prompts] - cross.T @ (slope[k + prompts :] / diagonal)
        )
        step = np.concatenate([rest, (slope[k + prompts :] - cross @ rest) / diagonal])
        size = 1.0
        while size > 1e-6 and (new := _log_posterior(data, at + size * step, precision)) < value - 1e-12:
            size /= 2
        at, gained, value = at + size * step, new - value, new
        if abs(gained) < 1e-7:
            converged = True
            break
    diagonal, _, schur, _ = _curvature(data, at, precision)
    determinant = float(np.log(diagonal).sum() + np.linalg.slogdet(schur)[1])
    return _Mode(at, schur, value + 0.5 * float(np.log(precision).sum()) - 0.5 * determinant, converged)


def _linear(data: _Data, at: Floats) -> Floats:
    k, _, prompts = data.sizes
    found: Floats = at[data.pair] + at[k + data.prompt] + at[k + prompts + data.listener]
    return found


def _log_posterior(data: _Data, at: Floats, precision: Floats) -> float:
    eta = _linear(data, at)
    likelihood = data.y @ log_expit(eta) + (data.n - data.y) @ log_expit(-eta)
    return float(likelihood - 0.5 * (precision * at) @ at)


def _curvature(data: _Data, at: Floats, precision: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The negative Hessian in blocks, listeners eliminated, and the gradient.

    Shapes: diagonal (listeners,), cross (listeners, pairs + prompts), schur (pairs + prompts,) squared.
    """
    k, listeners, prompts = data.sizes
    width = k + prompts
    chance = expit(_linear(data, at))
    weight = data.n * chance * (1 - chance)
    residual = data.y - data.n * chance
    column = k + data.prompt
    slope = (
        np.concatenate(
            [
                np.bincount(data.pair, residual, k),
                np.bincount(data.prompt, residual, prompts),
                np.bincount(data.listener, residual, listeners),
            ]
        )
        - precision * at
    )
    diagonal = np.bincount(data.listener, weight, listeners) + precision[width:]
    cross: Floats = np.bincount(data.listener * width + data.pair, weight, listeners * width).astype(np.float64)
    cross += np.bincount(data.listener * width + column, weight, listeners * width)
    cross = cross.reshape(listeners, width)
    block = np.bincount(data.pair * width + column, weight, width * width).reshape(width, width)
    block = (
        block
        + block.T
        + np.diag(
            np.concatenate([np.bincount(data.pair, weight, k), np.bincount(data.prompt, weight, prompts)])
            + precision[:width]
        )
    )
    return diagonal, cross, block - cross.T @ (cross / diagonal[:, None]), slope


def marginal_rate(effect: float, spread: float) -> float:
    """The rate averaged over normal effects of standard deviation `spread`, by Gauss-Hermite quadrature."""
    return float(expit(effect + spread * _NODES) @ _WEIGHTS / _WEIGHTS.sum())


def _pair_effect(fit: CrossedFit, index: int, spread: float, df: int) -> PairEffect:
    effect, error = float(fit.effects[index]), float(np.sqrt(fit.covariance[index, index]))
    reach = float(stats.t.ppf(0.975, df)) * error
    low, high = marginal_rate(effect - reach, spread), marginal_rate(effect + reach, spread)
    return PairEffect(effect, error, float(expit(effect)), marginal_rate(effect, spread), low, high)


def _say_boundaries(data: _Data, fit: CrossedFit) -> list[str]:
    said = []
    for name, count, sd in (("listener", data.sizes[1], fit.sd_listener), ("prompt", data.sizes[2], fit.sd_prompt)):
        if count == 1:
            said.append(f"There is one {name} only, so the model has no effect of {name}s.")
        elif sd < 0.01:
            said.append(f"The likelihood is largest where {name}s do not differ at all; their deviation is given as 0.")
        elif sd > 0.99 * LARGEST:
            said.append(
                f"The {name}s separate the answers: their deviation has no estimate and was stopped at {LARGEST:g}."
            )
    same = [
        name for i, name in enumerate(data.names) if data.y[data.pair == i].sum() in (0, data.n[data.pair == i].sum())
    ]
    if same:
        said.append(
            f"All answers are the same for bins {', '.join(same)}: no effect fits best, and the one given is held "
            f"finite by the prior (normal, sd {PRIOR_SD:g} on the logit scale)."
        )
    if not fit.converged:
        said.append(
            "The fit did not converge; its figures are where it stopped, and the two-way intervals should be used."
        )
    return said


def _variational(data: _Data) -> Check:
    """statsmodels' variational Bayes of the same model; its Laplace fit fails to converge on such data."""
    from scipy import sparse
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    k, listeners, prompts = data.sizes
    if listeners + prompts > MOST_FOR_VARIATIONAL:
        return Check({}, None, None, f"Not run: {listeners + prompts:,} listeners and prompts would take minutes.")
    y, rows = _spread_out(data)
    if y.min() == y.max():
        return Check({}, None, None, "Not run: all answers are the same.")
    pair, listener, prompt = data.pair[rows], data.listener[rows], data.prompt[rows]
    order = np.arange(len(y))
    places = np.concatenate([listener, listeners + prompt])
    design = sparse.csr_matrix((np.ones(2 * len(y)), (np.concatenate([order, order]), places)))
    ident = np.concatenate([np.zeros(listeners, int), np.ones(prompts, int)])
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        # Its own start is drawn at random, which would make the figures differ from run to run.
        start = np.full(k + 2 + listeners + prompts, 0.6)
        found = BinomialBayesMixedGLM(y, np.eye(k)[pair], design, ident, vcp_p=1, fe_p=2).fit_vb(sd=start)
    if not np.isfinite(found.fe_mean).all() or not np.isfinite(found.fe_sd).all():
        return Check({}, None, None, "Variational Bayes came to no finite answer.")
    effects = {name: (float(found.fe_mean[i]), float(found.fe_sd[i])) for i, name in enumerate(data.names)}
    sd_listener, sd_prompt = (float(value) for value in np.exp(found.vcp_mean))
    said = "Variational Bayes stopped before it converged." if caught else "Variational Bayes converged."
    return Check(effects, sd_listener, sd_prompt, said)


def _spread_out(data: _Data) -> tuple[Floats, Ints]:
    """One row per answer: 0 or 1, and the cell it came from."""
    rows = np.repeat(np.arange(len(data.y)), data.n.astype(int))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(data.n) - data.n, data.n.astype(int))
    return (place < data.y[rows]).astype(float), rows


def _gee(data: _Data) -> Check:
    """Estimating equations, independence within listeners as working correlation, bias-reduced errors."""
    from statsmodels.genmod.cov_struct import Independence
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_estimating_equations import GEE

    y, rows = _spread_out(data)
    if len(y) > MOST_FOR_GEE:
        return Check({}, None, None, f"Not run: {len(y):,} responses would take minutes.")
    if data.sizes[1] < 3:
        return Check({}, None, None, "Not run: it needs three listeners at least.")
    share = np.bincount(data.pair, data.y) / np.bincount(data.pair, data.n)
    varied = np.flatnonzero((share > 0) & (share < 1))
    if not len(varied):
        return Check({}, None, None, "Not run: in no bin pair do answers differ.")
    keep = np.isin(data.pair[rows], varied)
    y, rows = y[keep], rows[keep]
    columns = np.searchsorted(varied, data.pair[rows])
    order = np.argsort(data.listener[rows], kind="stable")
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        model = GEE(
            y[order], np.eye(len(varied))[columns[order]], groups=data.listener[rows][order],
            family=Binomial(), cov_struct=Independence(),
        )  # fmt: skip
        found = model.fit(cov_type="bias_reduced")
    effects = {
        data.names[place]: (float(found.params[i]), float(found.bse[i]))
        for i, place in enumerate(varied)
        if np.isfinite(found.bse[i])
    }
    left_out = [name for name in data.names if name not in effects]
    said = "Clustered on listeners, bias-reduced errors."
    if left_out:
        said += f" Left out, because all answers are the same there: bins {', '.join(left_out)}."
    if caught:
        said += " The fit gave a warning of convergence."
    return Check(effects, None, None, said)
