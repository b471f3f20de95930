"""The listeners' scale: scores of the bins from the answers, by prompt.

Every answer compares two bins. Bradley and Terry's model (Biometrika 39, 1952) gives each bin a score; the
difference of
two scores is the log odds that a clip of the one bin is chosen over a clip of the other. A prompt has few answers, so
each score has a weak normal prior (mean 0, sd 3 on the logit scale), which keeps it finite if one bin always wins; the
mode is found by Newton's method. The ranks of the scores are then compared with the ranks of the similarities.
Conventions: scores of a prompt sum to 0, higher is more similar; bins are 1 (most similar) to 4; prompts whose answers
do not connect at least three bins are left out of the correlations. Spearman's rho is averaged over prompts; its
interval resamples prompts, and its p-value permutes the bins of every prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from analysis.presentation.formatting import count
from study.design.bin_pairs import BINS

Floats = npt.NDArray[np.float64]
PRIOR_SD = 3.0


@dataclass(frozen=True)
class Scale:
    """One embedder: scores of the bins over all prompts with errors, and the correlation with the measure.

    `rho` is the mean Spearman correlation over `prompts` prompts, None if no prompt can be ranked. `similarity`:
    whether it is with the clips' mean similarity or, if the file has none, with the bins' order.
    """

    embedder: str
    scores: tuple[float, ...]
    errors: tuple[float, ...]
    rho: float | None
    rho_low: float | None
    rho_high: float | None
    p: float | None
    prompts: int
    left_out: int
    in_order: int
    similarity: bool
    by_prompt: pd.DataFrame


def listeners_scale(frame: pd.DataFrame, seed: int = 0, resamples: int = 2000) -> list[Scale]:
    """The scale of every embedder (columns embedder, prompt, bin_high, bin_low, agreed; similarities if known)."""
    names = sorted(map(str, frame["embedder"].unique()), key=lambda name: (name.casefold(), name))
    return [_scale(name, frame[frame["embedder"] == name], seed, resamples) for name in names]


def _scale(name: str, frame: pd.DataFrame, seed: int, resamples: int) -> Scale:
    prompts, index = np.unique(frame["prompt"].astype(str), return_inverse=True)
    wins = _wins(frame, index, len(prompts))
    similarity = _similarities(frame, index, len(prompts))
    measured = similarity if similarity is not None else np.tile(-np.array(BINS, float), (len(prompts), 1))
    scores, _ = bradley_terry(wins)
    together, covariance = bradley_terry(wins.sum(axis=0)[None])
    compared = np.asarray(wins + wins.transpose(0, 2, 1) > 0)
    usable = np.array([_connected(pairs) for pairs in compared], bool)
    compared_bins: npt.NDArray[np.bool_] = np.asarray(compared.any(axis=2), bool)
    compared_with = [(scores[i][compared_bins[i]], measured[i][compared_bins[i]]) for i in np.flatnonzero(usable)]
    rho = np.array([_rho(*both) for both in compared_with])
    known = np.isfinite(rho)
    rho = rho[known]
    by_chance = [_by_chance(*both) for both, is_known in zip(compared_with, known, strict=True) if is_known]
    rows = pd.DataFrame(scores, columns=[f"score_{number}" for number in BINS])
    rows.insert(0, "prompt", prompts)
    rows.insert(0, "embedder", name)
    found = np.full(len(prompts), np.nan)
    found[np.flatnonzero(usable)[known]] = rho
    rows["rho"] = found
    low, high, p = _uncertainty(rho, by_chance, seed, resamples)
    return Scale(
        embedder=name,
        scores=tuple(together[0].tolist()),
        errors=tuple(np.sqrt(np.diag(covariance[0])).tolist()),
        rho=float(rho.mean()) if len(rho) else None,
        rho_low=low,
        rho_high=high,
        p=p,
        prompts=len(rho),
        left_out=len(prompts) - len(rho),
        in_order=int((rho > 1 - 1e-9).sum()),
        similarity=similarity is not None,
        by_prompt=rows,
    )


def _wins(frame: pd.DataFrame, prompt: npt.NDArray[np.intp], count: int) -> Floats:
    """How often bin i was chosen over bin j, by prompt: shape (prompts, 4, 4)."""
    high, low = frame["bin_high"].to_numpy(int) - 1, frame["bin_low"].to_numpy(int) - 1
    agreed = frame["agreed"].to_numpy() == 1
    winner, loser = np.where(agreed, high, low), np.where(agreed, low, high)
    flat = np.bincount((prompt * len(BINS) + winner) * len(BINS) + loser, minlength=count * len(BINS) ** 2)
    return flat.reshape(count, len(BINS), len(BINS)).astype(float)


def _similarities(frame: pd.DataFrame, prompt: npt.NDArray[np.intp], count: int) -> Floats | None:
    """Mean similarity of each bin's clips to each prompt, shape (prompts, 4); None if no similarity is known."""
    if not {"similarity_high", "similarity_low"} <= set(frame):
        return None
    total, n = np.zeros(count * len(BINS)), np.zeros(count * len(BINS))
    for side in ("high", "low"):
        value = frame[f"similarity_{side}"].to_numpy(float)
        known = np.isfinite(value)
        place = (prompt * len(BINS) + frame[f"bin_{side}"].to_numpy(int) - 1)[known]
        total += np.bincount(place, value[known], len(total))
        n += np.bincount(place, minlength=len(n))
    if not n.any():
        return None
    found: Floats = np.where(n > 0, total / np.maximum(n, 1), np.nan).reshape(count, len(BINS))
    return found


