"""Similarity bins: ranges of cosine similarity to a prompt, cut from the similarity of the nearest clips.

For up to 1,000 random prompts the nearest clips are found exactly; a Gaussian is fitted to all their similarities
pooled. Bin 3 is centred on its mean µ, bin 2 on µ + σ, bin 1 on µ + 2σ, bin 4 on the mean similarity of random
pairs; every bin reaches `half_width` to either side (Section 4.1 of *Exploring Musical Roots*).
Conventions: similarities are cosines in [-1, 1]; bins are numbered 1 (most similar) to 4 (random).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embeddings.errors import ArtefactError, DataError
from embeddings.provenance import Provenance, read_json, write_json
from embeddings.search.exact import Neighbours, nearest
from embeddings.wording import counted
from study.config_sections import BinsConfig

PAPER_NEIGHBOURS = 10_000
AUTO_SHARE = 0.002  # the paper's 10,000 of 5 million
AUTO_LEAST = 50
LEAST_HALF_WIDTH = 0.001  # narrower bins contain almost nothing
EDGES = np.linspace(-1, 1, 401)

Floats = npt.NDArray[np.floating[Any]]
Rows = npt.NDArray[np.int64]
NONE: Rows = np.empty(0, np.int64)


@dataclass(frozen=True)
class SimilarityBins:
    """Fitted bins of one embedder."""

    mu: float
    sigma: float
    random_mean: float
    half_width: float

    @property
    def centres(self) -> dict[int, float]:
        return {1: self.mu + 2 * self.sigma, 2: self.mu + self.sigma, 3: self.mu, 4: self.random_mean}

    def holds(self, number: int, similarity: Floats) -> npt.NDArray[np.bool_]:
        """Whether each similarity is in bin `number`; same shape as `similarity`."""
        return np.asarray(np.abs(similarity - self.centres[number]) <= self.half_width)


@dataclass(frozen=True)
class PromptNeighbours:
    """The random prompts and their nearest clips: rows int64 [P], neighbours [P, k]; `left_out` is among neither."""

    prompts: Rows
    neighbours: Neighbours
    left_out: Rows


def choose_neighbours(setting: int | str, clips: int) -> int:
    """How many nearest clips a prompt has: 0.2 % of the corpus for "auto", 50 to 10,000, never all clips."""
    wanted = min(max(round(AUTO_SHARE * clips), AUTO_LEAST), PAPER_NEIGHBOURS) if setting == "auto" else int(setting)
    return min(wanted, clips - 1)


def find_neighbours(vectors: Floats, config: BinsConfig, seed: int, left_out: Rows = NONE) -> PromptNeighbours:
    """The nearest clips of up to `config.prompts` random prompts, each prompt itself left out.

    Args:
        left_out: rows that the study leaves out, ascending.

    Raises:
        DataError: if the corpus has fewer than three clips that are not left out.
    """
    clips = len(vectors) - len(left_out)
    if clips < 3:
        raise DataError(f"the corpus has {counted(clips, 'clip')}, too few for bins; add music to corpus.audio.")
    rng = np.random.default_rng([seed, 1])
    prompts = np.sort(_skip_left_out(left_out, rng.choice(clips, min(config.prompts, clips), replace=False)))
    k = choose_neighbours(config.neighbours, clips)
    return PromptNeighbours(prompts, _nearest_kept(vectors, prompts, k, left_out), left_out)


def _nearest_kept(vectors: Floats, prompts: Rows, k: int, left_out: Rows) -> Neighbours:
    """The k nearest rows of each prompt that are not left out; more are requested until enough remain."""
    queries, wanted = np.asarray(vectors[prompts]), k
    while True:
        found = nearest(vectors, queries, wanted, exclude=prompts)
        if not len(left_out):
            return found
        kept = ~np.isin(found.rows, left_out)
        if int(kept.sum(axis=1).min()) >= k:
            break
        wanted = min(2 * wanted, k + len(left_out))
    # A stable sort on "is left out" moves those to the end, where they are cut off.
    order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(found.scores, order, axis=1), np.take_along_axis(found.rows, order, axis=1))


def _skip_left_out(left_out: Rows, places: Rows) -> Rows:
    """The rows at these places of the corpus without those left out."""
    before = left_out - np.arange(len(left_out))  # how many rows that are kept come before each
    return np.asarray(places + np.searchsorted(before, places, side="right"), np.int64)


def random_scores(vectors: Floats, size: int, seed: int, left_out: Rows = NONE) -> Floats:
    """All cosines between two random sets of `size` clips (fewer if the corpus is small), no clip with itself."""
    rng = np.random.default_rng([seed, 2])
    clips = len(vectors) - len(left_out)
    one, other = (
        np.sort(_skip_left_out(left_out, rng.choice(clips, min(size, clips), replace=False))) for _ in range(2)
    )
    scores = np.asarray(vectors[one], np.float64) @ np.asarray(vectors[other], np.float64).T
    return np.asarray(scores[one[:, None] != other[None, :]])


def fit_bins(scores: Floats, random: Floats, half_width: float) -> SimilarityBins:
    """Fit the Gaussian (by maximum likelihood) and place the bins.

    Args:
        scores: cosines of prompts with their nearest clips, any shape.
        random: cosines of random pairs of clips, any shape.

    Raises:
        DataError: if bins overlap, bin 1 reaches beyond 1, or a bin is empty, with the setting to change.
    """
    pooled = np.asarray(scores, np.float64).ravel()
    bins = SimilarityBins(float(pooled.mean()), float(pooled.std()), float(np.mean(random)), half_width)
    _require_apart(bins, np.asarray(scores, np.float64))
    for number, inside in ((1, pooled), (2, pooled), (3, pooled), (4, np.asarray(random))):
        if not bins.holds(number, inside).any():
            raise DataError(
                f"bin {number} ({bins.centres[number]:.3f} ± {half_width:g}) is empty; "
                "in study.toml raise bins.half_width"
                + ("" if number == 4 else " or bins.neighbours")
                + ", or add music to corpus.audio."
            )
    return bins


def _require_apart(bins: SimilarityBins, scores: Floats) -> None:
    half_width = bins.half_width
    for upper, lower in ((1, 2), (2, 3), (3, 4)):
        gap = bins.centres[upper] - bins.centres[lower]
        if gap <= 2 * half_width:
            raise DataError(
                f"bins {upper} and {lower} overlap (centres {bins.centres[upper]:.3f} and {bins.centres[lower]:.3f}, "
                f"half-width {half_width:g}); in study.toml {_narrower(gap / 2)}"
                + ("set bins.neighbours lower" if lower == 4 else "set bins.neighbours higher")
                + " or choose another embedder."
            )
    if bins.centres[1] + half_width > 1:
        raise DataError(
            f"bin 1 reaches beyond 1 (µ + 2σ = {bins.centres[1]:.3f}, half-width {half_width:g}); "
            f"in study.toml {_narrower(1 - bins.centres[1])}set bins.neighbours {_towards_0(scores)} or choose another "
            "embedder."
        )


def _towards_0(scores: Floats) -> str:
    """Whether µ + 2σ decreases with a "higher" or a "lower" number of neighbours, judged by the nearer half of them.

    Args:
        scores: `[prompts, neighbours]`, descending in each row; for other shapes "higher" is assumed.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        return "higher"
    nearer = scores[:, : scores.shape[1] // 2]
    return "lower" if nearer.mean() + 2 * nearer.std() < scores.mean() + 2 * scores.std() else "higher"


def _narrower(limit: float) -> str:
    """Advice to narrow the bins below `limit`, rounded down; none if the bins would be too narrow."""
    rounded = math.floor(limit * 10_000) / 10_000
    return f"set bins.half_width below {rounded:.4f}, " if rounded >= LEAST_HALF_WIDTH else ""


def bins_provenance(config: BinsConfig, seed: int, vectors: str, left_out: Rows = NONE) -> Provenance:
    """The provenance of bins fitted now to the vectors of that fingerprint, without the rows left out."""
    made_from = {"vectors": vectors}
    if len(left_out):
        made_from["left_out"] = hashlib.sha256(left_out.tobytes()).hexdigest()
    return Provenance("bins", {**config.model_dump(), "seed": seed}, made_from)


def describe_bins(
    bins: SimilarityBins, found: PromptNeighbours, random: Floats, embedder: str, config: BinsConfig, seed: int
) -> Mapping[str, Any]:
    """The content of `<embedder>.bins.json`."""
    scores = found.neighbours.scores
    counts, _ = np.histogram(scores, EDGES)
    return {
        "embedder": embedder,
        "mu": bins.mu,
        "sigma": bins.sigma,
        "half_width": bins.half_width,
        "centres": {str(number): centre for number, centre in bins.centres.items()},
        "neighbours": int(scores.shape[1]),
        "prompts": len(found.prompts),
        "left_out": len(found.left_out),
        "random_mean": bins.random_mean,
        "random_clips": config.random_clips,
        "histogram": {"edges": [round(float(edge), 4) for edge in EDGES], "counts": [int(n) for n in counts]},
        "counts": {str(number): int(bins.holds(number, scores).sum()) for number in bins.centres},
        "random": {"pairs": int(random.size), "in_bin_4": int(bins.holds(4, random).sum())},
        "seed": seed,
    }


def write_bins(path: Path, content: Mapping[str, Any], provenance: Provenance) -> None:
    """Write `<embedder>.bins.json`."""
    write_json(path, content, provenance)


def read_bins(path: Path) -> tuple[SimilarityBins, Mapping[str, Any], Provenance]:
    """Read `<embedder>.bins.json`: the bins, the content of the file, its provenance."""
    content, provenance = read_json(path, "bins", "rootnote study build")
    try:
        for key in ("neighbours", "prompts", "histogram", "counts", "random"):
            content[key]
        bins = SimilarityBins(*(float(content[key]) for key in ("mu", "sigma", "random_mean", "half_width")))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path} lacks {error}; run `rootnote study build`.") from error
    return bins, content, provenance
