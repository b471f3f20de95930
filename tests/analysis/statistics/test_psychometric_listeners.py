"""The hierarchical psychometric curve against adaptive integration, simulated truth, and data that say little."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.integrate import quad

from analysis.statistics.psychometric import psychometric
from analysis.statistics.psychometric_listeners import (
    CurveAnswers,
    ListenerCurve,
    listener_curves,
    maximise,
    scores,
)

SCALE, SHAPE, LAPSE, SPREAD = 0.12, 1.8, 0.03, 0.6


def answers(seed: int, listeners: int, each: int, spread: float = SPREAD) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    listener = np.repeat(np.arange(listeners), each)
    difference = rng.uniform(-0.02, 0.5, listeners * each)
    scale = SCALE * np.exp(spread * rng.normal(size=listeners))[listener]
    chance = 0.5 + (0.5 - LAPSE) * np.sign(difference) * (1 - np.exp(-((np.abs(difference) / scale) ** SHAPE)))
    return pd.DataFrame(
        {
            "embedder": "m",
            "listener": listener,
            "prompt": rng.integers(0, 30, len(listener)),
            "agreed": (rng.random(len(listener)) < chance).astype(int),
            "similarity_high": 0.3 + difference,
            "similarity_low": 0.3,
        }
    )


def arrays(frame: pd.DataFrame) -> CurveAnswers:
    return CurveAnswers(
        (frame["similarity_high"] - frame["similarity_low"]).to_numpy(float),
        frame["agreed"].to_numpy(float),
        frame["listener"].to_numpy(np.intp),
        frame["prompt"].to_numpy(np.intp),
    )


def hierarchical(frame: pd.DataFrame) -> ListenerCurve:
    (found,) = listener_curves(frame, psychometric(frame, {}, resamples=20, seed=1))
    return found


def test_the_likelihood_is_the_integral_and_its_gradient_the_derivative() -> None:
    data = arrays(answers(1, 6, 40))
    theta = np.array([math.log(0.1), math.log(1.4), -1.2, math.log(0.7)])

    def log_likelihood(at: np.ndarray) -> float:
        scale, shape, lapse, spread = math.exp(at[0]), math.exp(at[1]), 0.2 / (1 + math.exp(-at[2])), math.exp(at[3])
        total = 0.0
        for listener in range(6):
            own = data.listener == listener
            d, agreed = data.difference[own], data.agreed[own]

            def joint(z: float, d: np.ndarray = d, agreed: np.ndarray = agreed) -> float:
                rise = 1 - np.exp(-((np.abs(d) / (scale * math.exp(spread * z))) ** shape))
                chance = 0.5 + (0.5 - lapse) * np.sign(d) * rise
                return float(np.prod(np.where(agreed == 1, chance, 1 - chance)) * stats.norm.pdf(z))

            total += math.log(quad(joint, -7, 7, limit=400, epsabs=0, epsrel=1e-10)[0])
        return total

    value, by_answer = scores(data, theta)
    assert value == pytest.approx(log_likelihood(theta), abs=1e-5)
    steps = 1e-5 * np.eye(4)
    slope = [(log_likelihood(theta + step) - log_likelihood(theta - step)) / 2e-5 for step in steps]
    assert by_answer.sum(axis=0) == pytest.approx(slope, abs=1e-3)


def test_truth_is_recovered_where_the_pooled_curve_is_too_flat() -> None:
    frame = answers(2, 150, 60)
    (pooled,) = psychometric(frame, {}, resamples=20, seed=1)
    (found,) = listener_curves(frame, [pooled])
    assert (found.shape, found.lapse, found.spread) == pytest.approx((SHAPE, LAPSE, SPREAD), rel=0.2, abs=0.015)
    assert pooled.shape < 0.8 * SHAPE
    threshold = SCALE * (-math.log(1 - 0.25 / (0.5 - LAPSE))) ** (1 / SHAPE)
    assert found.threshold_low is not None
    assert found.threshold_high is not None
    assert found.threshold_low < threshold < found.threshold_high < 1.6 * found.threshold_low
    assert found.spread_low is not None
    assert found.spread_high is not None
    assert found.spread_low < SPREAD < found.spread_high
    assert found.threshold is not None
    assert (found.listeners_low, found.listeners_high) == pytest.approx(
        tuple(found.threshold * math.exp(sign * 1.96 * found.spread) for sign in (-1, 1)), rel=1e-3
    )
    assert all(low <= rate <= high for low, rate, high in zip(found.low, found.rate, found.high, strict=True))


def test_alike_listeners_have_no_spread_and_the_pooled_curve() -> None:
    frame = answers(3, 40, 40, spread=0.0)
    (pooled,) = psychometric(frame, {}, resamples=20, seed=1)
    (found,) = listener_curves(frame, [pooled])
    assert found.spread < 0.35
    assert found.threshold == pytest.approx(pooled.threshold, rel=0.1)


def test_a_larger_start_finds_no_better_fit() -> None:
    data = arrays(answers(4, 30, 30))
    values = [maximise(data, np.array([math.log(0.2), 0.0, -2.0, math.log(spread)]))[1] for spread in (0.1, 2.0)]
    assert values[0] == pytest.approx(values[1], abs=1e-3)


@pytest.mark.parametrize("kind", ["all agree", "one difference", "two answers"])
def test_data_that_say_little_give_no_infinite_number(kind: str) -> None:
    frame = answers(6, 20, 10)
    if kind == "all agree":
        frame["agreed"] = 1
    if kind == "one difference":
        frame["similarity_high"] = frame["similarity_low"] + 0.25
    if kind == "two answers":
        frame = frame.iloc[[0, 10]].assign(agreed=1)
    found = hierarchical(frame)
    ends = [found.threshold, found.threshold_low, found.threshold_high, found.spread_low, found.spread_high]
    assert all(number is None or math.isfinite(number) for number in ends)
    assert all(math.isfinite(number) for number in (found.scale, found.shape, found.lapse, found.spread, *found.rate))
    assert found.notes


def test_one_listener_has_no_hierarchy() -> None:
    frame = answers(7, 1, 60)
    assert listener_curves(frame, psychometric(frame, {}, resamples=20, seed=1)) == []
