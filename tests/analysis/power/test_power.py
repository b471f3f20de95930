"""Power by simulation against exact binomial power, and the tests that are simulated against their libraries."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binom, binomtest

from analysis.statistics.power import listeners_for, simulate
from analysis.statistics.simulated_studies import Assumptions, layout_of_design, logit_means
from embeddings.errors import RootnoteError
from rootnote import cli
from study.config_sections import DesignConfig
from tests.paper_study import make_study


def exact_power(n: int, rate: float) -> float:
    """The power of the two-sided exact binomial test at 5 %, from scipy alone."""
    rejected = [k for k in range(n + 1) if binomtest(k, n, 0.5).pvalue < 0.05]
    return float(binom.pmf(rejected, n, rate).sum())


@pytest.mark.parametrize("rate", [0.5, 0.617, 0.7])
def test_without_variances_power_is_that_of_the_binomial_test(rate: float) -> None:
    layout = layout_of_design(DesignConfig(), 15, seed=3)
    found = simulate(layout, Assumptions((rate,) * 6, 0, 0, 0, 0), seed=1, simulations=6000)
    for pair in found.pairs:
        assert pair.n == 150
        assert pair.exact == pytest.approx(exact_power(150, rate), abs=0.02)


def test_lapses_lower_the_rate_and_exclusions_lower_n() -> None:
    layout = layout_of_design(DesignConfig(listeners=24, trials=6, prompts=8), 8, seed=3)
    assumed = Assumptions((0.8,) * 6, 0, 0, 0, lapse=0.2)
    found = simulate(layout, assumed, seed=2, simulations=8000)
    for pair in found.pairs:
        assert pair.rate == pytest.approx(0.74)
        assert pair.exact == pytest.approx(exact_power(24, 0.74), abs=0.018)
    fewer = simulate(layout, Assumptions((0.8,) * 6, 0, 0, 0, 0, excluded=0.25), seed=2, simulations=8000)
    expected = sum(binom.pmf(n, 24, 0.75) * exact_power(n, 0.8) for n in range(1, 25))
    for pair in fewer.pairs:
        assert pair.n == pytest.approx(18, abs=0.1)
        assert pair.exact == pytest.approx(expected, abs=0.018)


@pytest.mark.parametrize("sd", [0.0, 0.7, 2.0])
def test_the_assumed_rate_is_the_mean_over_listeners(sd: float) -> None:
    beta = logit_means([0.5, 0.6, 0.95], sd)
    drawn = sd * np.random.default_rng(1).standard_normal(400_000)
    means = [float((1 / (1 + np.exp(-(b + drawn)))).mean()) for b in beta]
    assert means == pytest.approx([0.5, 0.6, 0.95], abs=0.002)


def test_with_random_effects_only_the_two_way_test_keeps_its_level() -> None:
    layout = layout_of_design(DesignConfig(), 15, seed=1)
    null = simulate(layout, Assumptions((0.5,) * 6, 1.0, 1.0, 0, 0), seed=1, simulations=2000)
    exact = np.mean([pair.exact for pair in null.pairs])
    two_way = np.mean([pair.two_way for pair in null.pairs])
    assert exact > 0.12
    assert 0.03 < two_way < 0.06
    assert null.any_pair < 0.06
    robust = layout_of_design(DesignConfig(kind="robust"), 900, seed=1)
    assert robust.prompts == 900
    kept = simulate(robust, Assumptions((0.5,) * 6, 1.0, 1.0, 0, 0), seed=1, simulations=2000)
    assert np.mean([pair.exact for pair in kept.pairs]) == pytest.approx(0.042, abs=0.01)


def test_resized_lists_are_those_of_the_schedule() -> None:
    layout = layout_of_design(DesignConfig(), 15, seed=1)
    for number in (1, 40, 90, 200):
        other = layout.resized(number)
        assert other.listeners == number
        for listener in range(number):
            rows, own = other.listener == listener, layout.listener == listener % 90
            assert (other.prompt[rows] == layout.prompt[own]).all()
            assert (other.pair[rows] == layout.pair[own]).all()


def test_listeners_for_a_target_reach_it_and_fewer_do_not() -> None:
    layout = layout_of_design(DesignConfig(), 15, seed=1)
    assumed = Assumptions((0.62,) * 6, 0, 0, 0, 0)
    number = listeners_for(layout, assumed, 0.8, "exact", seed=1, simulations=1000)
    assert number is not None
    # n = 150 has 80 % at 0.617; some pairs of a part of the lists have fewer answers than others
    assert 80 <= number <= 105
    assert listeners_for(layout, Assumptions((0.6,) * 5 + (0.5,), 0, 0, 0, 0), 0.8, "exact", seed=1) is None
    few = layout_of_design(DesignConfig(prompts=6, trials=6, listeners=6), 6, seed=1)
    assert listeners_for(few, Assumptions((0.55,) * 6, 1, 2, 0, 0), 0.9, "primary", seed=1, simulations=100) is None


def test_a_rate_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        logit_means([1.0], 0.5)
    with pytest.raises(RootnoteError, match="as many prompts"):
        layout_of_design(DesignConfig(), 5, 1)


# ------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("power") / "my-study").folder


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch, study: Path) -> Callable[..., str]:
    """The output of `rootnote analysis power` in the folder of the study."""
    monkeypatch.chdir(study.parent)

    def run(*args: str) -> str:
        done = CliRunner().invoke(cli, ["analysis", "power", *args], env={"COLUMNS": "80"})
        if done.exception is not None:
            raise done.exception
        return done.output

    return run


def test_the_command_simulates_the_schedule_that_will_run(power: Callable[..., str], study: Path) -> None:
    options = (
        "--simulations",
        "500",
        "--listener-sd",
        "0",
        "--prompt-sd",
        "0",
        "--triplet-sd",
        "0",
        "--lapse",
        "0",
        "--json",
    )
    found = json.loads(power("my-study", "--effect", "0.7", "--effect", "1-2=0.5", *options))
    assert found["note"] == ""
    assert (found["design"]["listeners"], found["design"]["trials"], found["design"]["prompts"]) == (90, 10, 15)
    assert [pair["n"] for pair in found["design"]["pairs"]] == [150] * 6
    assert found["design"]["pairs"][0]["exact"] < 0.1 < 0.9 < found["design"]["pairs"][5]["exact"]
    assert found["target"]["listeners"] is None
    assert found["primary_test"]["primary"] == "two_way_holm"
    assert all(pair["primary"] <= pair["two_way"] for pair in found["design"]["pairs"])
    assert found["design"]["pairs"][0]["primary_error"] < 0.02
    kinds = {rival["kind"]: rival for rival in found["equal_cost"]}
    assert set(kinds) == {"paper", "robust"}
    assert 148 < kinds["robust"]["cost_usd"] <= kinds["paper"]["cost_usd"] == 150
    assert kinds["robust"]["power"]["listeners"] == 140


def test_before_the_build_the_design_is_simulated(power: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text('[study]\nname = "T"\n[corpus]\naudio = "m"\n[design]\nkind = "robust"\n')
    text = power(str(tmp_path), "--simulations", "200", "--prompts", "300")
    assert "The study is not built: a schedule over 900 prompts is assumed." in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text


def test_the_planned_test_is_simulated_against_any_smallest_effect(power: Callable[..., str], study: Path) -> None:
    plan = study.parent / "planned"
    plan.mkdir()
    text = '[study]\nname = "T"\n[corpus]\naudio = "m"\n[analysis]\nprimary = "exact_holm"\nalternative = "greater"\n'
    (plan / "study.toml").write_text(text)
    found = json.loads(
        power("planned", "--effect", "0.65", "--simulations", "300", "--smallest-effect", "0.1", "--json")
    )
    assert found["primary_test"]["primary"] == "exact_holm"
    assert found["primary_test"]["smallest_effect"] == 0.1
    for pair in found["design"]["pairs"]:
        assert pair["primary"] >= pair["holm"], "one-sided"
        assert pair["minimum"] < pair["primary"]
    shown = power("planned", "--simulations", "300")
    assert "exact binomial test with Holm’s correction (the paper’s), one-sided" in " ".join(shown.split())
    assert "Monte Carlo error" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--effect", "60"), "give a rate between 0 and 1"),
        (("--effect", "1-5=0.6"), "there is no bin pair '1-5'"),
        (("--embedder", "clap"), "no embedder 'clap'"),
        (("--simulations", "1000000", "--listeners", "5000"), "lower --simulations"),
    ],
)
def test_a_wrong_option_is_one_sentence(power: Callable[..., str], args: tuple[str, ...], words: str) -> None:
    with pytest.raises(RootnoteError, match=re.escape(words)):
        power("my-study", *args)


def test_the_commands_of_the_documentation(power: Callable[..., str]) -> None:
    text = (Path(__file__).parents[3] / "docs" / "study.md").read_text(encoding="utf-8")
    lines = re.findall(r"^rootnote analysis power (.*)$", text, re.MULTILINE)
    assert lines
    for line in lines:
        assert "power" in power(*line.split(), "--simulations", "100").lower()
