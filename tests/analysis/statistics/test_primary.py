"""The primary test against other libraries, its own interval, its family-wise error and its predicted power."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from analysis.statistics.power import simulate
from analysis.statistics.primary import TESTS, examine, verdicts
from analysis.statistics.simulated_studies import Assumptions, Layout, draw_studies, layout_of_design
from study.config_sections import AnalysisConfig, DesignConfig
from study.design.bin_pairs import BIN_PAIRS
from study.preregistration.planned_test import DESCRIPTIONS, PlannedTest
from tests.analysis.statistics.test_two_way import study
from tests.scale import count

PAPER = layout_of_design(DesignConfig(), 15, 1)


def frame_of(layout: Layout, agreed: np.ndarray) -> pd.DataFrame:
    """One simulated study as responses."""
    high, low = np.array(BIN_PAIRS)[layout.pair].T
    columns = {"listener": layout.listener, "prompt": layout.prompt, "bin_high": high, "bin_low": low}
    return pd.DataFrame({"embedder": "m", **columns, "agreed": agreed.astype(int)})


def test_the_exact_test_is_scipys() -> None:
    frame = study(1, [1.0, 0.6, 0.4, 0.2, 0.0, -0.3], 0.5, 0.5)
    found = verdicts(frame, PlannedTest("exact_holm"))["m"]
    for pair, one in found.items():
        own = frame.query(f"bin_high == {pair[0]} and bin_low == {pair[1]}")["agreed"]
        agreed, n = int(own.sum()), len(own)
        assert one.p == pytest.approx(binomtest(agreed, n).pvalue, rel=1e-9)
        assert (one.ci_low, one.ci_high) == pytest.approx(proportion_confint(agreed, n, method="beta"), abs=1e-9)
    greater = verdicts(frame, PlannedTest("exact_holm", "greater"))["m"][3, 4]
    own = frame.query("bin_high == 3")["agreed"]
    assert greater.p == pytest.approx(binomtest(int(own.sum()), len(own), alternative="greater").pvalue, rel=1e-9)


@pytest.mark.parametrize("primary", TESTS)
def test_the_interval_excludes_a_rate_where_the_test_rejects_it(primary: str) -> None:
    frame = study(3, [1.2, 0.8, 0.5, 0.3, 0.0, -0.4], 0.5, 0.5)
    for one in verdicts(frame, PlannedTest(primary))["m"].values():
        assert (one.p < 0.05) == (not one.ci_low <= 0.5 <= one.ci_high)
        assert one.p <= one.p_holm


def test_minimum_effects_equivalence_and_what_is_left_open() -> None:
    frame = study(4, [3.0, 1.0, 0.0, 0.0, -2.0, 0.3], 0, 0)
    # A pair of a thousand listeners and prompts at exactly one half, to be equivalent to chance.
    many = pd.DataFrame({"embedder": "m", "listener": range(5000, 7000), "prompt": range(5000, 7000), "bin_high": 1,
                         "bin_low": 4, "agreed": np.arange(2000) % 2})  # fmt: skip
    some = pd.concat([frame.query("not (bin_high == 1 and bin_low == 4)"), many])
    found = {pair: one.verdict for pair, one in verdicts(some, PlannedTest())["m"].items()}
    assert found[1, 2] == "of interest"
    assert found[1, 4] == "equivalent"
    assert found[2, 4] == "below"
    assert found[2, 3] == "undecided"
    strict = verdicts(some, PlannedTest(smallest_effect=0.49))["m"]
    assert strict[1, 2].verdict == "above"


def test_pairs_without_answers_are_no_tests() -> None:
    frame = study(1, [1.0] * 6, 0.5, 0.5).query("bin_high == 1")
    found = verdicts(frame, PlannedTest())["m"]
    assert set(found) == {(1, 2), (1, 3), (1, 4)}
    smallest = min(found.values(), key=lambda one: one.p)
    assert smallest.p_holm == pytest.approx(3 * smallest.p)


def test_the_family_wise_error_is_kept() -> None:
    rng = np.random.default_rng(1)
    assumed = Assumptions((0.5,) * 6, 0.7, 0.7, 0.7, 0)
    answers, _ = draw_studies(PAPER, assumed, count(1000, 10_000), rng)
    wrong = (examine(answers, PAPER.as_answers(), PlannedTest()).p_holm < 0.05).any(axis=1).mean()
    assert wrong < 0.06 + 2 * np.sqrt(0.06 * 0.94 / len(answers))


@pytest.mark.parametrize(("primary", "alternative"), [("two_way_holm", "two-sided"), ("exact_holm", "greater")])
def test_predicted_power_is_the_share_of_reports_that_reach_it(primary: str, alternative: str) -> None:
    """The command's simulation against reports of other simulated studies, each examined as a report does it."""
    test = PlannedTest(primary, alternative)
    assumed = Assumptions((0.62, 0.7, 0.75, 0.6, 0.65, 0.5), 0.5, 0.5, 0.3, 0.02)
    predicted = simulate(PAPER, assumed, 1, 2000, test=test)
    studies = count(120, 4000)
    answers, _ = draw_studies(PAPER, assumed, studies, np.random.default_rng(99))
    reported = [verdicts(frame_of(PAPER, one), test)["m"] for one in answers]
    for place, pair in enumerate(BIN_PAIRS):
        share = np.mean([report[pair].significant for report in reported])
        power = predicted.pairs[place].primary
        error = np.sqrt(max(power * (1 - power), 0.01) * (1 / studies + 1 / 2000))
        assert abs(share - power) < 3.5 * error, pair


def test_the_mixed_model_can_be_the_primary_test() -> None:
    found = simulate(
        PAPER, Assumptions((0.7,) * 6, 0.5, 0.5, 0.3, 0, excluded=0.1), 1, 8, test=PlannedTest("mixed_holm")
    )
    assert 0 < np.mean([pair.primary for pair in found.pairs]) <= 1
    assert np.mean([pair.width_primary for pair in found.pairs]) < 0.4


def test_a_plan_describes_each_test_and_an_older_plan_keeps_its_test() -> None:
    assert set(TESTS) == set(DESCRIPTIONS)
    assert PlannedTest.from_config(AnalysisConfig()) == PlannedTest()
    old = {"test": "exact binomial", "alternative": "greater", "chance": 0.5, "alpha": 0.05,
           "correction": "Holm, over the bin pairs of one embedder", "interval": "Clopper-Pearson, 95 %"}  # fmt: skip
    kept = PlannedTest.from_plan(old)
    assert (kept.primary, kept.alternative) == ("exact_holm", "greater")
    assert {key: kept.as_data()[key] for key in old} == old
    assert PlannedTest.from_plan(replace(kept, smallest_effect=0.1).as_data()).smallest_effect == 0.1
