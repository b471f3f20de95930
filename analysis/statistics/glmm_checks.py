"""Two checks of the mixed model with statsmodels, and a note on each.

Variational Bayes for the same model (`BinomialBayesMixedGLM`), and generalised estimating equations clustered on
listeners (`GEE`, bias-reduced errors; Liang and Zeger, Biometrika 73, 1986), which ignore variation between prompts. A
check that cannot be run, or that ends in a singular matrix, has no effects and a note that says why; the model and the
two-way intervals do not depend on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from analysis.statistics.glmm_data import CellCounts, Floats, Ints

MOST_FOR_VARIATIONAL = 250  # random effects
MOST_FOR_GEE = 20_000  # responses
INDEPENDENT = "The model and the two-way intervals do not depend on this check."


@dataclass(frozen=True)
class MixedModelCheck:
    """The same effects by another method: effect and standard error (logit scale) by bin pair, and a note."""

    effects: Mapping[str, tuple[float, float]]
    sd_listener: float | None
    sd_prompt: float | None
    note: str


def variational(data: CellCounts) -> MixedModelCheck:
    """Variational Bayes for the same model, by statsmodels (whose Laplace fit does not converge on such data)."""
    return _unless_singular(lambda: _variational(data))


def gee(data: CellCounts) -> MixedModelCheck:
    """Estimating equations with independence as the working correlation within listeners and bias-reduced errors."""
    return _unless_singular(lambda: _gee(data))


def _unless_singular(run: Callable[[], MixedModelCheck]) -> MixedModelCheck:
    try:
        return run()
    except np.linalg.LinAlgError:
        return MixedModelCheck(
            {}, None, None, f"It ended in a singular matrix because too few answers differ. {INDEPENDENT}"
        )


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
        # The default start is random, which would make the results differ from run to run.
        start = np.full(k + 2 + listeners + prompts, 0.6)
        found = BinomialBayesMixedGLM(y, np.eye(k)[pair], design, ident, vcp_p=1, fe_p=2).fit_vb(sd=start)
    if not np.isfinite(found.fe_mean).all() or not np.isfinite(found.fe_sd).all():
        return MixedModelCheck({}, None, None, "It gave no finite result.")
    effects = {name: (float(found.fe_mean[i]), float(found.fe_sd[i])) for i, name in enumerate(data.names)}
    sd_listener, sd_prompt = (float(value) for value in np.exp(found.vcp_mean))
    note = "It stopped before it converged." if caught else "It converged."
    return MixedModelCheck(effects, sd_listener, sd_prompt, note)


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
        return MixedModelCheck({}, None, None, "Not run: at least three listeners are needed.")
    share = np.bincount(data.pair, data.y) / np.bincount(data.pair, data.n)
    same = (share == 0) | (share == 1)
    # A pair that only one listener answered is fitted exactly: its standard error would be a division by zero.
    lone = ~same & (np.bincount(np.unique(data.pair * data.sizes[1] + data.listener) // data.sizes[1]) == 1)
    varied = np.flatnonzero(~same & ~lone)
    if not len(varied):
        return MixedModelCheck(
            {}, None, None, f"Not run: in no bin pair do the answers of several listeners differ. {INDEPENDENT}"
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
    note = "Clustered on listeners, with bias-reduced errors."
    infinite = [name for i, name in enumerate(data.names) if not (same[i] or lone[i] or name in effects)]
    for names, why in (
        ([name for i, name in enumerate(data.names) if same[i]], "all answers are the same"),
        ([name for i, name in enumerate(data.names) if lone[i]], "only one listener answered"),
        (infinite, "no finite standard error was found"),
    ):
        note += f" Left out because {why}: bins {', '.join(names)}." if names else ""
    if caught:
        note += " The fit gave a convergence warning."
    return MixedModelCheck(effects, None, None, note)
