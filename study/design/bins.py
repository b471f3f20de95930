"""Similarity bins: ranges of cosine similarity to a prompt, cut from the similarity of the nearest clips.

For up to 1,000 random prompts the nearest clips that a triplet may use are found exactly: unless `design.same_track`
is true, clips of the prompt's own track and exact duplicates are not among them. A Gaussian is fitted to all their
similarities pooled. Bin 3 is centred on its mean µ, bin 2 on µ + σ, bin 1 on µ + 2σ, bin 4 on the mean similarity of
random pairs; every bin reaches `half_width` to either side (Section 4.1 of *Exploring Musical Roots*).

`bins.method` is "gaussian" (the paper's), "quantile" (the quantiles of the pooled similarities where a Gaussian has µ,
µ + σ and µ + 2σ, for similarities that are not Gaussian) or "per_prompt" (µ and σ of each prompt's own nearest clips;
in units of σ the bins are as wide as the pooled ones).
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
from embeddings.search.exact import Neighbours, nearest, nearest_allowed
from embeddings.wording import counted
from study.config_sections import BinsConfig
from study.design.bin_fit import measure_fit

PAPER_NEIGHBOURS = 10_000
AUTO_SHARE = 0.002  # the paper's 10,000 of 5 million
AUTO_LEAST = 50
LEAST_HALF_WIDTH = 0.001  # narrower bins contain almost nothing
DUPLICATE = 0.9999  # clips at least this similar are taken to be the same sound
QUANTILES = (0.97725, 0.84134, 0.5)  # of bins 1, 2 and 3: where a Gaussian has µ + 2σ, µ + σ and µ
EDGES = np.linspace(-1, 1, 401)

Floats = npt.NDArray[np.floating[Any]]
Rows = npt.NDArray[np.int64]
NONE: Rows = np.empty(0, np.int64)


@dataclass(frozen=True)
class SimilarityBins:
    """Fitted bins of one embedder; `quantiles` are the centres of bins 1 to 3 if they are not the Gaussian's."""

    mu: float
    sigma: float
    random_mean: float
    half_width: float
    quantiles: tuple[float, float, float] | None = None

    @property
    def centres(self) -> dict[int, float]:
        first, second, third = self.quantiles or (self.mu + 2 * self.sigma, self.mu + self.sigma, self.mu)
        return {1: first, 2: second, 3: third, 4: self.random_mean}

    def holds(self, number: int, similarity: Floats) -> npt.NDArray[np.bool_]:
        """Whether each similarity is in bin `number`; same shape as `similarity`."""
        return np.asarray(np.abs(similarity - self.centres[number]) <= self.half_width)


@dataclass(frozen=True)
class PromptNeighbours:
    """The random prompts and the nearest clips that their triplets may use.

    Attributes:
        prompts: rows int64 [P].
        neighbours: [P, k], descending; without `left_out` and, if `tracks` is given, without what may not be drawn.
        left_out: rows that the study leaves out, ascending.
        tracks: int64 [clips]; None if a prompt's own track and duplicates were not excluded.
        same_track: how many of the k nearest clips of all were left out because they are of the prompt's track.
        duplicates: how many were left out because they are exact duplicates of the prompt.
    """

    prompts: Rows
    neighbours: Neighbours
    left_out: Rows
    tracks: Rows | None = None
    same_track: int = 0
    duplicates: int = 0


def choose_neighbours(setting: int | str, clips: int) -> int:
    """How many nearest clips a prompt has: 0.2 % of `clips` for "auto", 50 to 10,000, never all clips.

    Args:
        clips: how many clips may be drawn for a prompt, the prompt included.
    """
    wanted = min(max(round(AUTO_SHARE * clips), AUTO_LEAST), PAPER_NEIGHBOURS) if setting == "auto" else int(setting)
    return min(wanted, clips - 1)


