"""`report --bayes` against the mixed model and a known truth, and without its extra."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from analysis.cli import cli
from embeddings.errors import MissingPackageError
from tests.analysis.statistics.test_two_way import study
from tests.scale import is_soak


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpyro", None)
    study(2, [0.5] * 6, 0.5, 0.5).to_csv(tmp_path / "responses.csv", index=False)
    command = ["report", str(tmp_path / "responses.csv"), "--out", str(tmp_path / "out"), "--bayes"]
    done = CliRunner().invoke(cli, command)
    assert isinstance(done.exception, MissingPackageError)
    assert 'pip install "rootnote[bayes]"' in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("numpyro") is None, reason="the extra bayes is not installed; make soak installs it")
@pytest.mark.skipif(not is_soak(), reason="compiling takes 20 s or more; runs in make soak")
def test_the_posterior_is_near_the_mixed_model_and_the_truth(tmp_path: Path) -> None:
    truth = [0.2, 0.5, 1.1, 0.1, 0.5, 0.2]
    study(2, truth, 0.5, 0.7).to_csv(tmp_path / "responses.csv", index=False)
    command = ["report", str(tmp_path / "responses.csv"), "--out", str(tmp_path / "out"), "--bayes"]
    # In its own process: JAX starts threads, and a process with threads should not fork.
    subprocess.run([sys.executable, "-m", "rootnote", "analysis", *command], check=True, capture_output=True)
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf-8"))
    model, mixed = numbers["bayes"]["models"]["m"], numbers["mixed"]["m"]
    assert model["trouble"] == []
    for name, effect in zip(model["pairs"], truth, strict=True):
        pair, likelihood = model["pairs"][name], mixed["pairs"][name]
        assert pair["rate"] == pytest.approx(likelihood["marginal"], abs=0.03)
        assert pair["effect"]["mean"] == pytest.approx(likelihood["effect"], abs=0.15)
        assert abs(pair["effect"]["mean"] - effect) < 3 * pair["effect"]["sd"]
        assert pair["new_low"] < pair["low"] < pair["rate"] < pair["high"] < pair["new_high"]
    for group, sd in (("listener", 0.5), ("prompt", 0.7)):
        assert model["deviations"][group]["low"] < sd < model["deviations"][group]["high"]
    orders = {(one["outer"], one["inner"]): one["probability"] for one in model["orders"]}
    assert len(orders) == 9
    assert model["ordered"] <= min(orders.values())
    assert "The same model, Bayesian" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
