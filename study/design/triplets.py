"""Triplets: a prompt X with two clips A and B from two different similarity bins.

For each prompt one clip is drawn from each of the four bins; the six pairs of bins make its six triplets.
Exact duplicates (cosine ≥ 0.9999) are never drawn and, unless `design.same_track` allows it, neither are clips of the
prompt's track or of the track of another clip drawn for it. Prompts are taken from distinct tracks as long as there are
enough of them, and after that from each track about equally often.
Conventions: clips are corpus rows; ranks count from 1 among the prompt's neighbours, -1 outside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embeddings.errors import DataError
from embeddings.provenance import Provenance
from embeddings.wording import counted
from study.config import StudyConfig
from study.config_sections import PAPER_PROMPTS, DesignConfig
from study.design.bin_pairs import BIN_PAIRS, BINS
from study.design.bins import DUPLICATE, Floats, PromptNeighbours, Rows, SimilarityBins, prompt_bins
from study.design.eligibility import Prompts, spread_over_tracks
from study.trials import Triplet

ATTEMPTS = 50
BLOCK, DRAW, DRAWS = 65_536, 4096, 16


@dataclass(frozen=True)
class Candidate:
    """A clip drawn for a bin."""

    clip: int
    similarity: float
    rank: int


def triplets_provenance(config: StudyConfig, bins: dict[str, str]) -> Provenance:
    """The provenance of triplets drawn now from the bins of those fingerprints, by embedder."""
    design = config.design
    settings = {
        "prompts": wanted_prompts(design),
        "fixed": design.prompts is not None or design.kind == "paper",
        "same_track": design.same_track,
        "embedders": config.embedding.embedders,
        "seed": config.study.seed,
    }
    return Provenance("triplets", settings, {f"bins:{embedder}": found for embedder, found in bins.items()})


def wanted_prompts(design: DesignConfig) -> int:
    """The number of prompts in the design: 15 in `paper`, up to one per trial in `robust`."""
    if design.prompts is not None:
        return design.prompts
    return PAPER_PROMPTS if design.kind == "paper" else design.listener_count * design.scored_trials


def require_tracks(tracks: Rows, design: DesignConfig) -> None:
    """Check that the corpus has enough tracks for a prompt and four clips of different tracks.

    Raises:
        DataError: if it has fewer than five tracks and `design.same_track` is false.
    """
    count, least = len(np.unique(tracks)), 1 + len(BINS)
    if not design.same_track and count < least:
        raise DataError(
            f"the corpus has {counted(count, 'track')}, but a prompt and its four clips come from {least} different "
            "ones; add music to corpus.audio, or set design.same_track = true in study.toml."
        )


@dataclass(frozen=True)
class DrawnTriplets:
    """The triplets of an embedder, and for each random prompt whether it was eligible and whether it was chosen."""

    triplets: list[Triplet]
    prompts: Prompts


def draw_triplets(
    embedder: str,
    vectors: npt.NDArray[np.float32],
    tracks: Rows,
    found: PromptNeighbours,
    bins: SimilarityBins,
    design: DesignConfig,
    seed: int,
    first: int = 0,
    random_means: Floats | None = None,
) -> DrawnTriplets:
    """Draw the triplets of one embedder, numbered from `first`.

    Args:
        vectors: float32 [clips, dim], unit rows.
        tracks: int64 [clips], the track of each clip.
        random_means: each prompt's mean cosine with random clips, if each prompt has its own bins ("per_prompt").

    Raises:
        DataError: if too few prompts have a clip in each bin; it names the bins that most prompts lack.
    """
    rng = np.random.default_rng([seed, 3])
    wanted = wanted_prompts(design)
    kept = np.ones(len(vectors), np.bool_)
    kept[found.left_out] = False
    own = [_bins_of(bins, found.neighbours.scores[i], random_means, i) for i in range(len(found.prompts))]
    usable = _usable(tracks, found, design.same_track)
    held = np.array([_held(one, found.neighbours.scores[i], usable[i]) for i, one in enumerate(own)])
    counts = held.sum(axis=2)
    eligible = (counts > 0).all(axis=1)
    order = [int(index) for index in rng.permutation(len(found.prompts)) if eligible[index]]
    triplets: list[Triplet] = []
    chosen = np.zeros(len(found.prompts), np.bool_)
    for index in spread_over_tracks(order, tracks[found.prompts]):
        fitted = own[index]
        candidates = fitted and _draw_clips(index, held[index], vectors, tracks, kept, found, fitted, design, rng)
        if not candidates:
            continue
        chosen[index] = True
        triplets += _pairs(first + len(triplets), embedder, int(found.prompts[index]), candidates, tracks)
        if chosen.sum() == wanted:
            break
    prompts = Prompts(found.prompts, tracks[found.prompts], counts, eligible, chosen)
    _require_prompts(prompts, wanted, design)
    return DrawnTriplets(triplets, prompts)


def _bins_of(bins: SimilarityBins, scores: Floats, random_means: Floats | None, index: int) -> SimilarityBins | None:
    return bins if random_means is None else prompt_bins(bins, scores, float(random_means[index]))


def _usable(tracks: Rows, found: PromptNeighbours, same_track: bool) -> npt.NDArray[np.bool_]:
    """Which neighbours may be drawn, [P, k]."""
    usable = (found.neighbours.rows >= 0) & (found.neighbours.scores < DUPLICATE)
    if not same_track:
        usable &= tracks[np.maximum(found.neighbours.rows, 0)] != tracks[found.prompts][:, None]
    return np.asarray(usable)


def _held(bins: SimilarityBins | None, scores: Floats, usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which neighbours of a prompt are in bins 1 to 3, [3, k]."""
    if bins is None:
        return np.zeros((len(BINS) - 1, len(scores)), np.bool_)
    return np.array([usable & bins.holds(number, scores) for number in BINS[:3]])