def find_neighbours(
    vectors: Floats, config: BinsConfig, seed: int, left_out: Rows = NONE, tracks: Rows | None = None
) -> PromptNeighbours:
    """The nearest clips of up to `config.prompts` random prompts, each prompt itself left out.

    Args:
        left_out: rows that the study leaves out, ascending.
        tracks: int64 [clips]; if given, clips of the prompt's track and exact duplicates of it are left out too.

    Raises:
        DataError: if the corpus has fewer than three clips that are not left out, or a prompt has no clip to compare.
    """
    clips = len(vectors) - len(left_out)
    if clips < 3:
        raise DataError(f"the corpus has {counted(clips, 'clip')}, too few for bins; add music to corpus.audio.")
    rng = np.random.default_rng([seed, 1])
    prompts = np.sort(_skip_left_out(left_out, rng.choice(clips, min(config.prompts, clips), replace=False)))
    queries = np.asarray(vectors[prompts])
    if tracks is None and not len(left_out):
        k = choose_neighbours(config.neighbours, clips)
        return PromptNeighbours(prompts, nearest(vectors, queries, k, exclude=prompts), left_out)
    kept = np.ones(len(vectors), np.bool_)
    kept[left_out] = False
    own = np.ones(len(prompts), np.int64)  # how many kept clips are of the prompt's track, or only the prompt
    if tracks is not None:
        own = np.bincount(tracks[kept], minlength=int(tracks.max()) + 1)[tracks[prompts]]

    k = max(choose_neighbours(config.neighbours, round(clips - float(own.mean())) + 1), 1)
    excluded = np.zeros((2, len(prompts)), np.int64)

    def allowed(numbers: Rows, scores: Floats, rows: Rows) -> npt.NDArray[np.bool_]:
        other = kept[rows] & (rows != prompts[numbers][:, None])
        if tracks is None:
            return np.asarray(other)
        same = other & (tracks[rows] == tracks[prompts[numbers]][:, None])
        copies = other & ~same & (scores >= DUPLICATE)
        excluded[:, numbers] = same[:, :k].sum(axis=1), copies[:, :k].sum(axis=1)
        return np.asarray(other & ~same & ~copies)

    surplus = min(int(own.max()) + len(left_out), k)
    found = nearest_allowed(vectors, queries, k, allowed, surplus=surplus)
    if not found.rows.shape[1]:
        raise DataError(
            "a prompt has no clip of another track that is not an exact duplicate; add music to corpus.audio, "
            "or set design.same_track = true in study.toml."
        )
    same, copies = (int(count) for count in excluded.sum(axis=1))
    return PromptNeighbours(prompts, found, left_out, tracks, same, copies)


def _skip_left_out(left_out: Rows, places: Rows) -> Rows:
    """The rows at these places of the corpus without those left out."""
    before = left_out - np.arange(len(left_out))  # how many rows that are kept come before each
    return np.asarray(places + np.searchsorted(before, places, side="right"), np.int64)


def random_scores(vectors: Floats, size: int, seed: int, left_out: Rows = NONE, tracks: Rows | None = None) -> Floats:
    """All cosines between two random sets of `size` clips (fewer if the corpus is small), no clip with itself.

    Args:
        tracks: int64 [clips]; if given, pairs of the same track and exact duplicates are left out too.
    """
    rng = np.random.default_rng([seed, 2])
    clips = len(vectors) - len(left_out)
    one, other = (
        np.sort(_skip_left_out(left_out, rng.choice(clips, min(size, clips), replace=False))) for _ in range(2)
    )
    scores = np.asarray(vectors[one], np.float64) @ np.asarray(vectors[other], np.float64).T
    kept = one[:, None] != other[None, :]
    if tracks is not None:
        kept &= (tracks[one][:, None] != tracks[other][None, :]) & (scores < DUPLICATE)
    return np.asarray(scores[kept])


def prompt_random_means(vectors: Floats, config: BinsConfig, seed: int, found: PromptNeighbours) -> Floats:
    """The mean cosine of each prompt with up to `config.random_clips` random clips; float64 [P]."""
    rng = np.random.default_rng([seed, 2])
    clips = len(vectors) - len(found.left_out)
    rows = np.sort(_skip_left_out(found.left_out, rng.choice(clips, min(config.random_clips, clips), replace=False)))
    scores = np.asarray(vectors[found.prompts], np.float64) @ np.asarray(vectors[rows], np.float64).T
    kept = found.prompts[:, None] != rows[None, :]
    if found.tracks is not None:
        kept &= (found.tracks[found.prompts][:, None] != found.tracks[rows][None, :]) & (scores < DUPLICATE)
    return np.asarray(np.mean(scores, axis=1, where=kept))


