"""Dependence compared with independent computations and simulated truth, and with too little data."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from statsmodels.stats.proportion import proportion_confint

from analysis.statistics.glmm import fit_mixed, marginal_rate
from analysis.statistics.two_way import (
    dependence,
    dependence_table,
    item_table,
    two_way_bootstrap,
)
from analysis.statistics.two_way_variance import lay_out, precision
from study.design.bin_pairs import BIN_PAIRS
from study.design.schedule import assign_paper

SCHEDULE = np.array(assign_paper(15, 90, 10, np.random.default_rng(0)))


def study(seed: int, effects: list[float], sd_listener: float, sd_prompt: float) -> pd.DataFrame:
    """Responses under the paper's schedule: 15 prompts, 90 listeners of 10 trials."""
    rng = np.random.default_rng(seed)
    cells = SCHEDULE.reshape(-1, 2)
    listener = np.repeat(np.arange(90), 10)
    eta = np.array(effects)[cells[:, 1]] + sd_listener * rng.normal(size=90)[listener]
    eta = eta + sd_prompt * rng.normal(size=15)[cells[:, 0]]
    high, low = (np.array([pair[i] for pair in BIN_PAIRS])[cells[:, 1]] for i in (0, 1))
    agreed = (rng.random(900) < expit(eta)).astype(int)
    return pd.DataFrame(
        {
            "embedder": "m",
            "listener": listener,
            "prompt": cells[:, 0],
            "bin_high": high,
            "bin_low": low,
            "agreed": agreed,
        }
    )


def test_the_correlations_solve_the_equations_of_an_analysis_of_variance() -> None:
    """By definition, with matrices: expected sums of squares of residuals, uneven groups, three bin pairs."""
    rng = np.random.default_rng(1)
    n = 300
    listener, prompt, pair = rng.integers(0, 40, n), rng.integers(0, 12, n) ** 2 // 12, rng.integers(0, 3, n)
    y = (rng.random(n) < expit(0.5 + rng.normal(size=40)[listener] + rng.normal(size=12)[prompt])).astype(float)
    found = precision(y[None, :], lay_out(listener, prompt, pair))
    z = [np.eye(int(codes.max()) + 1)[codes] for codes in (listener, prompt, pair)]
    centre = np.eye(n) - z[2] @ np.linalg.inv(z[2].T @ z[2]) @ z[2].T
    means = [z[i] @ np.linalg.pinv(z[i].T @ z[i]) @ z[i].T for i in (0, 1)]
    residual = centre @ y
    groups = [z[0] @ z[0].T, z[1] @ z[1].T, np.eye(n)]
    expected = np.array([[np.trace(centre @ mean @ centre @ group) for group in groups] for mean in means])
    sums = np.array([residual @ mean @ residual for mean in means])
    total = np.array([np.trace(centre @ group) for group in groups])
    # Three unknowns: both variances and the rest; the third equation is the sum of all squares.
    solved = np.linalg.solve(np.vstack([expected, total]), np.append(sums, residual @ residual))
    assert found.rho_listener[0] == pytest.approx(solved[0] / solved.sum(), abs=0.01)
    assert found.rho_prompt[0] == pytest.approx(solved[1] / solved.sum(), abs=0.01)


def test_many_studies_at_once_are_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(2)
    cells = SCHEDULE.reshape(-1, 2)
    own = cells[:, 1] == 0
    listener, prompt = np.repeat(np.arange(90), 10)[own], cells[own, 0]
    y, there = (rng.random((5, 150)) < 0.8).astype(float), rng.random((5, 150)) < 0.9
    many = precision(y, lay_out(listener, prompt), there).interval()
    for number in range(5):
        kept = there[number]
        one = precision(y[number][None, kept], lay_out(listener[kept], prompt[kept])).interval()
        assert (one[0][0], one[1][0]) == pytest.approx((many[0][number], many[1][number]), abs=1e-12)


