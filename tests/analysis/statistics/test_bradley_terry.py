"""The listeners' scale compared with an independent optimiser, scipy's correlation, and known true scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binomtest, spearmanr

from analysis.statistics.bradley_terry import bradley_terry, in_words, listeners_scale
from study.design.bin_pairs import BIN_PAIRS
from tests.scale import count


def answers(scores: list[float], seed: int = 1, prompts: int = 15, each: int = 10) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        {
            "embedder": "m", "listener": f"{i}", "prompt": f"p{prompt}", "bin_high": high, "bin_low": low,
            "agreed": int(rng.random() < expit(scores[high - 1] - scores[low - 1])),
            "similarity_high": 1 - 0.1 * high + rng.uniform(-0.02, 0.02),
            "similarity_low": 1 - 0.1 * low + rng.uniform(-0.02, 0.02),
        }
        for prompt in range(prompts)
        for high, low in BIN_PAIRS
        for i in range(each)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_scores_are_the_penalised_maximum_an_optimiser_finds() -> None:
    wins = np.random.default_rng(1).integers(0, 12, (5, 4, 4)).astype(float)
    wins[:, range(4), range(4)] = 0
    found, _ = bradley_terry(wins)
    for i in range(5):

        def loss(score: np.ndarray, own: np.ndarray = wins[i]) -> float:
            chance = expit(score[:, None] - score[None, :])
            return float(-(own * np.log(chance)).sum() + (score**2).sum() / 18)

        best = minimize(loss, np.zeros(4), tol=1e-12).x
        assert found[i] == pytest.approx(best - best.mean(), abs=1e-4)


def test_truth_is_recovered_and_always_winning_stays_finite() -> None:
    truth = [2.0, 0.8, -0.5, -2.3]
    (scale,) = listeners_scale(answers(truth, prompts=60))
    assert scale.scores == pytest.approx(truth, abs=0.2)
    assert all(0 < error < 0.3 for error in scale.errors)
    wins = np.zeros((1, 4, 4))
    wins[0][np.triu_indices(4, 1)] = 25
    score, covariance = bradley_terry(wins)
    assert np.isfinite(score).all()
    assert np.isfinite(covariance).all()
    assert (np.diff(score[0]) < 0).all()


def test_correlations_are_scipys_and_reach_one_where_the_order_is_clear() -> None:
    frame = answers([1.0, 0.5, 0.0, -1.0], seed=3)
    (scale,) = listeners_scale(frame)
    expected = []
    for prompt in scale.by_prompt.itertuples():
        own = frame[frame["prompt"] == prompt.prompt]
        clips = pd.concat(
            [own[[f"bin_{s}", f"similarity_{s}"]].set_axis(["bin", "similarity"], axis=1) for s in ("high", "low")]
        )
        means = clips.groupby("bin")["similarity"].mean()
        scores = np.round([prompt.score_1, prompt.score_2, prompt.score_3, prompt.score_4], 9)
        expected.append(spearmanr(scores, means)[0])
    assert scale.by_prompt["rho"].to_numpy() == pytest.approx(np.array(expected), abs=1e-9)
    assert scale.rho == pytest.approx(np.mean(expected))
    assert scale.p is not None
    assert scale.p < 0.001
    (clear,) = listeners_scale(answers([9.0, 3.0, -3.0, -9.0]))
    assert clear.rho == pytest.approx(1)
    assert clear.in_order == 15


def test_unrelated_scores_are_not_significant() -> None:
    found = [listeners_scale(answers([0.0] * 4, seed=seed), resamples=500)[0] for seed in range(20)]
    assert abs(np.mean([scale.rho for scale in found if scale.rho is not None])) < 0.15
    assert sum(scale.p is not None and scale.p < 0.05 for scale in found) <= 4


def test_too_few_answers_are_reported() -> None:
    frame = answers([1.0, 0.0, 0.0, -1.0])
    two_bins = frame[(frame["bin_high"] == 1) & (frame["bin_low"] == 2)]
    (scale,) = listeners_scale(two_bins)
    assert scale.rho is None
    assert "no correlation" in in_words(scale)
    (scale,) = listeners_scale(pd.concat([two_bins[two_bins["prompt"] != "p0"], frame[frame["prompt"] == "p0"]]))
    assert (scale.prompts, scale.left_out) == (1, 14)
    assert "14 prompts have too few" in in_words(scale)
    (scale,) = listeners_scale(frame.drop(columns=["similarity_high", "similarity_low"]))
    assert "order of the bins" in in_words(scale)


@pytest.mark.slow
@pytest.mark.parametrize(("pairs", "bins"), [(BIN_PAIRS, 4), ([(1, 2), (1, 3), (2, 3)], 3), ([(1, 2), (2, 3)], 3)])
def test_chance_is_rejected_as_often_as_it_should_be(pairs: list[tuple[int, int]], bins: int) -> None:
    """Prompts with answers on three bins have another null distribution of the correlation than those with four."""
    rng = np.random.default_rng(bins)
    frame = answers([0, 0, 0, 0], prompts=8, each=5)
    heard = [f"{high}-{low}" for high, low in pairs]
    frame = frame[(frame["bin_high"].astype(str) + "-" + frame["bin_low"].astype(str)).isin(heard)]
    rejected = 0
    studies = count(100, 250)
    for _ in range(studies):
        frame = frame.assign(agreed=rng.integers(0, 2, len(frame)))
        (scale,) = listeners_scale(frame, resamples=400)
        assert scale.p is not None
        rejected += scale.p < 0.05
    assert binomtest(rejected, studies, 0.05, alternative="greater").pvalue > 0.001, rejected


def test_two_prompts_of_three_bins_in_order_are_one_chance_in_eighteen() -> None:
    frame = answers([9, 3, -3, -9], prompts=2, each=20)
    frame = frame[(frame["bin_high"] < 4) & (frame["bin_low"] < 4)]
    (scale,) = listeners_scale(frame, resamples=20_000)
    assert scale.in_order == 2 and scale.p == pytest.approx(2 / 36, abs=0.006)


def test_an_embedder_without_similarities_is_ranked_by_its_bins() -> None:
    known, unknown = answers([2, 1, -1, -2]), answers([2, 1, -1, -2]).assign(embedder="n")
    unknown[["similarity_high", "similarity_low"]] = np.nan
    first, second = listeners_scale(pd.concat([known, unknown]))
    assert (first.similarity, second.similarity) == (True, False)
    assert second.rho is not None and second.prompts == 15
