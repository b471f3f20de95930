"""Bins fitted to what can be drawn: the neighbour search against brute force, the methods, and remarks on the fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from embeddings.errors import DataError
from embeddings.search.exact import nearest_allowed
from study.config_sections import BinsConfig, DesignConfig
from study.design.bin_fit import describe_fit
from study.design.bins import (
    DUPLICATE,
    SimilarityBins,
    describe_bins,
    find_neighbours,
    fit_bins,
    prompt_random_means,
    random_scores,
)
from tests.study.design.drawing import draw_one


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def corpus(seed: int, tracks: int = 30, clips: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Tracks of different lengths whose clips resemble each other; a tenth of the clips are copies on other tracks."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 2 * clips, tracks)
    rows = rng.normal(size=(tracks, 6)).repeat(sizes, axis=0) * 2 + rng.normal(size=(sizes.sum(), 6))
    copies = rng.choice(len(rows), len(rows) // 10, replace=False)
    rows[copies] = rows[rng.choice(len(rows), len(copies))]
    return unit(rows), np.arange(tracks).repeat(sizes)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 7, 40, 400]), st.booleans())
def test_the_neighbours_of_a_prompt_are_the_nearest_clips_that_may_be_drawn(seed: int, k: int, leave_out: bool) -> None:
    vectors, tracks = corpus(seed)
    left_out = np.sort(np.random.default_rng(seed).choice(len(vectors), 15 * leave_out, replace=False))
    found = find_neighbours(vectors, BinsConfig(prompts=40, neighbours=max(k, 10)), seed, left_out, tracks)
    scores = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    kept = ~np.isin(np.arange(len(vectors)), left_out)
    fewest = len(vectors)
    for index, prompt in enumerate(found.prompts):
        drawable = np.flatnonzero(kept & (tracks != tracks[prompt]) & (scores[prompt] < DUPLICATE))
        fewest = min(fewest, len(drawable))
        expected = np.sort(scores[prompt, drawable])[::-1][: found.neighbours.rows.shape[1]]
        assert set(found.neighbours.rows[index]) <= set(drawable)
        assert found.neighbours.scores[index] == pytest.approx(expected, abs=1e-6)
    assert found.neighbours.rows.shape[1] <= fewest


def test_a_query_with_too_few_allowed_rows_shortens_the_result() -> None:
    vectors = unit(np.random.default_rng(1).normal(size=(50, 5)))

    def few(numbers: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.where(numbers[:, None] == 1, rows < 3, True)

    found = nearest_allowed(vectors, vectors[:4], 10, few)
    assert found.rows.shape == (4, 3)
    assert set(found.rows[1]) == {0, 1, 2}


def test_bins_are_fitted_to_the_clips_that_can_be_drawn() -> None:
    vectors, tracks = corpus(3)
    config = BinsConfig(prompts=200, neighbours=30)
    found = find_neighbours(vectors, config, 3, tracks=tracks)
    before = find_neighbours(vectors, config, 3)
    bins, old = (
        fit_bins(one.neighbours.scores, random_scores(vectors, 200, 3, tracks=one.tracks), 0.005)
        for one in (found, before)
    )
    assert bins.mu < old.mu
    assert found.same_track > 1000
    assert found.duplicates > 0
    design = DesignConfig(prompts=1, trials=1)
    now, then = (
        draw_one(vectors, tracks, one, fitted, design, 3).prompts.eligible.sum()
        for one, fitted in ((found, bins), (before, old))
    )
    assert now > 1.5 * then


def test_random_pairs_of_one_track_and_copies_are_left_out() -> None:
    vectors, tracks = corpus(4)
    scores = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    wanted = scores[(tracks[:, None] != tracks[None, :]) & (scores < DUPLICATE)]
    assert random_scores(vectors, 10_000, 1, tracks=tracks).mean() == pytest.approx(wanted.mean(), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_quantile_bins_are_where_the_quantiles_are(seed: int) -> None:
    scores = stats.beta(2, 8).rvs((100, 50), random_state=seed)
    bins = fit_bins(scores, np.full(10, -0.1), 0.004, "quantile")
    for number, share in ((1, 0.97725), (2, 0.84134), (3, 0.5)):
        assert (scores <= bins.centres[number]).mean() == pytest.approx(share, abs=1e-3)


def test_bins_of_each_prompt_follow_that_prompt() -> None:
    """Prompts whose neighbourhoods differ in level and spread: pooled bins lose most of them, their own do not."""
    vectors, tracks = corpus(5, tracks=120, clips=10)
    config = BinsConfig(prompts=400, neighbours=60, half_width=0.01, method="per_prompt")
    found = find_neighbours(vectors, config, 5, tracks=tracks)
    random = random_scores(vectors, 400, 5, tracks=tracks)
    bins = fit_bins(found.neighbours.scores, random, config.half_width, config.method)
    means = prompt_random_means(vectors, config, 5, found)
    made = draw_one(vectors, tracks, found, bins, DesignConfig(prompts=5, trials=5), 5, means)
    assert len(made.triplets) == 30
    for triplet in made.triplets:
        index = int(np.flatnonzero(found.prompts == triplet.prompt)[0])
        scores = found.neighbours.scores[index]
        centre = scores.mean() + scores.std() * {1: 2, 2: 1, 3: 0}[triplet.bin_high]
        assert abs(triplet.similarity_high - centre) <= 0.01 * scores.std() / bins.sigma + 1e-6
        if triplet.bin_low == 4:
            assert triplet.similarity_low == pytest.approx(means[index], abs=0.011)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_similarities_that_are_not_numbers_are_refused(bad: float) -> None:
    with pytest.raises(DataError, match="not numbers"):
        fit_bins(np.array([0.1, bad, 0.3]), np.full(5, 0.1), 0.02)


def content(scores: np.ndarray, **settings: Any) -> dict[str, Any]:
    vectors, tracks = corpus(1)
    found = find_neighbours(vectors, BinsConfig(prompts=len(scores)), 1, tracks=tracks)
    found = type(found)(found.prompts, type(found.neighbours)(scores, scores), found.left_out, tracks, **settings)
    bins = SimilarityBins(float(scores.mean()), float(scores.std()), -0.2, 0.02)
    return dict(describe_bins(bins, found, np.full(10, -0.2), "one", BinsConfig(), 1))


def test_a_good_fit_needs_no_words_and_a_bad_one_gets_them() -> None:
    rng = np.random.default_rng(1)
    good = content(rng.normal(0.4, 0.08, (200, 50)))
    assert describe_fit(good) == []
    assert good["fit"]["expected"]["3"] == pytest.approx(good["counts"]["3"], rel=0.1)
    two = np.where(rng.random((200, 50)) < 0.5, rng.normal(0.3, 0.02, (200, 50)), rng.normal(0.6, 0.02, (200, 50)))
    assert any("bin 3 holds" in sentence for sentence in describe_fit(content(two)))
    apart = rng.normal(0.4, 0.08, (200, 1)) + rng.normal(0, 0.02, (200, 50))
    assert any("of the variance of similarity is between prompts" in one for one in describe_fit(content(apart)))
    copies = content(rng.normal(0.4, 0.08, (200, 50)), duplicates=900)
    assert any("exact duplicates" in sentence for sentence in describe_fit(copies))
    assert describe_fit({"embedder": "one"}) == []