def test_nothing_jumps_at_full_agreement() -> None:
    """From 140 to 150 of 150: each further agreeing answer moves the interval by a little, in one direction."""
    frame = study(1, [0.0] * 6, 0, 0).query("bin_high == 1 and bin_low == 2").reset_index(drop=True)
    order = np.random.default_rng(3).permutation(150)
    lows = []
    for agreed in range(140, 151):
        frame["agreed"] = (np.isin(np.arange(150), order[:agreed])).astype(int)
        cell = dependence(frame)
        lows.append(cell.ci_low)
    steps = np.diff(lows)
    assert (steps > 0).all()
    assert steps.max() < 0.03
    assert lows[-1] > 0.9


def test_one_prompt_with_most_answers_does_not_decide() -> None:
    """Two thirds of the answers on one prompt: 300 studies, prompts with a deviation of 1; and the report says so."""
    cells = SCHEDULE.reshape(-1, 2)
    own = cells[:, 1] == 0
    listener, prompt = np.repeat(np.arange(90), 10)[own], cells[own, 0].copy()
    prompt[np.random.default_rng(1).permutation(150)[:100]] = 0
    rng = np.random.default_rng(4)
    truth = marginal_rate(1.0, 1.0)
    eta = 1.0 + rng.normal(size=(300, 15))[:, prompt]
    low, high = precision((rng.random(eta.shape) < expit(eta)).astype(float), lay_out(listener, prompt)).interval()
    assert np.mean((low <= truth) & (truth <= high)) > 0.92
    assert np.median(high - low) < 0.35
    frame = pd.DataFrame({"listener": listener, "prompt": prompt, "agreed": (prompt == 0).astype(int)})
    cell = dependence(frame)
    assert cell.uneven > 0.8
    assert cell.rate > 0.6 > 0.3 > cell.estimate
    assert cell.p > 0.05, "pooled and weighted rates lie on different sides of chance"


def test_totals_that_repeat_a_pair_are_left_out() -> None:
    frame = study(1, [1.0] * 6, 0.5, 0.5)
    labels = [cell.label for cell in dependence_table(frame)["m"]]
    assert labels[6:] == ["1, total", "2, total", "all"]
    only = dependence_table(frame.query("bin_high == 1 and bin_low == 2"))["m"]
    assert [cell.label for cell in only] == ["1–2"]
    row = dependence_table(frame.query("bin_high == 1"))["m"]
    assert [cell.label for cell in row] == ["1–2", "1–3", "1–4", "all"]