def fit_bins(scores: Floats, random: Floats, half_width: float, method: str = "gaussian") -> SimilarityBins:
    """Fit the bins: a Gaussian by maximum likelihood, or the quantiles of the pooled similarities.

    Args:
        scores: cosines of prompts with their nearest clips, any shape.
        random: cosines of random pairs of clips, any shape.
        method: `bins.method`; "per_prompt" fits each prompt as well (`prompt_bins`).

    Raises:
        DataError: if a similarity is not a number, bins overlap, bin 1 reaches beyond 1, or a bin is empty, with the
            setting to change.
    """
    pooled = np.asarray(scores, np.float64).ravel()
    if not (np.isfinite(pooled).all() and np.isfinite(random).all() and len(pooled) and np.size(random)):
        raise DataError("some similarities are not numbers; embed the corpus again, or choose another embedder.")
    quantiles = None
    if method == "quantile":
        first, second, third = (float(value) for value in np.quantile(pooled, QUANTILES))
        quantiles = first, second, third
    bins = SimilarityBins(float(pooled.mean()), float(pooled.std()), float(np.mean(random)), half_width, quantiles)
    if method == "per_prompt":  # the pooled bins are only shown; each prompt's own bins are checked when it is used
        return bins
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


def prompt_bins(bins: SimilarityBins, scores: Floats, random_mean: float) -> SimilarityBins | None:
    """One prompt's own bins, for the method "per_prompt"; None if they overlap or reach beyond 1.

    Args:
        bins: the pooled bins; the half-width is the same share of σ as theirs.
        scores: cosines of this prompt with its nearest clips.
        random_mean: its mean cosine with random clips.
    """
    sigma = float(np.std(scores))
    half_width = bins.half_width * sigma / bins.sigma if bins.sigma else 0.0
    own = SimilarityBins(float(np.mean(scores)), sigma, random_mean, half_width)
    centres = own.centres
    apart = all(centres[upper] - centres[upper + 1] > 2 * half_width for upper in (1, 2, 3))
    return own if apart and half_width and centres[1] + half_width <= 1 else None


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


def bins_provenance(
    config: BinsConfig, seed: int, vectors: str, left_out: Rows = NONE, same_track: bool = True
) -> Provenance:
    """The provenance of bins fitted now to the vectors of that fingerprint, without the rows left out."""
    made_from = {"vectors": vectors}
    if len(left_out):
        made_from["left_out"] = hashlib.sha256(left_out.tobytes()).hexdigest()
    settings: dict[str, Any] = {**config.fingerprinted(), "seed": seed}
    if not same_track:
        settings["same_track"] = False
    return Provenance("bins", settings, made_from)


def describe_bins(
    bins: SimilarityBins, found: PromptNeighbours, random: Floats, embedder: str, config: BinsConfig, seed: int
) -> Mapping[str, Any]:
    """The content of `<embedder>.bins.json`."""
    scores = found.neighbours.scores
    counts, _ = np.histogram(scores, EDGES)
    return {
        "embedder": embedder,
        "method": config.method,
        "mu": bins.mu,
        "sigma": bins.sigma,
        "half_width": bins.half_width,
        "centres": {str(number): centre for number, centre in bins.centres.items()},
        "neighbours": int(scores.shape[1]),
        "prompts": len(found.prompts),
        "left_out": len(found.left_out),
        "same_track": found.tracks is None,
        "random_mean": bins.random_mean,
        "random_clips": config.random_clips,
        "histogram": {"edges": [round(float(edge), 4) for edge in EDGES], "counts": [int(n) for n in counts]},
        "counts": {str(number): int(bins.holds(number, scores).sum()) for number in bins.centres},
        "random": {"pairs": int(random.size), "in_bin_4": int(bins.holds(4, random).sum())},
        "fit": measure_fit(
            bins.mu, bins.sigma, bins.half_width, bins.centres, scores, found.same_track, found.duplicates
        ),
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
        first, second, third = (float(content["centres"][str(number)]) for number in (1, 2, 3))
        quantiles = (first, second, third) if content.get("method") == "quantile" else None
        mu, sigma, random_mean, half_width = (
            float(content[key]) for key in ("mu", "sigma", "random_mean", "half_width")
        )
        bins = SimilarityBins(mu, sigma, random_mean, half_width, quantiles)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path} lacks {error}; run `rootnote study build`.") from error
    return bins, content, provenance
