"""Triplets that two embedders order differently: listeners then decide between the two (Wang and Simoncelli 2008).

For an embedder and its rival, a prompt and a pair of bins, A is a clip of the embedder's more similar bin and B one of
its less similar bin, such that the rival finds B more similar than A. Of all such clips the two are taken for which the
rival's difference is largest, so that both embedders cannot be right. The embedder of the triplets is called
"one against two": an answer that agrees sides with the first.
Conventions: clips are corpus rows; similarities are cosines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embeddings.errors import DataError
from embeddings.wording import counted
from study.config_sections import DesignConfig
from study.design.bin_pairs import BIN_PAIRS, BINS
from study.design.bins import DUPLICATE, Floats, Rows, SimilarityBins
from study.design.eligibility import Prompts, spread_over_tracks
from study.design.triplets import (
    Candidate,
    DrawnTriplets,
    EmbedderClips,
    find_held,
    least_prompts,
    make_triplet,
    wanted_prompts,
)
from study.trials import Triplet

MOST = 200  # clips of a bin that are compared for a prompt


@dataclass(frozen=True)
class _Pool:
    """Clips of one bin: rows, similarities to the prompt and ranks by the embedder, and similarities by the rival."""

    rows: Rows
    scores: Floats
    ranks: Rows
    rival: Floats


def draw_disagreements(
    sources: Sequence[EmbedderClips], tracks: Rows, design: DesignConfig, seed: int
) -> list[DrawnTriplets]:
    """The triplets of each of two embedders against the other, on the same prompts, numbered from 0.

    Args:
        sources: the two embedders, with the same prompts.
        tracks: int64 [clips], the track of each clip.

    Raises:
        DataError: if too few prompts have a clip in each bin and are ordered differently in every pair of bins.
    """
    rng = np.random.default_rng([seed, 3])
    wanted = wanted_prompts(design)
    prompts = sources[0].found.prompts
    held = [find_held(source, tracks, design.same_track) for source in sources]
    counts = [one.sum(axis=2) for one in held]
    eligible = np.all([(one > 0).all(axis=1) for one in counts], axis=0)
    order = [int(index) for index in rng.permutation(len(prompts)) if eligible[index]]
    chosen = np.zeros(len(prompts), np.bool_)
    drawn: list[list[Triplet]] = [[], []]
    one, other = sources
    for index in spread_over_tracks(order, tracks[prompts]):
        both = [
            _prompt_triplets(index, own, rival, tracks, design.same_track, rng)
            for own, rival in ((one, other), (other, one))
        ]
        if not all(both):
            continue
        chosen[index] = True
        for so_far, triplets in zip(drawn, both, strict=True):
            so_far += triplets
        if chosen.sum() == wanted:
            break
    found = int(chosen.sum())
    if found < least_prompts(wanted, design):
        raise DataError(
            f"only {found:,} of {counted(len(prompts), 'prompt')} have clips that the two embedders order differently "
            f"in every pair of bins (of {int(eligible.sum()):,} with a clip in each bin of both), and the design needs "
            f"{least_prompts(wanted, design)}; in study.toml lower design.prompts, raise bins.half_width, or add "
            "music to corpus.audio."
        )
    numbered = _number(drawn)
    return [
        DrawnTriplets(triplets, Prompts(prompts, tracks[prompts], own, eligible, chosen))
        for triplets, own in zip(numbered, counts, strict=True)
    ]


def _number(drawn: Sequence[Sequence[Triplet]]) -> list[list[Triplet]]:
    numbered, first = [], 0
    for triplets in drawn:
        numbered.append([replace(one, triplet=first + i) for i, one in enumerate(triplets)])
        first += len(triplets)
    return numbered


def _prompt_triplets(
    index: int,
    own: EmbedderClips,
    rival: EmbedderClips,
    tracks: Rows,
    same_track: bool,
    rng: np.random.Generator,
) -> list[Triplet]:
    """The six triplets of a prompt; none if the embedders do not disagree in each pair of bins."""
    bins = own.bins_of(index)
    if bins is None:
        return []
    prompt = int(own.found.prompts[index])
    pools = _pools(index, own, rival, bins, tracks, same_track, rng)
    triplets, name = [], f"{own.embedder} against {rival.embedder}"
    for high, low in BIN_PAIRS:
        clips = _most_opposed(pools[high], pools[low], rival, tracks, same_track)
        if clips is None:
            return []
        triplets.append(make_triplet(0, name, prompt, (high, low), clips, tracks))
    return triplets


def _pools(
    index: int,
    own: EmbedderClips,
    rival: EmbedderClips,
    bins: SimilarityBins,
    tracks: Rows,
    same_track: bool,
    rng: np.random.Generator,
) -> dict[int, _Pool]:
    """Clips of each bin: of the embedder's nearest clips and of the rival's, at most MOST of them."""
    prompt = int(own.found.prompts[index])
    near, far = own.found.neighbours.rows[index], rival.found.neighbours.rows[index]
    ranks = {int(row): rank for rank, row in enumerate(near, start=1)}
    known = np.union1d(near, far)
    usable = known != prompt
    if not same_track:
        usable &= tracks[known] != tracks[prompt]
    scores, rivals = (np.asarray(one.vectors[known]) @ np.asarray(one.vectors[prompt]) for one in (own, rival))
    usable &= (scores < DUPLICATE) & (rivals < DUPLICATE)
    pools = {}
    for number in BINS:
        inside = np.flatnonzero(usable & bins.holds(number, scores))
        if len(inside) > MOST:
            inside = np.sort(rng.choice(inside, MOST, replace=False))
        rows = known[inside]
        rank = np.array([ranks.get(int(row), -1) for row in rows], np.int64)
        pools[number] = _Pool(rows, scores[inside], rank, rivals[inside])
    return pools


def _most_opposed(
    high: _Pool, low: _Pool, rival: EmbedderClips, tracks: Rows, same_track: bool
) -> tuple[Candidate, Candidate] | None:
    """The two clips that the rival orders the other way round by the most, at least by a bin's width."""
    differences = low.rival[None, :] - high.rival[:, None]
    allowed = high.rows[:, None] != low.rows[None, :]
    if not same_track:
        allowed &= tracks[high.rows][:, None] != tracks[low.rows][None, :]
    allowed &= np.asarray(rival.vectors[high.rows]) @ np.asarray(rival.vectors[low.rows]).T < DUPLICATE
    allowed &= differences > 2 * rival.bins.half_width
    if not allowed.any():
        return None
    one, other = np.unravel_index(np.argmax(np.where(allowed, differences, -np.inf)), differences.shape)
    return (
        Candidate(int(high.rows[one]), float(high.scores[one]), int(high.ranks[one])),
        Candidate(int(low.rows[other]), float(low.scores[other]), int(low.ranks[other])),
    )
