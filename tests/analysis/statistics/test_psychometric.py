"""The psychometric curve compared with a global optimiser and simulated truth, and with too little data."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import differential_evolution

from analysis.presentation.figures import draw_curves
from analysis.statistics.psychometric import Curve, fit, psychometric, rate


def answers(seed: int, n: int, scale: float = 0.12, shape: float = 1.5, lapse: float = 0.04) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    difference = rng.uniform(0, 0.5, n)
    chance = 0.5 + (0.5 - lapse) * (1 - np.exp(-((difference / scale) ** shape)))
    low = rng.uniform(0.2, 0.4, n)
    return pd.DataFrame(
        {
            "embedder": "m",
            "listener": np.arange(n) % 60,
            "prompt": rng.integers(0, 40, n),
            "agreed": (rng.random(n) < chance).astype(int),
            "similarity_high": low + difference,
            "similarity_low": low,
        }
    )


def one(frame: pd.DataFrame, **others: float) -> Curve:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (curve,) = psychometric(frame, others, resamples=60, seed=1)
    return curve


def test_it_is_the_maximum_likelihood_that_a_global_search_finds() -> None:
    frame = answers(1, 800)
    curve = one(frame)
    difference = (frame["similarity_high"] - frame["similarity_low"]).to_numpy()
    agreed = frame["agreed"].to_numpy()

    def loss(logs: np.ndarray) -> float:
        scale, shape, lapse = math.exp(logs[0]), math.exp(logs[1]), logs[2]
        chance = 0.5 + (0.5 - lapse) * (1 - np.exp(-((difference / scale) ** shape)))
        chance = np.clip(chance, 1e-12, 1 - 1e-12)
        return float(-(agreed * np.log(chance) + (1 - agreed) * np.log(1 - chance)).sum())

    best = differential_evolution(loss, [(-6, 2), (-1.6, 2.3), (0, 0.2)], seed=1, tol=1e-10)
    assert loss(np.array([math.log(curve.scale), math.log(curve.shape), curve.lapse])) == pytest.approx(
        best.fun, abs=1e-4
    )
    assert (curve.scale, curve.shape, curve.lapse) == pytest.approx(
        (math.exp(best.x[0]), math.exp(best.x[1]), best.x[2]), rel=0.01, abs=1e-3
    )


def test_truth_is_recovered_from_many_answers_and_the_threshold_is_three_quarters() -> None:
    curve = one(answers(2, 30_000))
    assert (curve.scale, curve.shape, curve.lapse) == pytest.approx((0.12, 1.5, 0.04), rel=0.12, abs=0.01)
    assert curve.threshold is not None
    assert curve.threshold_low is not None
    assert curve.threshold_high is not None
    at = rate(np.array([curve.threshold]), np.array([[curve.scale, curve.shape, curve.lapse]]))
    assert at[0, 0] == pytest.approx(0.75, abs=1e-12)
    expected = 0.12 * (-math.log(1 - 0.25 / 0.46)) ** (1 / 1.5)
    assert curve.threshold_low < expected < curve.threshold_high
    assert not curve.notes


def test_bands_contain_the_curve_and_narrow_with_more_answers() -> None:
    few, many = one(answers(3, 300)), one(answers(3, 6000))
    for curve in (few, many):
        assert all(low <= high for low, high in zip(curve.low, curve.high, strict=True))
        inside = [
            low - 0.02 <= r <= high + 0.02 for low, r, high in zip(curve.low, curve.rate, curve.high, strict=True)
        ]
        assert np.mean(inside) > 0.9
    width = [np.mean(np.subtract(curve.high, curve.low)) for curve in (few, many)]
    assert width[1] < 0.6 * width[0]
    assert sum(point.n for point in few.points) == 300


def test_a_difference_of_zero_is_chance_and_negative_ones_are_mirrored() -> None:
    parameters = np.array([[0.1, 2.0, 0.05]])
    found = rate(np.array([-0.2, 0.0, 0.2]), parameters)[0]
    assert found[1] == 0.5
    assert found[0] + found[2] == pytest.approx(1)


def test_many_rows_at_once_are_each_fitted_as_alone() -> None:
    where = np.linspace(0.01, 0.5, 40)
    rng = np.random.default_rng(5)
    n = np.full((6, 40), 30.0)
    k = rng.binomial(30, rate(where, np.array([[0.15, 1.2, 0.03]])), (6, 40)).astype(float)
    together = fit(where, k, n)
    for i in range(6):
        assert together[i] == pytest.approx(fit(where, k[i : i + 1], n[i : i + 1])[0], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("all agree", "where it starts to rise is unknown"),
        ("none agrees", "does not rise"),
        ("one difference", ""),
        ("one answer", ""),
        ("chance", ""),
    ],
)
def test_no_curve_is_infinite(kind: str, words: str) -> None:
    frame = answers(6, 200)
    if kind == "all agree":
        frame["agreed"] = 1
    if kind == "none agrees":
        frame["agreed"] = 0
    if kind == "one difference":
        frame["similarity_high"] = frame["similarity_low"] + 0.25
    if kind == "one answer":
        frame = frame.head(1)
    if kind == "chance":
        frame["agreed"] = np.arange(200) % 2
    curve = one(frame)
    numbers = [curve.scale, curve.shape, curve.lapse, *curve.rate, *curve.low, *curve.high, curve.deviance]
    assert all(math.isfinite(number) for number in numbers)
    assert words in " ".join(curve.notes)
    assert "<svg" in draw_curves([curve])


def test_embedders_share_an_axis_by_their_spread() -> None:
    frame = pd.concat([answers(7, 300), answers(8, 300).assign(embedder="Other")])
    curves = psychometric(frame, {"m": 0.07}, resamples=20)
    assert [curve.embedder for curve in curves] == ["m", "Other"]
    assert curves[0].spread == 0.07
    other = frame[frame["embedder"] == "Other"]
    assert curves[1].spread == pytest.approx(np.std([other["similarity_high"], other["similarity_low"]]))
    assert "standard deviations" in draw_curves(curves, as_z=True)
    assert psychometric(frame.drop(columns="similarity_low"), {}) == []


def test_the_order_of_rows_does_not_change_the_draws() -> None:
    frame = answers(5, 400)
    first, second = one(frame), one(frame.sample(frac=1, random_state=1))
    assert (second.threshold_low, second.threshold_high) == pytest.approx((first.threshold_low, first.threshold_high))


def test_a_wrong_curve_does_not_fit_and_a_right_one_does() -> None:
    right = one(answers(3, 1500))
    assert right.fit_p is not None
    assert right.fit_p > 0.05
    assert right.shape_low < right.shape < right.shape_high
    assert right.lapse_low <= right.lapse <= right.lapse_high
    frame = answers(3, 1500)
    difference = frame["similarity_high"] - frame["similarity_low"]
    # Agreement that falls again: no Weibull function does.
    falls = (np.random.default_rng(5).random(1500) < np.where(difference < 0.25, 0.9, 0.55)).astype(int)
    wrong = one(frame.assign(agreed=falls))
    assert wrong.fit_p is not None
    assert wrong.fit_p < 0.02


def test_the_curve_is_drawn_over_the_observed_differences_only() -> None:
    frame = answers(2, 600).query("similarity_high - similarity_low > 0.1")
    curve = one(frame)
    difference = frame["similarity_high"] - frame["similarity_low"]
    assert (curve.at[0], curve.at[-1]) == pytest.approx((difference.min(), difference.max()))
