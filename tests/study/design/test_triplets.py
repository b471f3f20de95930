"""Triplets: every rule is satisfied on corpora with tracks and duplicates."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.errors import RootnoteError
from study.config_sections import BinsConfig, DesignConfig
from study.design.bins import SimilarityBins, find_neighbours, random_scores
from study.design.triplets import BLOCK, require_tracks
from tests.study.design.drawing import draw_one


def corpus(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """40 tracks × 15 clips, every fifth clip an exact duplicate of the one before it."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(40, 7)).repeat(15, axis=0) + rng.normal(size=(600, 7))
    rows[4::5] = rows[3::5]
    vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.arange(40).repeat(15).astype(np.int64)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_every_rule_holds(seed: int, same_track: bool) -> None:
    vectors, tracks = corpus(seed)
    config = BinsConfig(neighbours=120, half_width=0.03)
    found = find_neighbours(vectors, config, seed)
    bins = SimilarityBins(mu=0.65, sigma=0.12, random_mean=0.0, half_width=0.03)
    design = DesignConfig(prompts=6, trials=6, same_track=same_track)
    rows = draw_one(vectors, tracks, found, bins, design, seed).triplets
    assert rows == draw_one(vectors, tracks, found, bins, design, seed).triplets
    assert len(rows) == 36
    assert len({row.prompt for row in rows}) == 6
    for row in rows:
        x, high, low = row.prompt, row.clip_high, row.clip_low
        for clip, number, similarity in (
            (high, row.bin_high, row.similarity_high),
            (low, row.bin_low, row.similarity_low),
        ):
            exact = float(vectors[x].astype(np.float64) @ vectors[clip].astype(np.float64))
            assert similarity == pytest.approx(exact, abs=1e-5)
            assert abs(exact - bins.centres[number]) <= 0.03 + 1e-5
        assert row.bin_high < row.bin_low
        for one, other in combinations((x, high, low), 2):
            assert one != other
            assert float(vectors[one] @ vectors[other]) < 0.9999
            assert same_track or tracks[one] != tracks[other]
        if row.rank_high > 0:
            place = list(found.prompts).index(x)
            assert found.neighbours.rows[place, row.rank_high - 1] == high


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 40, 300, 450]))
def test_excluded_clips_do_not_affect_the_design(seed: int, count: int) -> None:
    vectors, tracks = corpus(seed)
    left_out = np.sort(np.random.default_rng(seed).choice(600, count, replace=False))
    kept = np.setdiff1d(np.arange(600), left_out)
    config = BinsConfig(neighbours=60, prompts=80)
    found = find_neighbours(vectors, config, seed, left_out)
    alone = find_neighbours(vectors[kept], config, seed)
    assert (found.prompts == kept[alone.prompts]).all()
    assert (found.neighbours.scores == alone.neighbours.scores).all()
    assert (found.neighbours.rows == kept[alone.neighbours.rows]).all()
    assert (random_scores(vectors, 50, seed, left_out) == random_scores(vectors[kept], 50, seed)).all()
    bins = SimilarityBins(mu=0.65, sigma=0.12, random_mean=0.0, half_width=0.06)
    design = DesignConfig(prompts=1, trials=1, same_track=True)
    try:
        rows = draw_one(vectors, tracks, found, bins, design, seed).triplets
    except RootnoteError:
        return
    assert not {clip for row in rows for clip in (row.prompt, row.clip_high, row.clip_low)} & set(left_out.tolist())


def test_random_clips_come_from_all_over_a_large_corpus() -> None:
    rng = np.random.default_rng(0)
    count = 2 * BLOCK
    vectors = rng.standard_normal((count, 8), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tracks = np.arange(count)
    found = find_neighbours(vectors, BinsConfig(neighbours=200, prompts=40), 1)
    bins = SimilarityBins(mu=0.9, sigma=0.03, random_mean=0.0, half_width=0.014)
    rows = draw_one(vectors, tracks, found, bins, DesignConfig(prompts=20, trials=6), 1).triplets
    drawn = {row.clip_low for row in rows if row.bin_low == 4}
    assert 4 <= sum(row < BLOCK for row in drawn) <= 16


def test_too_few_prompts_says_how_many_there_are() -> None:
    vectors, tracks = corpus(1)
    found = find_neighbours(vectors, BinsConfig(neighbours=120), 1)
    bins = SimilarityBins(mu=0.65, sigma=0.12, random_mean=0.0, half_width=0.03)
    with pytest.raises(RootnoteError, match=r"only \d+ of 600 prompts .* needs 601"):
        draw_one(vectors, tracks, found, bins, DesignConfig(prompts=601), 1)


def test_a_single_track_is_refused() -> None:
    vectors, _ = corpus(1)
    found = find_neighbours(vectors, BinsConfig(neighbours=120), 1)
    bins = SimilarityBins(mu=0.65, sigma=0.12, random_mean=0.0, half_width=0.03)
    with pytest.raises(RootnoteError, match=r"only 0 of 600 .* of another track .*same_track = true"):
        draw_one(vectors, np.zeros(600, np.int64), found, bins, DesignConfig(), 1)


def test_fewer_than_five_tracks_are_refused_unless_allowed() -> None:
    tracks = np.arange(4).repeat(30)
    with pytest.raises(RootnoteError, match=r"has 4 tracks, .* 5 different ones; .*same_track = true"):
        require_tracks(tracks, DesignConfig())
    require_tracks(tracks, DesignConfig(same_track=True))
    require_tracks(np.arange(5), DesignConfig())
