"""A Bayesian mixed model: the model of analysis.statistics.glmm, with prior distributions, by NumPyro.

logit P(agreed) = effect of the bin pair + effect of the listener + of the prompt + of the triplet, on the same counts
as the mixed model. Priors: effects of pairs are normal with mean 0 and standard deviation `PRIOR_OF_EFFECTS`, so 95 %
of the prior lies between rates of 5 and 95 %; standard deviations are half-normal with scale `PRIOR_OF_DEVIATIONS`.
Sampled with the No-U-Turn Sampler (Hoffman and Gelman, JMLR 15, 2014) in four chains with a fixed seed. If a check
fails, it is sampled again, more carefully.
Conventions: effects and deviations are on the logit scale; intervals are the middle 95 % of the posterior draws.
NumPyro is an optional package: it is imported only where the model is sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from analysis.statistics.glmm_data import CellCounts, collect
from analysis.statistics.ordering import enclosing_pairs
from embeddings.errors import MissingPackageError

Floats = npt.NDArray[np.float64]
PRIOR_OF_EFFECTS = 1.5
PRIOR_OF_DEVIATIONS = 1.0
CHAINS = 4
AGAIN = "The first sample failed a convergence check; this is a second one, with twice the draws and smaller steps."
DRAWS = 1000  # of each chain, after as many for adaptation
MOST_RHAT = 1.01  # Vehtari et al., Bayesian Analysis 16, 2021
LEAST_EFFECTIVE = 400
MOST_ANSWERS = 50_000
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class PosteriorValue:
    """Mean, standard deviation and 95 % interval of the posterior draws, and how well they were sampled."""

    mean: float
    sd: float
    low: float
    high: float
    rhat: float
    effective: float


@dataclass(frozen=True)
class PairPosterior:
    """One bin pair. `rate` with its interval is the mean over new listeners and new prompts.

    `new_low` to `new_high` has 95 % of the rates that single new listeners have on single new prompts. `above` is the
    probability that the mean rate is above 0.5, `of_interest` that it is above 0.5 plus the smallest effect.
    """

    effect: PosteriorValue
    rate: float
    low: float
    high: float
    new_low: float
    new_high: float
    above: float
    of_interest: float


@dataclass(frozen=True)
class OrderProbability:
    """The probability that bin pair `outer` has a higher rate than `inner`, which it encloses."""

    outer: str
    inner: str
    probability: float


@dataclass(frozen=True)
class BayesianModel:
    """The posterior of one embedder. `ordered` is the probability of all `orders` together (None if there are none).

    `trouble` has a sentence for each failed check, `notes` remarks on the data.
    """

    pairs: Mapping[str, PairPosterior]
    deviations: Mapping[str, PosteriorValue]
    orders: tuple[OrderProbability, ...]
    ordered: float | None
    rhat: float
    effective: float
    divergences: int
    chains: int
    draws: int
    trouble: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Draws:
    """Posterior draws with the axes chain and draw: effects [c, d, pairs], each deviation [c, d], and divergences."""

    effects: Floats
    deviations: Mapping[str, Floats]
    divergences: int


def require_numpyro() -> dict[str, str]:
    """The versions of the packages that sample.

    Raises:
        MissingPackageError: if they are not installed.
    """
    try:
        import numpyro  # noqa: F401 – only whether it can be imported
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"--bayes needs the package '{error.name or 'numpyro'}': pip install \"rootnote[bayes]\"."
        ) from error
    return {name: version(name) for name in ("numpyro", "jax")}


def fit_bayesian(frame: pd.DataFrame, smallest_effect: float = 0.05, seed: int = 0) -> BayesianModel:
    """Sample the posterior of one embedder's responses (columns as for analysis.statistics.glmm.fit_mixed).

    Raises:
        MissingPackageError: if NumPyro is not installed.
        ValueError: if `frame` is empty.
    """
    if frame.empty:
        raise ValueError("a Bayesian model needs at least one response")
    require_numpyro()
    notes: list[str] = []
    data = collect(_affordable(frame, seed, notes))
    drawn = sample(data, DRAWS, 0.9, seed)
    model = summarise(data, drawn, smallest_effect, seed, notes)
    if model.trouble:
        drawn = sample(data, 2 * DRAWS, 0.99, seed + 1)
        model = summarise(
            data,
            drawn,
            smallest_effect,
            seed,
            [
                *notes,
                AGAIN,
            ],
        )
    return model


def _affordable(frame: pd.DataFrame, seed: int, notes: list[str]) -> pd.DataFrame:
    """All responses, or those of as many listeners, drawn at random, as can be sampled in minutes."""
    if len(frame) <= MOST_ANSWERS:
        return frame
    listeners = np.array(sorted(frame["listener"].unique(), key=str), dtype=object)
    most = max(2, int(MOST_ANSWERS / len(frame) * len(listeners)))
    drawn = np.random.default_rng(seed).choice(listeners, most, replace=False)
    notes.append(f"It uses the answers of {most:,} of {len(listeners):,} listeners, drawn at random (seed {seed}).")
    return frame[frame["listener"].isin(list(drawn))]


def sample(data: CellCounts, draws: int, accept: float, seed: int) -> Draws:
    """Draw from the posterior: `draws` in each chain, after as many for adaptation."""
    import jax
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS, init_to_median

    def model(y: Any, n: Any, pair: Any, codes: Any) -> None:
        effects = numpyro.sample("effects", dist.Normal(0, PRIOR_OF_EFFECTS).expand([len(data.names)]).to_event(1))
        logits = effects[pair]
        for factor, groups in zip(data.factors, codes, strict=True):
            sd = numpyro.sample(f"sd_{factor.name}", dist.HalfNormal(PRIOR_OF_DEVIATIONS))
            # Standard normal, times the deviation: samples well where deviations are near 0.
            unit = numpyro.sample(f"unit_{factor.name}", dist.Normal(0, 1).expand([factor.size]).to_event(1))
            logits = logits + sd * unit[groups]
        # The binomial log-likelihood without its constant, which takes longer to compute than the rest.
        numpyro.factor("agreed", (y * logits - n * jax.nn.softplus(logits)).sum())

    with jax.enable_x64(True):
        kernel = NUTS(model, target_accept_prob=accept, init_strategy=init_to_median)
        chains = MCMC(
            kernel,
            num_warmup=draws,
            num_samples=draws,
            num_chains=CHAINS,
            chain_method="vectorized",
            progress_bar=False,
        )
        # As arguments, not constants: compiles faster.
        arrays = (data.y, data.n, data.pair, tuple(factor.codes for factor in data.factors))
        chains.run(jax.random.key(seed), *map(jax.tree.map(jax.numpy.asarray, arrays).__getitem__, range(4)))
        found: dict[str, Any] = chains.get_samples(group_by_chain=True)
        return Draws(
            effects=np.asarray(found["effects"], float),
            deviations={factor.name: np.asarray(found[f"sd_{factor.name}"], float) for factor in data.factors},
            divergences=int(np.asarray(chains.get_extra_fields()["diverging"]).sum()),
        )


def summarise(data: CellCounts, drawn: Draws, smallest_effect: float, seed: int, notes: list[str]) -> BayesianModel:
    """Rates, probabilities and checks from the draws."""
    effects = drawn.effects.reshape(-1, len(data.names))
    spread = np.sqrt(sum((values.ravel() ** 2 for values in drawn.deviations.values()), np.zeros(len(effects))))
    single = expit(effects + spread[:, None] * np.random.default_rng([seed, 5]).standard_normal(effects.shape))
    pairs = {}
    for place, name in enumerate(data.names):
        rates = expit(effects[:, place, None] + spread[:, None] * _NODES) @ _WEIGHTS
        low, high = np.quantile(rates, (0.025, 0.975))
        new_low, new_high = np.quantile(single[:, place], (0.025, 0.975))
        pairs[name] = PairPosterior(
            effect=_value(drawn.effects[:, :, place]),
            rate=float(rates.mean()),
            low=float(low),
            high=float(high),
            new_low=float(new_low),
            new_high=float(new_high),
            above=float((rates > 0.5).mean()),
            of_interest=float((rates > 0.5 + smallest_effect).mean()),
        )
    # All pairs of a draw have the same deviations, so their rates are ordered as their effects.
    higher = {(inner, outer): effects[:, outer] > effects[:, inner] for inner, outer in enclosing_pairs(data.names)}
    deviations = {name: _value(values) for name, values in drawn.deviations.items()}
    values = [*(pair.effect for pair in pairs.values()), *deviations.values()]
    rhat, effective = max(value.rhat for value in values), min(value.effective for value in values)
    return BayesianModel(
        pairs=pairs,
        deviations=deviations,
        orders=tuple(
            OrderProbability(data.names[outer], data.names[inner], float(holds.mean()))
            for (inner, outer), holds in sorted(higher.items(), key=lambda item: (item[0][1], item[0][0]))
        ),
        ordered=float(np.all(list(higher.values()), axis=0).mean()) if higher else None,
        rhat=rhat,
        effective=effective,
        divergences=drawn.divergences,
        chains=drawn.effects.shape[0],
        draws=drawn.effects.shape[1],
        trouble=tuple(_trouble(rhat, effective, drawn.divergences)),
        notes=tuple(notes),
    )


def _value(draws: Floats) -> PosteriorValue:
    """Summary of draws of shape (chains, draws)."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    low, high = np.quantile(draws, (0.025, 0.975))
    return PosteriorValue(
        mean=float(draws.mean()),
        sd=float(draws.std()),
        low=float(low),
        high=float(high),
        rhat=float(split_gelman_rubin(draws)),
        effective=float(effective_sample_size(draws)),
    )


def _trouble(rhat: float, effective: float, divergences: int) -> list[str]:
    found = []
    # A chain that did not move has no R-hat.
    if not rhat <= MOST_RHAT:
        found.append(f"The chains disagree: R-hat is {rhat:.3f}, above {MOST_RHAT:g}.")
    if not effective >= LEAST_EFFECTIVE:
        found.append(f"There are too few effective draws: {effective:.0f}, fewer than {LEAST_EFFECTIVE}.")
    if divergences:
        found.append(f"The sampler diverged in {divergences:,} of its steps.")
    return found
