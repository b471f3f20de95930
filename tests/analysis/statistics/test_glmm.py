"""The mixed model against R's lme4, by brute force, and where the likelihood has no maximum.

lme4/make_data.py makes the data, lme4/make_results.R lme4's answers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from analysis.statistics.glmm import MixedModel, fit_mixed, marginal_rate
from analysis.statistics.glmm_data import collect
from analysis.statistics.glmm_laplace import LaplaceLikelihood
from study.design.bin_pairs import BIN_PAIRS
from tests.analysis.statistics.test_two_way import study

HERE = Path(__file__).parent / "lme4"
ANSWERS: dict[str, Any] = json.loads((HERE / "lme4.json").read_text(encoding="utf-8"))
CASES = Path(__file__).parents[4] / "shared" / "cases" / "lme4"


def deviations(model: MixedModel) -> dict[str, float | None]:
    return {"listener": model.sd_listener, "prompt": model.sd_prompt, "triplet": model.sd_triplet}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_fit_is_lme4s(name: str) -> None:
    expected = ANSWERS[name]
    model = fit_mixed(pd.read_csv(HERE / f"{name}.csv"), checks=False)
    pairs = [model.pairs[pair.replace("-", "–")] for pair in expected["pairs"]]
    assert [pair.effect for pair in pairs] == pytest.approx(expected["effects"], abs=1e-4)
    assert [pair.error for pair in pairs] == pytest.approx(expected["errors"], rel=1e-3)
    found = {name: sd for name, sd in deviations(model).items() if sd is not None}
    assert found == pytest.approx(expected["deviations"], abs=1e-3)
    assert model.log_likelihood == pytest.approx(expected["log_likelihood"], abs=1e-4)
    assert model.method == ("quadrature" if name.startswith("one") else "Laplace")


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared folder is not here")
def test_the_fit_is_lme4s_on_the_shared_sets() -> None:
    """lme4's errors there are with its default tolerance, which ends its inner loop early: up to 1.3 % off its own."""
    answers = json.loads((CASES / "lme4.json").read_text(encoding="utf-8"))
    for name in ("paper_plain", "paper_triplet", "paper_triplet_null", "unbalanced", "robust_plain"):
        model = fit_mixed(pd.read_csv(CASES / f"{name}.csv"), checks=False)
        form = "listener+prompt" + ("+triplet" if model.sd_triplet is not None else "")
        expected = answers[f"{name} | {form}"]
        pairs = [model.pairs[pair.replace("-", "–")] for pair in expected["pairs"]]
        assert [pair.effect for pair in pairs] == pytest.approx(expected["effects"], abs=0.01), name
        assert [pair.error for pair in pairs] == pytest.approx(expected["errors"], rel=0.014), name
        assert model.log_likelihood == pytest.approx(expected["log_likelihood"], abs=0.01), name
        for grouping, sd in deviations(model).items():
            if sd is not None:
                assert sd == pytest.approx(expected[f"sd_{grouping}"], abs=0.01), name
    assert answers.keys() >= {"robust_plain | listener+prompt"}


def test_the_gradient_is_that_of_the_likelihood() -> None:
    likelihood = LaplaceLikelihood(collect(pd.read_csv(HERE / "few.csv")))
    at = np.array([1.5, 1.0, 0.8, 0.3, 0.1, -0.2, 0.4, 0.6, 0.5])
    slope = likelihood.value_and_gradient(at)[1]
    for place in range(len(at)):
        step = np.zeros(len(at))
        step[place] = 1e-5
        up, down = (likelihood.value_and_gradient(at + sign * step)[0] for sign in (1, -1))
        assert slope[place] == pytest.approx((up - down) / 2e-5, abs=1e-4)


def test_a_pair_without_disagreement_has_a_finite_effect_and_a_reason() -> None:
    frame = study(2, [1.0] * 6, 0.5, 0.5)
    frame.loc[(frame["bin_high"] == 1) & (frame["bin_low"] == 4), "agreed"] = 1
    model = fit_mixed(frame, checks=False)
    perfect = model.pairs["1–4"]
    assert 4 < perfect.effect < 8
    assert 0.5 < perfect.error < 2
    assert 0.9 < perfect.ci_low < perfect.ci_high < 1
    assert any("bins 1–4" in note and "penalty" in note for note in model.notes)
    assert not any("did not converge" in note for note in model.notes)