def test_independent_answers_have_their_number_as_effective_n() -> None:
    """If no answers share a listener or prompt, the interval is Wilson's with a quantile of t."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"agreed": rng.integers(0, 2, 400), "listener": range(400), "prompt": range(400)})
    cell = dependence(frame)
    assert cell.n_effective == pytest.approx(400, rel=1e-9)
    assert cell.icc_listener is None
    assert cell.icc_prompt is None
    assert cell.design_effect == pytest.approx(1, abs=0.01)


def test_copies_do_not_increase_the_effective_n() -> None:
    """Ten listeners who give identical answers on 30 prompts have an effective n of 30."""
    rng = np.random.default_rng(4)
    answers = rng.integers(0, 2, 30)
    frame = pd.DataFrame(
        {"agreed": np.tile(answers, 10), "listener": np.repeat(range(10), 30), "prompt": np.tile(range(30), 10)}
    )
    cell = dependence(frame)
    assert cell.n_effective == pytest.approx(29, rel=0.15)
    assert cell.icc_prompt == pytest.approx(1, abs=0.08)


def test_simulated_studies_are_covered_and_chance_is_seldom_rejected() -> None:
    """A small version of benchmarks/dependence.py: 90 studies, deviations 0 to 1, truth known."""
    hits, false, pooled_false = [], [], []
    for seed in range(90):
        sds = (seed % 3 / 2, seed // 3 % 3 / 2)
        table = dependence_table(study(seed, [1.5, 1.5, 1.5, 0, 0, 0], *sds))["m"]
        truth = marginal_rate(1.5, math.hypot(*sds))
        cells = {cell.label: cell for cell in table}
        hits += [cells[label].ci_low <= truth <= cells[label].ci_high for label in ("1–2", "1–3", "1, total")]
        for label in ("2–3", "3–4", "2, total"):
            hits.append(cells[label].ci_low <= 0.5 <= cells[label].ci_high)
            false.append(cells[label].p < 0.05)
            pooled_false.append(cells[label].pooled_p < 0.05)
    assert 0.93 <= np.mean(hits) <= 0.975
    # So few studies tell 5 % from 8 %; the benchmark's thousand tell it from 6 %.
    assert np.mean(false) <= 0.08
    assert np.mean(pooled_false) > 0.10


def broken(kind: str) -> pd.DataFrame:
    frame = study(2, [1.0] * 6, 0.3, 0.3)
    if kind == "all agree":
        frame["agreed"] = 1
    if kind == "none agrees":
        frame["agreed"] = 0
    if kind == "one pair perfect":
        frame.loc[frame["bin_low"] == 4, "agreed"] = 1
    if kind == "one listener":
        frame["listener"] = "a"
    if kind == "one prompt":
        frame["prompt"] = 1
    if kind == "one answer":
        frame = frame.head(1)
    if kind == "two answers":
        frame = frame.head(2).assign(agreed=[0, 1])
    if kind == "separated by listener":
        frame["agreed"] = (frame["listener"] % 2).astype(int)
    if kind == "separated by prompt":
        frame["agreed"] = (frame["prompt"] % 2).astype(int)
    if kind == "one of each but two agree":
        frame["listener"], frame["prompt"] = "a", "b"
    return frame


KINDS = [
    "all agree", "none agrees", "one pair perfect", "one listener", "one prompt", "one answer", "two answers",
    "separated by listener", "separated by prompt", "one of each but two agree",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_no_interval_is_missing_or_infinite(kind: str) -> None:
    frame = broken(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = dependence_table(frame)["m"]
        # Variational Bayes of separated answers takes seconds and adds nothing here.
        model = fit_mixed(frame, checks="separated" not in kind)
        boot = two_way_bootstrap(frame, 50)
    for cell in table:
        assert 0 <= cell.ci_low <= cell.rate <= cell.ci_high <= 1, cell
        assert cell.ci_high > cell.ci_low
        assert 0 <= cell.p <= 1
        assert 0 < cell.n_effective < math.inf
    for pair in model.pairs.values():
        assert 0 <= pair.ci_low <= pair.marginal <= pair.ci_high <= 1
        assert math.isfinite(pair.error)
    assert all(0 <= low <= high <= 1 for low, high in boot.values())
    output = " ".join([*(cell.fallback for cell in table), *model.notes])
    expected = {
        "all agree": "answers are the same", "one listener": "one listener", "one prompt": "one prompt",
        "separated by listener": "separate", "separated by prompt": "separate", "one pair perfect": "bins 1–4",
        "one of each but two agree": "does not generalise",
    }  # fmt: skip
    assert expected.get(kind, "") in output


def test_the_bootstrap_of_balanced_independent_answers() -> None:
    """Resampling listeners who answer once each is the ordinary bootstrap of a rate."""
    frame = pd.DataFrame({"agreed": [1] * 60 + [0] * 40, "listener": range(100), "prompt": [0, 1] * 50})
    low, high = two_way_bootstrap(frame, 4000, seed=1)["listeners"]
    assert (low, high) == pytest.approx((0.6 - 1.96 * 0.049, 0.6 + 1.96 * 0.049), abs=0.015)
    assert two_way_bootstrap(frame, 200, seed=1) == two_way_bootstrap(frame, 200, seed=1)


def test_the_item_table() -> None:
    table = item_table(study(1, [1.0] * 6, 0.5, 0.5))
    assert table["n"].sum() == 900
    assert (table["listeners"] == 60).all()
    assert table["rate"].is_monotonic_increasing
    low, high = proportion_confint(table["agreed"], table["n"], method="wilson")
    assert np.allclose(table["low"], low, atol=1e-12)
    assert np.allclose(table["high"], high, atol=1e-12)


def test_the_order_of_rows_does_not_change_the_draws() -> None:
    frame = study(3, [1.0] * 6, 0.5, 0.5).astype({"listener": str, "prompt": str})
    shuffled = frame.sample(frac=1, random_state=1)
    coded = shuffled.astype({"listener": "category", "prompt": "category"})
    found = [two_way_bootstrap(one, 200, seed=4) for one in (frame, shuffled, coded)]
    for name, interval in found[0].items():
        assert [one[name] for one in found] == [pytest.approx(interval, rel=1e-9)] * 3