def bradley_terry(wins: Floats, prior_sd: float = PRIOR_SD) -> tuple[Floats, Floats]:
    """Scores (m, k) with sum 0, and their covariances (m, k, k), from wins of i over j (m, k, k), all at once."""
    size = wins.shape[1]
    games = wins + wins.transpose(0, 2, 1)
    score = np.zeros(wins.shape[:2])
    identity = np.eye(size) / prior_sd**2
    for _ in range(200):
        slope, information = _game_slopes(wins, games, score, prior_sd)
        step = np.linalg.solve(information + identity, slope[:, :, None])[:, :, 0]
        # Newton's steps are too long far from the mode.
        score = score + step / np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True))
        if np.abs(step).max() < 1e-10:
            break
    _, information = _game_slopes(wins, games, score, prior_sd)
    centre = np.eye(size) - 1 / size
    covariance = centre @ np.linalg.inv(information + identity) @ centre
    return score - score.mean(axis=1, keepdims=True), covariance


def _game_slopes(wins: Floats, games: Floats, score: Floats, prior_sd: float) -> tuple[Floats, Floats]:
    chance = expit(score[:, :, None] - score[:, None, :])
    slope = (wins - games * chance).sum(axis=2) - score / prior_sd**2
    weight = games * chance * (1 - chance)
    information = -weight
    size = wins.shape[1]
    information[:, range(size), range(size)] += weight.sum(axis=2)
    return slope, information


def _connected(pairs: npt.NDArray[np.bool_]) -> bool:
    compared_bins = np.flatnonzero(pairs.any(axis=1))
    if len(compared_bins) < 3:
        return False
    count, _ = connected_components(pairs[np.ix_(compared_bins, compared_bins)], directed=False)
    return bool(count == 1)


def _rho(scores: Floats, measured: Floats) -> float:
    """Spearman's rho; NaN if all values of either argument are equal."""
    ranks = [stats.rankdata(np.round(values, 9)) for values in (scores, measured)]
    if not np.isfinite(measured).all() or any(np.ptp(rank) == 0 for rank in ranks):
        return math.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _by_chance(scores: Floats, measured: Floats) -> Floats:
    """The values of rho for every order of the compared bins, which are equally likely without a relation."""
    listener_ranks, measure_ranks = (stats.rankdata(np.round(values, 9)) for values in (scores, measured))
    orders = np.array(list(permutations(measure_ranks)))
    listener_ranks, orders = listener_ranks - listener_ranks.mean(), orders - orders.mean(axis=1, keepdims=True)
    found: Floats = orders @ listener_ranks / np.sqrt((listener_ranks @ listener_ranks) * (orders**2).sum(axis=1))
    return found


def _uncertainty(
    rho: Floats, by_chance: Sequence[Floats], seed: int, resamples: int
) -> tuple[float | None, float | None, float | None]:
    """95 % bootstrap interval of the mean over prompts, and its permutation p (both None for a single prompt)."""
    if len(rho) < 2:
        return None, None, None
    rng = np.random.default_rng(seed)
    draws = rng.choice(rho, (resamples, len(rho))).mean(axis=1)
    null = np.mean([rng.choice(values, resamples) for values in by_chance], axis=0)
    p = (1 + (np.abs(null) >= abs(rho.mean()) - 1e-12).sum()) / (resamples + 1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high), float(p)


def in_words(scale: Scale) -> str:
    """The rank correlation as a sentence."""
    reference = "the measure’s similarity" if scale.similarity else "the order of the bins"
    if scale.rho is None:
        return f"No prompt has answers that rank three bins, so there is no correlation with {reference}."
    interval = "" if scale.rho_low is None else f" [{scale.rho_low:.2f}, {scale.rho_high:.2f}]"
    p = "" if scale.p is None else f", p {'< 0.001' if scale.p < 0.001 else f'= {scale.p:.3f}'}"
    or_similarities = " or similarities" if scale.similarity else ""
    verb = "has" if scale.left_out == 1 else "have"
    excluded = f"{count(scale.left_out, 'prompt')} {verb} too few answers{or_similarities} to be ranked"
    left = f"; {excluded}" if scale.left_out else ""
    return (
        f"By prompt, the listeners’ order of the bins has a rank correlation of {scale.rho:.2f}{interval} with "
        f"{reference} (mean over {count(scale.prompts, 'prompt')}{p}); in {scale.in_order} the order is the same{left}."
    )