def test_triplets_are_told_apart_by_their_clips() -> None:
    frame = pd.read_csv(HERE / "triplets.csv")
    plain = fit_mixed(frame, checks=False)
    assert plain.sd_triplet is not None
    # Every answer has clips of its own: no triplet repeats.
    named = frame.assign(clip_high=range(len(frame)), clip_low="x")
    assert fit_mixed(named, checks=False).sd_triplet is None


def test_the_model_is_symmetric_in_listeners_and_prompts() -> None:
    frame = study(4, [1.0, 0.5, 0.0, 1.0, 0.5, 0.0], 0.7, 0.4).query("listener < 40")
    named = frame.assign(clip_high=range(len(frame)), clip_low="x")
    model = fit_mixed(named, checks=False)
    turned = fit_mixed(named.rename(columns={"listener": "prompt", "prompt": "listener"}), checks=False)
    assert (turned.sd_prompt, turned.sd_listener) == pytest.approx((model.sd_listener, model.sd_prompt), abs=1e-3)
    for name, pair in model.pairs.items():
        assert turned.pairs[name].effect == pytest.approx(pair.effect, abs=1e-3)


def test_marginal_rates_by_brute_force() -> None:
    draws = np.random.default_rng(1).normal(size=400_000)
    assert marginal_rate(1.2, 0.9) == pytest.approx(expit(1.2 + 0.9 * draws).mean(), abs=0.002)
    assert marginal_rate(0, 1) == pytest.approx(0.5, abs=1e-12)


def test_the_model_recovers_the_truth_and_its_checks_agree() -> None:
    effects = [2.0, 1.5, 1.0, 0.5, 0.0, -0.5]
    several = [fit_mixed(study(seed, effects, 0.6, 0.8), checks=False) for seed in range(12)]
    assert np.mean([model.sd_listener for model in several]) == pytest.approx(0.6, abs=0.12)
    assert np.mean([model.sd_prompt for model in several]) == pytest.approx(0.75, abs=0.14)
    model = fit_mixed(study(8, effects, 0.6, 0.8))
    assert model.variational is not None
    assert model.gee is not None
    names = [f"{high}–{low}" for high, low in BIN_PAIRS]
    found = np.array([model.pairs[name].effect for name in names])
    other = np.array([model.variational.effects[name][0] for name in names])
    # Variational Bayes leaves out the uncertainty about the mean of the prompts, which is common to all pairs.
    assert found - found.mean() == pytest.approx(other - other.mean(), abs=0.25)
    for pair in model.pairs.values():
        assert pair.ci_low < pair.marginal < pair.ci_high
        assert abs(pair.marginal - 0.5) <= abs(pair.typical - 0.5) + 1e-9


SINGULAR = {
    "one pair of two is one listener's": [("a", "p", 1, 2, 1), ("a", "q", 1, 2, 0), ("b", "p", 1, 3, 0),
                                          ("b", "q", 1, 3, 1), ("c", "p", 1, 3, 0)],
    "each listener has a pair": [("a", "p", 1, 2, 1), ("a", "q", 1, 2, 0), ("b", "p", 1, 3, 0), ("b", "q", 1, 3, 1),
                                 ("c", "p", 3, 4, 0), ("c", "q", 3, 4, 1)],
    "prompts separate": [(who, what, 1, 2, int(what == "p")) for who in "abcd" for what in "pq"],
    "listeners separate": [(who, what, 1, 2, int(who < "c")) for who in "abcd" for what in "pq"],
}  # fmt: skip


@pytest.mark.parametrize("name", SINGULAR)
def test_a_check_without_a_solution_is_reported_and_does_not_stop_the_report(name: str) -> None:
    columns = ["listener", "prompt", "bin_high", "bin_low", "agreed"]
    model = fit_mixed(pd.DataFrame(SINGULAR[name], columns=columns))
    for pair in model.pairs.values():
        assert 0 < pair.ci_low < pair.marginal < pair.ci_high < 1
    assert model.gee is not None
    if "pair" in name:
        assert "only one listener answered" in model.gee.note or "several listeners" in model.gee.note
        assert "1–2" not in model.gee.effects
    else:
        assert any("separate" in note and "prior" in note for note in model.notes)


def test_whatever_matrix_is_singular(monkeypatch: pytest.MonkeyPatch) -> None:
    from statsmodels.genmod.generalized_estimating_equations import GEE

    def fail(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(GEE, "fit", fail)
    model = fit_mixed(study(1, [0.5] * 6, 0.3, 0.3))
    assert model.gee is not None
    assert model.gee.effects == {}
    assert "singular matrix" in model.gee.note
    assert "do not depend on this check" in model.gee.note
