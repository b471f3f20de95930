"""Two checks of the mixed model by statsmodels, and in words what came of them.

Variational Bayes of the same model (`BinomialBayesMixedGLM`), and estimating equations clustered on listeners (`GEE`,
bias-reduced errors), which ignore that prompts vary. A check that cannot be run, or that ends in a singular matrix,
has no effects and says so; the model and the two-way intervals do not need it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from analysis.statistics.glmm_laplace import CellCounts, Floats, Ints

MOST_FOR_VARIATIONAL = 250  # random effects
MOST_FOR_GEE = 20_000  # responses
INSTEAD = "The model and the intervals where both vary stand without this check."


@dataclass(frozen=True)
class MixedModelCheck:
    """The same effects by another method, by bin pair: effect and error; and what has to be said."""

    effects: Mapping[str, tuple[float, float]]
    sd_listener: float | None
    sd_prompt: float | None
    said: str


def variational(data: CellCounts) -> MixedModelCheck:
    """statsmodels' variational Bayes of the same model; its Laplace fit fails to converge on such data."""
    return _or_said(lambda: _variational(data), "Variational Bayes")


def gee(data: CellCounts) -> MixedModelCheck:
    """Estimating equations, independence within listeners as working correlation, bias-reduced errors."""
    return _or_said(lambda: _gee(data), "The estimating equations")


def _or_said(run: Callable[[], MixedModelCheck], name: str) -> MixedModelCheck:
    try:
        return run()
    except np.linalg.LinAlgError:
        return MixedModelCheck({}, None, None, f"{name} ended in a singular matrix: too few answers differ. {INSTEAD}")


def _variational(data: CellCounts) -> MixedModelCheck:
    from scipy import sparse
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    k, listeners, prompts = data.sizes
    if listeners + prompts > MOST_FOR_VARIATIONAL:
        return MixedModelCheck(
            {}, None, None, f"Not run: {listeners + prompts:,} listeners and prompts would take minutes."
        )
    y, rows = _spread_out(data)
    if y.min() == y.max():
        return MixedModelCheck({}, None, None, "Not run: all answers are the same.")
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
        return MixedModelCheck({}, None, None, "Variational Bayes came to no finite answer.")
    effects = {name: (float(found.fe_mean[i]), float(found.fe_sd[i])) for i, name in enumerate(data.names)}
    sd_listener, sd_prompt = (float(value) for value in np.exp(found.vcp_mean))
    said = "Variational Bayes stopped before it converged." if caught else "Variational Bayes converged."
    return MixedModelCheck(effects, sd_listener, sd_prompt, said)


def _spread_out(data: CellCounts) -> tuple[Floats, Ints]:
    """One row per answer: 0 or 1, and the cell it came from."""
    rows = np.repeat(np.arange(len(data.y)), data.n.astype(int))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(data.n) - data.n, data.n.astype(int))
    return (place < data.y[rows]).astype(float), rows


def _gee(data: CellCounts) -> MixedModelCheck:
    from statsmodels.genmod.cov_struct import Independence
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_estimating_equations import GEE

    y, rows = _spread_out(data)
    if len(y) > MOST_FOR_GEE:
        return MixedModelCheck({}, None, None, f"Not run: {len(y):,} responses would take minutes.")
    if data.sizes[1] < 3:
        return MixedModelCheck({}, None, None, "Not run: it needs three listeners at least.")
    share = np.bincount(data.pair, data.y) / np.bincount(data.pair, data.n)
    same = (share == 0) | (share == 1)
    # What one listener alone answered is fitted without a remainder: its error would be a division by zero.
    lone = ~same & (np.bincount(np.unique(data.pair * data.sizes[1] + data.listener) // data.sizes[1]) == 1)
    varied = np.flatnonzero(~same & ~lone)
    if not len(varied):
        return MixedModelCheck(
            {}, None, None, f"Not run: in no bin pair do answers of several listeners differ. {INSTEAD}"
        )
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
    said = "Clustered on listeners, bias-reduced errors."
    infinite = [name for i, name in enumerate(data.names) if not (same[i] or lone[i] or name in effects)]
    for names, why in (
        ([name for i, name in enumerate(data.names) if same[i]], "all answers are the same there"),
        ([name for i, name in enumerate(data.names) if lone[i]], "one listener alone answered there"),
        (infinite, "no finite error was found"),
    ):
        said += f" Left out, because {why}: bins {', '.join(names)}." if names else ""
    if caught:
        said += " The fit gave a warning of convergence."
    return MixedModelCheck(effects, None, None, said)
