"""Reliability and bias compared with published examples, libraries, and simulated effects."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.report.reliability_text import in_words
from analysis.statistics.reliability import (
    fleiss,
    inter_listener,
    krippendorff_alpha,
    reliability,
    repeat_consistency,
)
from analysis.statistics.response_bias import order_bias, side_bias, within_listeners


def test_krippendorffs_own_example() -> None:
    """Computing Krippendorff's Alpha-Reliability (2011), B: two observers, ten units, two values: 0.095."""
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    counts = np.array([[2 - a - b, a + b] for a, b in zip(first, second, strict=True)])
    assert round(krippendorff_alpha(counts), 3) == 0.095


def test_fleiss_own_table() -> None:
    """The worked example of fourteen raters, ten subjects, five categories: kappa 0.210."""
    table = np.array(
        [
            [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
        ]
    )  # fmt: skip
    assert round(fleiss(table), 3) == 0.210


def by_definition(counts: np.ndarray) -> float:
    """Alpha from its definition: observed over expected disagreement."""
    n = counts.sum()
    sizes = counts.sum(axis=1)
    observed = sum((counts[:, i] * counts[:, 1 - i] / (sizes - 1)).sum() for i in (0, 1)) / n
    total = counts.sum(axis=0)
    return float(1 - observed / (2 * total[0] * total[1] / (n * (n - 1))))


def frame_of(n_listeners: int = 40, n_prompts: int = 12, seed: int = 1, rate: float = 0.7) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        {
            "embedder": "m", "listener": f"l{listener}", "prompt": str(prompt), "bin_high": 1, "bin_low": 2,
            "clip_high": f"{prompt}a", "clip_low": f"{prompt}b", "agreed": int(rng.random() < rate), "kind": "scored",
            "position": str(place + 1), "passed_prescreen": 1, "response_ms": float(rng.lognormal(9, 0.3)),
        }
        for listener in range(n_listeners)
        for place, prompt in enumerate(rng.choice(n_prompts, 10, replace=False))
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    right = rng.random(len(frame)) < 0.5
    return frame.assign(choice=np.where(right == (frame["agreed"] == 1), "A", "B"))


def test_agreement_between_listeners() -> None:
    frame = frame_of()
    counts = frame.groupby("prompt")["agreed"].agg(["sum", "count"])
    table = np.column_stack([counts["count"] - counts["sum"], counts["sum"]])
    found = inter_listener(frame)
    assert found is not None
    assert found.alpha == pytest.approx(by_definition(table), abs=1e-10)
    pairs = [math.comb(int(row[0]), 2) + math.comb(int(row[1]), 2) for row in table]
    assert found.same_pairs == pytest.approx(sum(pairs) / sum(math.comb(int(row.sum()), 2) for row in table))
    assert found.triplets == 12
    assert found.answers == 400


def test_perfect_and_single_answers() -> None:
    everyone = inter_listener(frame_of(rate=1.1))
    assert everyone is not None
    assert (everyone.alpha, everyone.kappa, everyone.same_pairs) == (None, None, 1.0)
    assert "undefined" in everyone.note
    assert everyone.majority is not None
    assert everyone.majority.rate == 1
    assert inter_listener(frame_of().drop_duplicates("prompt")) is None


def test_repeats_and_the_ceiling_they_set() -> None:
    frame = frame_of()
    again = frame.drop_duplicates("listener").assign(kind="repeat", position="11")
    # 30 of 40 choose the same clip again.
    again["agreed"] = np.where(np.arange(40) < 30, again["agreed"], 1 - again["agreed"])
    found = repeat_consistency(pd.concat([frame, again]))
    assert found is not None
    assert (found.same.agreed, found.same.n) == (30, 40)
    assert found.ceiling == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert found.ceiling**2 + (1 - found.ceiling) ** 2 == pytest.approx(0.75)
    assert found.ceiling_low is not None
    assert found.ceiling_high is not None
    assert 0.6 < found.ceiling_low < found.ceiling < found.ceiling_high < 0.96
    assert repeat_consistency(frame) is None


def test_a_bias_to_one_side_is_found_and_none_is_not() -> None:
    frame = frame_of()
    none = side_bias(frame)
    assert none is not None
    assert none.p > 0.05
    rng = np.random.default_rng(2)
    biased = side_bias(frame.assign(choice=np.where(rng.random(400) < 0.62, "A", "B")))
    assert biased is not None
    assert biased.p < 0.01
    assert biased.rate > 0.55


def test_unbalanced_sides_are_not_a_bias_and_do_not_hide_one() -> None:
    frame = frame_of(n_listeners=120, rate=0.9)
    rng = np.random.default_rng(6)
    on_a = rng.random(len(frame)) < 0.65
    agreed = frame["agreed"].to_numpy() == 1
    uneven = frame.assign(high_side=np.where(on_a, "A", "B"), choice=np.where(on_a == agreed, "A", "B"))
    found = side_bias(uneven)
    assert found is not None
    assert (uneven["choice"] == "A").mean() > 0.58
    assert found.rate == pytest.approx(0.5, abs=0.03)
    assert found.p > 0.05
    to_b = agreed & ~(on_a & (rng.random(len(frame)) < 0.3))
    biased = side_bias(uneven.assign(agreed=to_b.astype(int), choice=np.where(on_a == to_b, "A", "B")))
    assert biased is not None
    assert biased.p < 0.001
    assert biased.ci_low < biased.rate < biased.ci_high < 0.5
    assert biased.agreed_a is not None
    assert biased.agreed_b is not None
    assert biased.rate == pytest.approx((biased.agreed_a + 1 - biased.agreed_b) / 2)


def test_order_and_times_count_listeners_not_answers() -> None:
    """A listener's answers that all change together are one observation: 400 simulated studies without any trend."""
    rng = np.random.default_rng(3)
    listener, position = np.repeat(np.arange(20), 12), np.tile(np.arange(12.0), 20)
    wrong = []
    for _ in range(400):
        own_trend = rng.normal(0, 0.3, 20)[listener] * (position - 5.5)
        answers = (rng.random(240) < 1 / (1 + np.exp(-own_trend))).astype(float)
        wrong.append(within_listeners(position, answers - answers.mean(), listener) < 0.05)
    assert np.mean(wrong) < 0.08
    rising = (position > 5).astype(float)
    assert within_listeners(position, rising - 0.5 + rng.normal(0, 0.1, 240), listener) < 1e-6
    assert within_listeners(position, np.zeros(240), listener) == 1


def test_fatigue_is_detected() -> None:
    frame = frame_of(n_listeners=200)
    late = frame["position"].astype(int) > 5
    rng = np.random.default_rng(4)
    frame["agreed"] = (rng.random(len(frame)) < np.where(late, 0.6, 0.8)).astype(int)
    found = order_bias(frame)
    assert found is not None
    assert found.p < 0.001
    assert found.trend_p < 0.001
    assert found.first.n + found.second.n == 2000


def test_the_sentences_cover_every_part() -> None:
    frame = frame_of()
    catch = frame.drop_duplicates("listener").assign(kind="catch", agreed=1)
    failed = frame_of(seed=9, rate=0.5).assign(passed_prescreen=0)
    found = reliability(frame, pd.concat([frame, catch]), pd.concat([frame, catch, failed]))
    assert found.prescreen is not None
    assert (found.prescreen.passed.n, found.prescreen.failed.n) == (400, 400)
    assert found.catches is not None
    assert (found.catches.agreed, found.catches.n) == (40, 40)
    assert found.times is not None
    assert found.times.quantiles == pytest.approx(
        np.quantile(frame["response_ms"] / 1000, [0.05, 0.25, 0.5, 0.75, 0.95])
    )
    text = " ".join(in_words(found))
    for words in ("Krippendorff", "Side A", "prescreen", "catch trials", "is unknown", "median response time"):
        assert words in text


def test_needed_columns_alone_are_enough() -> None:
    frame = frame_of()[["embedder", "listener", "prompt", "bin_high", "bin_low", "agreed"]]
    found = reliability(frame, frame, frame)
    assert found.between is not None
    assert (found.side, found.order, found.times, found.prescreen, found.catches) == (None,) * 5
    assert in_words(found)
