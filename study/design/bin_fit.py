"""How well bins fit the similarities they were cut from: the numbers, and what they mean in words.

Conventions: shares are between 0 and 1; a count "expected" is that of a Gaussian with the same µ and σ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embeddings.wording import counted
from study.design.bin_pairs import BINS

FAR_FROM_EXPECTED = 1.5  # a bin that holds this many times more or fewer clips than expected is named
STRONG_SKEW = 1.0
MOSTLY_BETWEEN = 0.5  # of the variance; above it the bins tell prompts apart rather than clips
MANY_COPIES = 0.02


def measure_fit(
    mu: float,
    sigma: float,
    half_width: float,
    centres: Mapping[int, float],
    scores: npt.NDArray[np.floating[Any]],
    same_track: int,
    duplicates: int,
) -> dict[str, Any]:
    """Expected counts of bins 1 to 3, share of the variance between prompts, skew, and what was excluded.

    Args:
        scores: cosines [prompts, neighbours].
        same_track, duplicates: how many of the nearest clips were excluded as such.
    """
    pooled = np.asarray(scores, np.float64)
    spread = pooled - pooled.mean()
    deviation = float(spread.std())
    return {
        "expected": {
            str(number): _expected(mu, sigma, half_width, centres[number], pooled.size) for number in BINS[:3]
        },
        "between_prompts": float(pooled.mean(axis=1).var() / pooled.var()) if deviation else 0.0,
        "skew": float(np.mean((spread / deviation) ** 3)) if deviation else 0.0,
        "same_track_share": same_track / pooled.size,
        "duplicate_share": duplicates / pooled.size,
    }


def _expected(mu: float, sigma: float, half_width: float, centre: float, size: int) -> float:
    if not sigma:
        return 0.0
    upper, lower = ((centre + sign * half_width - mu) / (sigma * math.sqrt(2)) for sign in (1, -1))
    return round(size * (math.erf(upper) - math.erf(lower)) / 2, 1)


def describe_fit(content: Mapping[str, Any]) -> list[str]:
    """What a reader of bins should know about their fit, one sentence each; none if it is good or was not measured.

    Args:
        content: the content of `<embedder>.bins.json`.
    """
    fit = content.get("fit")
    if not fit:
        return []
    return [
        f"{content['embedder']}: {sentence}"
        for sentence in (*_counts(content, fit), *_shape(content, fit), *_excluded(fit))
    ]


def _counts(content: Mapping[str, Any], fit: Mapping[str, Any]) -> list[str]:
    if content.get("method", "gaussian") != "gaussian":
        return []
    far = []
    for number in BINS[:3]:
        found, expected = int(content["counts"][str(number)]), float(fit["expected"][str(number)])
        ratio = max(found, 1) / max(expected, 1)
        if not 1 / FAR_FROM_EXPECTED <= ratio <= FAR_FROM_EXPECTED:
            far.append(f"bin {number} holds {counted(found, 'clip')} where a Gaussian would hold {expected:,.0f}")
    if not far:
        return []
    return ["; ".join(far) + '. The similarities are not Gaussian; bins.method = "quantile" does not assume that.']


def _shape(content: Mapping[str, Any], fit: Mapping[str, Any]) -> list[str]:
    sentences = []
    if abs(fit["skew"]) > STRONG_SKEW and content.get("method", "gaussian") == "gaussian":
        direction = "high" if fit["skew"] > 0 else "low"
        sentences.append(f"the similarities are skewed ({fit['skew']:+.1f}), with a long tail of {direction} ones.")
    if fit["between_prompts"] > MOSTLY_BETWEEN and content.get("method", "gaussian") != "per_prompt":
        sentences.append(
            f"{100 * fit['between_prompts']:.0f} % of the variance of similarity is between prompts, so bins partly "
            'tell apart prompts, not clips (bins.method = "per_prompt" avoids it).'
        )
    return sentences


def _excluded(fit: Mapping[str, Any]) -> list[str]:
    if fit["duplicate_share"] <= MANY_COPIES:
        return []
    return [
        f"{100 * fit['duplicate_share']:.0f} % as many exact duplicates as nearest clips were left out; "
        "`rootnote embeddings duplicates` lists copies, and corpus.duplicates leaves them out of the study."
    ]
