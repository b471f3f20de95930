"""Similarity bins: the paper's centres from the paper's scores, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.errors import DataError, RootnoteError
from study.config_sections import BinsConfig
from study.design.bins import choose_neighbours, find_neighbours, fit_bins, random_scores


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_papers_clap_row() -> None:
    scores = np.random.default_rng(0).normal(0.815, 0.07, (1000, 1000))
    bins = fit_bins(scores, np.full(10, 0.513), 0.02)
    assert [round(bins.centres[number], 3) for number in (1, 2, 3, 4)] == [0.955, 0.885, 0.815, 0.513]


@given(st.integers(0, 10**6), st.floats(0.3, 0.75), st.floats(0.05, 0.09))
def test_centres_follow_mean_and_deviation(seed: int, mu: float, sigma: float) -> None:
    scores = np.random.default_rng(seed).normal(mu, sigma, 2000)
    bins = fit_bins(scores, np.full(10, -0.1), 0.02)
    assert bins.centres[3] == pytest.approx(np.mean(scores), abs=1e-12)
    assert bins.centres[1] - bins.centres[2] == pytest.approx(np.std(scores), abs=1e-12)
    assert bins.holds(3, np.array([bins.mu + 0.019, bins.mu - 0.021])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("mu", "sigma", "random", "words"),
    [
        (0.8, 0.01, 0.1, "bins 1 and 2 overlap"),
        (0.5, 0.1, 0.48, "bins 3 and 4 overlap"),
        (0.85, 0.08, 0.1, "bin 1 reaches beyond 1"),
    ],
)
def test_impossible_bins_say_what_to_change(mu: float, sigma: float, random: float, words: str) -> None:
    with pytest.raises(RootnoteError, match=words) as caught:
        fit_bins(np.random.default_rng(1).normal(mu, sigma, 5000), np.full(10, random), 0.02)
    assert "study.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("nearer", "farther", "advised"),
    [([0.99, 0.7], [0.7, 0.7], "higher"), ([0.9, 0.9], [0.3, 0.3], "lower")],
)
def test_a_bin_beyond_1_says_in_which_direction_to_go(nearer: list[float], farther: list[float], advised: str) -> None:
    scores = np.column_stack([np.repeat(nearer, 15), np.repeat(farther, 15)])
    with pytest.raises(DataError, match=rf"bin 1 reaches beyond 1 .* set bins\.neighbours {advised}"):
        fit_bins(scores, np.full(10, 0.1), 0.02)


def test_an_empty_bin_is_named() -> None:
    scores = np.repeat([0.2, 0.6], 500)  # µ = 0.4, σ = 0.2: nothing at µ, nothing at µ + 2σ
    with pytest.raises(RootnoteError, match=r"bin 1 .* is empty"):
        fit_bins(scores, np.zeros(10), 0.02)


def test_random_pairs_that_avoid_their_mean_leave_bin_4_empty() -> None:
    scores = np.random.default_rng(1).normal(0.7, 0.08, 5000)
    with pytest.raises(
        RootnoteError, match=r"bin 4 \(0\.000 ± 0\.02\) is empty; in study\.toml raise bins\.half_width"
    ):
        fit_bins(scores, np.array([-0.4, 0.4]), 0.02)


@pytest.mark.parametrize(("sigma", "advised"), [(0.01, "0.0049"), (0.0001, None)])
def test_a_half_width_is_suggested_only_if_one_would_work(sigma: float, advised: str | None) -> None:
    scores = np.random.default_rng(0).normal(0.8, sigma, 5000)
    with pytest.raises(RootnoteError) as caught:
        fit_bins(scores, np.full(10, 0.1), 0.02)
    assert ("bins.half_width below" in str(caught.value)) is (advised is not None)
    if advised:
        assert advised in str(caught.value)
        fit_bins(scores, np.full(10, 0.1), float(advised) - 0.0001)


@pytest.mark.parametrize(
    ("setting", "clips", "chosen"),
    [("auto", 5_000_000, 10_000), ("auto", 9_000_000, 10_000), ("auto", 100_000, 200), ("auto", 2_533, 50),
     ("auto", 20, 19), (300, 1000, 300), (300, 100, 99)],
)  # fmt: skip
def test_neighbours_follow_the_corpus(setting: int | str, clips: int, chosen: int) -> None:
    assert choose_neighbours(setting, clips) == chosen


def test_no_prompt_is_its_own_neighbour() -> None:
    vectors = unit(np.random.default_rng(2).normal(size=(300, 16)))
    found = find_neighbours(vectors, BinsConfig(prompts=100), seed=5)
    assert found.neighbours.rows.shape == (100, 50)
    assert not (found.neighbours.rows == found.prompts[:, None]).any()
    again = find_neighbours(vectors, BinsConfig(prompts=100), seed=5)
    assert (again.prompts == found.prompts).all()
    assert (find_neighbours(vectors, BinsConfig(prompts=100), seed=6).prompts != found.prompts).any()


def test_random_mean_equals_all_pairs_on_a_small_corpus() -> None:
    vectors = unit(np.random.default_rng(3).normal(0.5, 1, (40, 8)))
    scores = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    expected = scores[~np.eye(40, dtype=bool)].mean()
    assert random_scores(vectors, 1000, seed=1).mean() == pytest.approx(expected, abs=1e-12)
