"""Triplets: a prompt X with two clips A and B from two different similarity bins.

For each prompt one clip is drawn from each of the four bins; the six pairs of bins make its six triplets.
Exact duplicates (cosine ≥ 0.9999) are never drawn and, unless `design.same_track` allows it, neither are clips of the
prompt's track or of the track of another clip drawn for it. Prompts are taken from distinct tracks as long as there are
enough of them, and after that from each track about equally often.
Conventions: clips are corpus rows; ranks count from 1 among the prompt's neighbours, -1 outside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    if design.comparison != "separate":
        settings["comparison"] = design.comparison
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
class EmbedderClips:
    """What triplets of one embedder are drawn from.

    Attributes:
        vectors: float32 [clips, dim], unit rows.
        random_means: each prompt's mean cosine with random clips, if each prompt has its own bins ("per_prompt").
    """

    embedder: str
    vectors: npt.NDArray[np.float32]
    found: PromptNeighbours
    bins: SimilarityBins
    random_means: Floats | None = None

    def bins_of(self, index: int) -> SimilarityBins | None:
        """The bins of a prompt; None if its own bins overlap or reach beyond 1."""
        if self.random_means is None:
            return self.bins
        return prompt_bins(self.bins, self.found.neighbours.scores[index], float(self.random_means[index]))


@dataclass(frozen=True)
class DrawnTriplets:
    """The triplets of an embedder, and for each random prompt whether it was eligible and whether it was chosen."""

    triplets: list[Triplet]
    prompts: Prompts


def draw_triplets(
    sources: Sequence[EmbedderClips], tracks: Rows, design: DesignConfig, seed: int, first: int = 0
) -> list[DrawnTriplets]:
    """Draw the triplets of one embedder, or of several on the same prompts, numbered from `first`.

    Args:
        sources: by embedder, all with the same prompts; a prompt is chosen only if it is eligible with each of them.
        tracks: int64 [clips], the track of each clip.

    Raises:
        DataError: if too few prompts have a clip in each bin; it names the embedder and the bin that most prompts lack.
    """
    rng = np.random.default_rng([seed, 3])
    wanted = wanted_prompts(design)
    prompts = sources[0].found.prompts
    kept = np.ones(len(tracks), np.bool_)
    kept[sources[0].found.left_out] = False
    held = [find_held(source, tracks, design.same_track) for source in sources]
    counts = [one.sum(axis=2) for one in held]
    eligible = np.all([(one > 0).all(axis=1) for one in counts], axis=0)
    order = [int(index) for index in rng.permutation(len(prompts)) if eligible[index]]
    drawn: list[list[tuple[int, dict[int, Candidate]]]] = [[] for _ in sources]
    chosen = np.zeros(len(prompts), np.bool_)
    for index in spread_over_tracks(order, tracks[prompts]):
        clips = [
            _draw_clips(index, inside[index], source, tracks, kept, design, rng)
            for source, inside in zip(sources, held, strict=True)
        ]
        if any(one is None for one in clips):
            continue
        chosen[index] = True
        for so_far, one in zip(drawn, clips, strict=True):
            so_far.append((int(prompts[index]), one or {}))
        if chosen.sum() == wanted:
            break
    results = []
    for source, own_counts, own in zip(sources, counts, drawn, strict=True):
        triplets: list[Triplet] = []
        for prompt, candidates in own:
            triplets += _pairs(first + len(triplets), source.embedder, prompt, candidates, tracks)
        first += len(triplets)
        results.append(DrawnTriplets(triplets, Prompts(prompts, tracks[prompts], own_counts, eligible, chosen)))
    _require_prompts(sources, results, wanted, design)
    return results


def find_held(source: EmbedderClips, tracks: Rows, same_track: bool) -> npt.NDArray[np.bool_]:
    """Which neighbours of each prompt are in bins 1 to 3, [P, 3, k]."""
    scores = source.found.neighbours.scores
    usable = _usable(tracks, source.found, same_track)
    held = np.zeros((len(scores), len(BINS) - 1, scores.shape[1]), np.bool_)
    for index in range(len(scores)):
        if (bins := source.bins_of(index)) is not None:
            held[index] = [usable[index] & bins.holds(number, scores[index]) for number in BINS[:3]]
    return held


def _usable(tracks: Rows, found: PromptNeighbours, same_track: bool) -> npt.NDArray[np.bool_]:
    """Which neighbours may be drawn, [P, k]."""
    usable = (found.neighbours.rows >= 0) & (found.neighbours.scores < DUPLICATE)
    if not same_track:
        usable &= tracks[np.maximum(found.neighbours.rows, 0)] != tracks[found.prompts][:, None]
    return np.asarray(usable)


def least_prompts(wanted: int, design: DesignConfig) -> int:
    """The least number of prompts: `robust` without design.prompts takes all, and only the trials set a minimum."""
    return wanted if design.kind == "paper" or design.prompts is not None else design.scored_trials


def _require_prompts(
    sources: Sequence[EmbedderClips], results: Sequence[DrawnTriplets], wanted: int, design: DesignConfig
) -> None:
    least = least_prompts(wanted, design)
    prompts = results[0].prompts
    found = int(prompts.chosen.sum())
    if found >= least:
        return
    shortages = "; ".join(
        f"{source.embedder}: {result.prompts.describe_shortage()}"
        for source, result in zip(sources, results, strict=True)
    )
    raise DataError(
        f"only {found:,} of {counted(len(prompts.rows), 'prompt')} have a clip "
        + ("" if design.same_track else "of another track ")
        + ("in each bin" if len(sources) == 1 else "in each bin of every embedder")
        + f", and the design needs {least}; {shortages}; in study.toml lower design.prompts, raise bins.half_width, "
        + ("" if design.same_track else "set design.same_track = true, ")
        + "or add music to corpus.audio."
    )


def _draw_clips(
    index: int,
    held: npt.NDArray[np.bool_],
    source: EmbedderClips,
    tracks: Rows,
    kept: npt.NDArray[np.bool_],
    design: DesignConfig,
    rng: np.random.Generator,
) -> dict[int, Candidate] | None:
    """One clip for each bin, or `None` if bin 4 has no usable clip or the clips found are not distinct."""
    found, bins = source.found, source.bins_of(index)
    if bins is None:
        return None
    scores, rows = found.neighbours.scores[index], found.neighbours.rows[index]
    pools = {
        number: [Candidate(int(rows[i]), float(scores[i]), int(i) + 1) for i in np.flatnonzero(inside)]
        for number, inside in zip(BINS[:3], held, strict=True)
    }
    ranks = {int(row): rank for rank, row in enumerate(rows, start=1)}
    prompt = int(found.prompts[index])
    pools[4] = _random_bin(prompt, source.vectors, tracks, kept, bins, design.same_track, ranks, rng)
    for _ in range(ATTEMPTS):
        drawn = {number: pool[rng.integers(len(pool))] for number, pool in pools.items() if pool}
        if len(drawn) == len(BINS) and _distinct(drawn, source.vectors, tracks, design.same_track):
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


def make_triplet(
    number: int, embedder: str, prompt: int, bins: tuple[int, int], clips: tuple[Candidate, Candidate], tracks: Rows
) -> Triplet:
    """A triplet of a prompt and two clips; the clip of the more similar bin comes first in `bins` and `clips`."""
    (bin_high, bin_low), (high, low) = bins, clips
    return Triplet(
        triplet=number,
        embedder=embedder,
        prompt=prompt,
        bin_high=bin_high,
        bin_low=bin_low,
        clip_high=high.clip,
        clip_low=low.clip,
        similarity_high=high.similarity,
        similarity_low=low.similarity,
        rank_high=high.rank,
        rank_low=low.rank,
        track_prompt=int(tracks[prompt]),
        track_high=int(tracks[high.clip]),
        track_low=int(tracks[low.clip]),
    )


def _pairs(first: int, embedder: str, prompt: int, drawn: dict[int, Candidate], tracks: Rows) -> list[Triplet]:
    return [
        make_triplet(number, embedder, prompt, (high, low), (drawn[high], drawn[low]), tracks)
        for number, (high, low) in enumerate(BIN_PAIRS, start=first)
    ]
