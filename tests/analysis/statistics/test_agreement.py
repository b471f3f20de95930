"""Agreement and comparisons against scipy and statsmodels, to 1e-10."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

from analysis.statistics.agreement import exact_binomial, paper_counts, table1, tabulate
from analysis.statistics.comparison import (
    compare_counts,
    compare_embedders,
    mcnemar_exact,
    newcombe,
    two_sample_exact,
    two_way_difference,
)

TIGHT = {"rel": 1e-10, "abs": 1e-10}
counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(max_examples=60, deadline=None)
@given(counts, st.sampled_from(["two-sided", "greater", "less"]))
def test_one_cell_equals_scipy_and_statsmodels(count: tuple[int, int], alternative: str) -> None:
    agreed, n = count
    test = exact_binomial(agreed, n, alternative=alternative)  # type: ignore[arg-type]
    assert test.p == pytest.approx(binomtest(agreed, n, 0.5, alternative).pvalue, **TIGHT)
    assert (test.ci_low, test.ci_high) == pytest.approx(proportion_confint(agreed, n, method="beta"), **TIGHT)
    assert (test.wilson_low, test.wilson_high) == pytest.approx(proportion_confint(agreed, n, method="wilson"), **TIGHT)
    assert 0 <= test.ci_low <= test.wilson_low + 0.02
    assert test.wilson_high <= 1 + 1e-12


def test_known_intervals() -> None:
    test = exact_binomial(75, 150)
    assert [round(x, 3) for x in (test.ci_low, test.ci_high)] == [0.417, 0.583]
    assert [round(x, 3) for x in (test.wilson_low, test.wilson_high)] == [0.421, 0.579]
    assert exact_binomial(88, 150).p < 0.05 < exact_binomial(87, 150).p
    assert exact_binomial(87, 150, alternative="greater").p < 0.05


@settings(max_examples=60, deadline=None)
@given(counts, counts)
def test_two_samples(one: tuple[int, int], two: tuple[int, int]) -> None:
    expected = confint_proportions_2indep(*one, *two, method="newcomb")
    assert newcombe(*one, *two) == pytest.approx(expected, **TIGHT)
    # Fisher's p by its definition: the margins fixed, every table no likelier than the one seen.
    agreed, n = one[0] + two[0], one[1] + two[1]
    ways = [math.comb(one[1], k) * math.comb(two[1], agreed - k) if agreed >= k else 0 for k in range(one[1] + 1)]
    exact = sum(way for way in ways if way <= ways[one[0]]) / math.comb(n, agreed)
    assert two_sample_exact(*one, *two) == pytest.approx(exact, rel=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar(only_first: int, only_second: int) -> None:
    table = [[7, only_first], [only_second, 9]]
    expected = mcnemar(table, exact=True).pvalue if only_first + only_second else 1.0
    assert mcnemar_exact(only_first, only_second) == pytest.approx(expected, **TIGHT)


def test_the_paper_clap_against_clmr() -> None:
    (contrast,) = compare_counts(paper_counts())
    assert (contrast.first, contrast.second) == ("CLAP", "CLMR")
    rows = {row.label: row for row in contrast.rows}
    assert rows["1–2"].difference == pytest.approx(150 / 156 - 136 / 150)
    assert rows["all"].first.n == 922
    assert rows["all"].second.n == 893
    expected = multipletests([row.p for row in contrast.rows[:6]], method="holm")[1]
    assert [row.p_holm for row in contrast.rows[:6]] == pytest.approx(expected, **TIGHT)
    assert rows["1, total"].p_holm is None


def test_totals_are_tested_without_correction() -> None:
    table = tabulate(paper_counts(), "greater")["CLMR"]
    assert (table.totals[2].agreed, table.totals[2].n) == (258, 312)
    assert table.totals[2].test is not None
    assert table.totals[2].test.p == binomtest(258, 312, 0.5, "greater").pvalue
    assert table.overall.test is not None
    assert table.overall.test.rate == 782 / 893


def shared_answers() -> pd.DataFrame:
    """40 listeners, one answer each to a triplet of both embedders; every tenth triplet is reversed for the second."""
    rows = []
    for i in range(40):
        clips, chosen = (f"a{i}", f"b{i}"), int(i % 4 > 0)
        common = {"listener": f"l{i}", "prompt": i, "bin_high": 1, "bin_low": 2}
        rows.append(common | {"embedder": "one", "clip_high": clips[0], "clip_low": clips[1], "agreed": chosen})
        first, second = clips if i % 10 else clips[::-1]
        agreed = chosen if i % 10 else 1 - chosen
        rows.append(common | {"embedder": "two", "clip_high": first, "clip_low": second, "agreed": agreed})
    return pd.DataFrame(rows)


def test_the_same_triplets_are_paired() -> None:
    (contrast,) = compare_embedders(shared_answers())
    row = contrast.rows[0]
    assert row.paired is not None
    # Reversed are 0, 10, 20 and 30; of them only 10 and 30 agreed for the first.
    assert (row.paired.n, row.paired.only_first, row.paired.only_second) == (40, 2, 2)
    assert row.paired.p == 1.0
    assert contrast.rows[1].paired is None
    assert "40 pairs" in contrast.pairing


def test_nothing_is_paired_without_clips_or_with_other_listeners() -> None:
    frame = shared_answers()
    (without,) = compare_embedders(frame.drop(columns=["clip_high", "clip_low"]))
    assert all(row.paired is None for row in without.rows)
    frame["listener"] = np.where(frame["embedder"] == "one", frame["listener"], "x" + frame["listener"])
    (others,) = compare_embedders(frame)
    assert all(row.paired is None for row in others.rows)
    assert "no paired test" in others.pairing


def test_the_difference_with_both_varying_is_the_two_way_sandwich_of_a_regression() -> None:
    rng = np.random.default_rng(7)
    n = 300
    first, y = rng.random(n) < 0.45, rng.integers(0, 2, n).astype(float)
    listener, prompt = np.repeat(np.arange(60), 5), rng.permutation(n) % 20
    fit = sm.OLS(y, sm.add_constant(first.astype(float))).fit()
    _, by_listener, by_prompt = cov_cluster_2groups(fit, listener, prompt, use_correction=False)
    single = fit.get_robustcov_results("HC0").cov_params()[1, 1] * n / (n - 1)
    variance = max(
        by_listener[1, 1] * 60 / 59 + by_prompt[1, 1] * 20 / 19 - single,
        single * (n - 1) / n * (norm.ppf(0.975) / student.ppf(0.975, 19)) ** 2,
    )
    found = two_way_difference(y, first, listener, prompt)
    assert found is not None
    assert found.p == pytest.approx(2 * student.sf(abs(fit.params[1]) / math.sqrt(variance), 19), rel=1e-9)
    assert (found.ci_low + found.ci_high) / 2 == pytest.approx(fit.params[1], abs=1e-12)
    assert two_way_difference(y, first | True, listener, prompt) is None
    assert two_way_difference(y, first, listener * 0, prompt) is None


def test_an_empty_cell_has_no_test() -> None:
    frame = pd.DataFrame({"embedder": ["m"] * 3, "bin_high": [1, 1, 2], "bin_low": [2, 2, 3], "agreed": [1, 0, 1]})
    table = table1(frame)["m"]
    assert table.pairs[3, 4].test is None
    assert table.totals[3].test is None
    assert table.overall.n == 3


@pytest.mark.parametrize(
    ("shift", "other_listeners", "words"),
    [
        (0, False, "the same 10 prompts, with the same listeners"),
        (0, True, "the same 10 prompts, with different listeners"),
        (3, False, "7 of 13 prompts were heard for both embedders"),
        (10, True, "The designs differ: the embedders share no prompts"),
    ],
)
def test_a_comparison_says_whether_the_designs_differ(shift: int, other_listeners: bool, words: str) -> None:
    rng = np.random.default_rng(1)
    rows = [
        {"embedder": name, "listener": f"{name if other_listeners else ''}{who}", "prompt": prompt + move,
         "bin_high": 1, "bin_low": 2, "agreed": int(rng.random() < rate)}
        for name, move, rate in (("a", 0, 0.9), ("b", shift, 0.6))
        for who in range(12)
        for prompt in range(10)
    ]  # fmt: skip
    (contrast,) = compare_embedders(pd.DataFrame(rows))
    assert words in contrast.design
    assert contrast.rows[0].both_vary is not None
    assert contrast.rows[0].both_vary.p < 0.05