def _require_prompts(prompts: Prompts, wanted: int, design: DesignConfig) -> None:
    # `robust` without design.prompts takes all prompts; only the number of trials sets a minimum.
    least = wanted if design.kind == "paper" or design.prompts is not None else design.scored_trials
    found = int(prompts.chosen.sum())
    if found >= least:
        return
    raise DataError(
        f"only {found:,} of {counted(len(prompts.rows), 'prompt')} have a clip "
        + ("" if design.same_track else "of another track ")
        + f"in each bin, and the design needs {least}; {prompts.describe_shortage()}; in study.toml lower "
        "design.prompts, raise bins.half_width, "
        + ("" if design.same_track else "set design.same_track = true, ")
        + "or add music to corpus.audio."
    )


def _draw_clips(
    index: int,
    held: npt.NDArray[np.bool_],
    vectors: npt.NDArray[np.float32],
    tracks: Rows,
    kept: npt.NDArray[np.bool_],
    found: PromptNeighbours,
    bins: SimilarityBins,
    design: DesignConfig,
    rng: np.random.Generator,
) -> dict[int, Candidate] | None:
    """One clip for each bin, or `None` if bin 4 has no usable clip or the clips found are not distinct."""
    prompt = int(found.prompts[index])
    scores, rows = found.neighbours.scores[index], found.neighbours.rows[index]
    pools = {
        number: [Candidate(int(rows[i]), float(scores[i]), int(i) + 1) for i in np.flatnonzero(inside)]
        for number, inside in zip(BINS[:3], held, strict=True)
    }
    ranks = {int(row): rank for rank, row in enumerate(rows, start=1)}
    pools[4] = _random_bin(prompt, vectors, tracks, kept, bins, design.same_track, ranks, rng)
    for _ in range(ATTEMPTS):
        drawn = {number: pool[rng.integers(len(pool))] for number, pool in pools.items() if pool}
        if len(drawn) == len(BINS) and _distinct(drawn, vectors, tracks, design.same_track):
            return drawn
    return None


def _random_bin(
    prompt: int,
    vectors: npt.NDArray[np.float32],
    tracks: Rows,
    kept: npt.NDArray[np.bool_],
    bins: SimilarityBins,
    same_track: bool,
    ranks: dict[int, int],
    rng: np.random.Generator,
) -> list[Candidate]:
    """About ATTEMPTS random clips of bin 4 from the whole corpus."""
    pool: dict[int, Candidate] = {}
    query = np.asarray(vectors[prompt])
    for rows in _random_rows(len(vectors), rng):
        scores = np.asarray(vectors[rows]) @ query
        usable = bins.holds(4, scores) & (scores < DUPLICATE) & kept[rows] & (rows != prompt)
        if not same_track:
            usable &= tracks[rows] != tracks[prompt]
        for i in rng.permutation(np.flatnonzero(usable))[:ATTEMPTS]:
            row = int(rows[i])
            pool[row] = Candidate(row, float(scores[i]), ranks.get(row, -1))
        if len(pool) >= ATTEMPTS:
            break
    return list(pool.values())


def _random_rows(count: int, rng: np.random.Generator) -> Iterator[Rows]:
    """Blocks of rows to search for random clips: samples of a large corpus first, then all of its rows."""
    if count > BLOCK:
        for _ in range(DRAWS):
            yield np.unique(rng.integers(count, size=DRAW))
    for start in rng.permutation(np.arange(0, count, BLOCK)):
        yield np.arange(start, min(start + BLOCK, count))


def _distinct(drawn: dict[int, Candidate], vectors: npt.NDArray[np.float32], tracks: Rows, same_track: bool) -> bool:
    """Whether no two clips are exact duplicates or, unless allowed, from the same track."""
    clips = [candidate.clip for candidate in drawn.values()]
    if len(set(clips)) < len(clips):
        return False
    if not same_track and len({int(tracks[clip]) for clip in clips}) < len(clips):
        return False
    own = np.asarray(vectors[clips])
    among = own @ own.T
    return bool((among[np.triu_indices(len(clips), 1)] < DUPLICATE).all())


def _pairs(first: int, embedder: str, prompt: int, drawn: dict[int, Candidate], tracks: Rows) -> list[Triplet]:
    return [
        Triplet(
            triplet=number,
            embedder=embedder,
            prompt=prompt,
            bin_high=high,
            bin_low=low,
            clip_high=drawn[high].clip,
            clip_low=drawn[low].clip,
            similarity_high=drawn[high].similarity,
            similarity_low=drawn[low].similarity,
            rank_high=drawn[high].rank,
            rank_low=drawn[low].rank,
            track_prompt=int(tracks[prompt]),
            track_high=int(tracks[drawn[high].clip]),
            track_low=int(tracks[drawn[low].clip]),
        )
        for number, (high, low) in enumerate(BIN_PAIRS, start=first)
    ]
