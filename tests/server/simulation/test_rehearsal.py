"""Rehearsal: simulated listeners over real HTTP, what they leave behind, and whether intervals cover the truth."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import wave
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from server.simulation.bots import BotError, ResponseModel, StimulusLookup
from server.simulation.hearing import LOUDSPEAKERS, answer_by_ear
from server.simulation.page_parser import read_page
from study.config import Study
from study.config_sections import RehearsalConfig
from study.design.simulated_listener import p_agree
from study.prescreen.item import encode_wav
from study.prescreen.tone_counting import ToneItem
from study.trial_plan import read_plan
from tests.commands import run
from tests.paper_study import make_study
from tests.rehearse_in_process import list_order, walk_in_process

SECRET = "a secret for tests only, 32 characters and more"
RATES = {"1-2": 0.6, "1-3": 0.75, "1-4": 0.95, "2-3": 0.55, "2-4": 0.85, "3-4": 0.7}
CALM = ("--fail-prescreen", "0", "--abandon", "0", "--reload", "0", "--double-submit", "0")


def rootnote(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    # A short reservation: the places of those who vanish come back while the test waits.
    result = run(*words, environment={"ROOTNOTE_SECRET": SECRET, "ROOTNOTE_RESERVATION_MINUTES": "0.04"})
    assert result.returncode == status, result.stdout + result.stderr
    return result


def export(study: Study) -> list[dict[str, str]]:
    out = study.folder / "rehearsal"
    rootnote("server", "export", str(study.folder), "--rehearsal", "--out", str(out))
    with (out / "responses.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def completed_by_pair(rows: list[dict[str, str]]) -> dict[str, tuple[int, int]]:
    """Bin pair -> (agreed, n) of the listeners who completed."""
    n: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    for row in rows:
        if row["completed"] == "1" and row["kind"] == "scored":
            pair = f"{row['bin_high']}-{row['bin_low']}"
            n[pair] += 1
            agreed[pair] += int(row["agreed"])
    return {pair: (agreed[pair], n[pair]) for pair in sorted(n)}


@pytest.mark.slow
def test_a_lively_crowd_fills_every_place_exactly_once(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", prompts=6, listeners=12, trials=6)
    habits = ("--fail-prescreen", "0.2", "--abandon", "0.3", "--reload", "0.3", "--double-submit", "0.3")
    words = ("server", "rehearse", str(study.folder), "--seed", "3", "--json", *habits)
    summary = json.loads(rootnote(*words).stdout)
    outcomes = summary["outcomes"]
    assert outcomes["finished"] == 12
    assert outcomes["screened_out"] and outcomes["withdrawn"] and outcomes["vanished"]
    assert summary["reloads"] and summary["double_submits"]
    rows = export(study)
    # A double click or a reload never makes a second response, and every response that was given is there.
    assert len({(row["assignment"], row["position"]) for row in rows}) == len(rows) == summary["answered"]
    assert sum(int(row["agreed"]) for row in rows) == summary["agreed"]
    done = [row for row in rows if row["completed"] == "1"]
    assert len(done) == 72
    assert {n for _, n in completed_by_pair(rows).values()} == {12}
    heard = Counter(row["trial"] for row in done)
    assert set(heard.values()) == {1}, "every trial of every list is answered once"
    assert not list(study.folder.glob("rootnote.sqlite3*")), "the real database is never touched"
    for path in [study.folder / "rehearsal.sqlite3"]:
        with sqlite3.connect(path) as base:
            assert base.execute("SELECT count(*) FROM places WHERE filled").fetchone() == (12,)
        base.close()


@pytest.mark.slow
def test_true_rates_reach_the_answers_and_in_process_walks_give_the_same(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", prompts=6, listeners=12, trials=6)
    rates = json.dumps(RATES)
    words = ("--seed", "7", "--true-rates", rates, "--at-once", "1", *CALM)
    rootnote("server", "rehearse", str(study.folder), *words)
    first = completed_by_pair(export(study))
    assert first == walk_in_process(read_plan(study), study.config.study.seed, seed=7, rates=RATES)


@pytest.mark.slow
def test_ten_double_clickers_all_at_once(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", prompts=6, listeners=12, trials=6)
    words = ("--double-submit", "1", "--at-once", "12", "--abandon", "0", "--fail-prescreen", "0", "--json")
    summary = json.loads(rootnote("server", "rehearse", str(study.folder), *words).stdout)
    assert summary["outcomes"] == {"finished": 12}
    assert len(export(study)) == 72


@pytest.mark.slow
def test_listeners_pass_every_prescreen_by_ear(tmp_path: Path) -> None:
    """Those with headphones finish; those with loudspeakers are let go, because what they hear is not there."""
    steps = '[prescreen]\nsteps = ["volume", "tones", "antiphase", "huggins"]\n'
    study = make_study(tmp_path / "s", prompts=6, listeners=6, trials=6, toml=steps)
    words = ("--abandon", "0", "--fail-prescreen", "0", "--loudspeakers", "0.5", "--seed", "3", "--json")
    summary = json.loads(rootnote("server", "rehearse", str(study.folder), *words).stdout)
    assert summary["outcomes"]["finished"] == 6
    assert summary["outcomes"]["screened_out"] >= 2
    with sqlite3.connect(study.folder / "rehearsal.sqlite3") as base:
        failed = Counter(kind for (kind,) in base.execute("SELECT kind FROM prescreen_results WHERE NOT passed"))
    assert failed == {"antiphase": 2 * summary["outcomes"]["screened_out"]}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"1-1": 0.5}', '{"1-2": 1.5}', '{"1-2": true}', '{"1-2": "0.5"}', '{"2-1": 0.5}']
)
def test_wrong_true_rates_are_refused(tmp_path: Path, text: str) -> None:
    study = make_study(tmp_path / "s", prompts=6, listeners=6, trials=6)
    result = rootnote("server", "rehearse", str(study.folder), "--true-rates", text, status=1)
    assert result.stderr.startswith("rootnote: --true-rates is not a JSON object")


def test_more_listeners_than_places_and_a_server_that_is_not_there(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", prompts=6, listeners=6, trials=6)
    result = rootnote("server", "rehearse", str(study.folder), "--listeners", "7", status=1)
    assert "the study's 6 places" in result.stderr
    result = rootnote("server", "rehearse", str(study.folder), "--url", "http://127.0.0.1:9", status=1)
    assert "does not answer" in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_launch_fills_all_places_of_a_server_of_its_own(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", prompts=6, listeners=6, trials=6)
    words = ("server", "rehearse", str(study.folder), "--recruiter", "mturk", "--url", "http://127.0.0.1:9")
    assert "leave out --url" in rootnote(*words, status=2).stderr
    study.stimuli_index.unlink()
    stderr = rootnote(*words[:5], status=1).stderr
    assert str(study.folder) in stderr and len(stderr.strip().splitlines()) == 1, "not the folder it is rehearsed in"


@pytest.mark.slow
def test_ctrl_c_stops_the_server_too(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", prompts=15, listeners=90, trials=10)
    command = [sys.executable, "-m", "rootnote", "server", "rehearse", str(study.folder), "--at-once", "4"]
    environment = {**os.environ, "ROOTNOTE_SECRET": SECRET}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    assert "listeners finished" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    process.stderr.close()
    with pytest.raises(ProcessLookupError):
        for _ in range(50):  # the group is gone when its last process is
            os.killpg(process.pid, 0)
            time.sleep(0.1)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_tones_are_counted_from_the_sound(seed: int, most: int) -> None:
    item = ToneItem(count=int(np.random.default_rng(seed).integers(1, most, endpoint=True)), slots=most, seed=seed)
    assert answer_by_ear("tones", encode_wav(item.render()), LOUDSPEAKERS, np.random.default_rng()) == item.count


def test_silence_has_no_tones() -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    assert answer_by_ear("tones", buffer.getvalue(), LOUDSPEAKERS, np.random.default_rng()) == 0


def test_every_trial_is_recognised_by_its_sounds(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", prompts=8, listeners=16, trials=6, toml="catch_trials = 1\nrepeat_trials = 1\n")
    plan = read_plan(study)
    lookup = StimulusLookup(plan)
    for trials in plan.lists.values():
        for trial in trials:
            low_side = "B" if trial.high_side == "A" else "A"
            roles = {"X": "x", trial.high_side: "high", low_side: "low"}
            sounds = {slot: plan.stimuli[trial.stimulus_key(role)].file.read_bytes() for slot, role in roles.items()}
            assert trial in lookup.recognise(trial.position, sounds)
            with pytest.raises(BotError, match="in no TrialList at this position"):
                lookup.recognise(99, sounds)
    with pytest.raises(BotError, match="not in build/stimuli"):
        lookup.recognise(1, {"X": b"", "A": b"", "B": b""})


def test_a_page_is_read_as_a_browser_would() -> None:
    page = read_page(
        '<main data-step="trial" data-position="3" data-of="10"><form action="/a/t/trial">'
        '<audio data-clip="X" src="/audio/x"></audio><input type="hidden" name="position" value="3">'
        '<input type="radio" name="choice" value="A"><input type="radio" name="choice" value="B">'
        '<input name="q_years" required><input type="checkbox" name="q_plays" value="Oud">'
        '<textarea name="q_remarks">a &amp; b</textarea></form><form action="/a/t/leave"></form>'
        "<code data-code>AB12</code></main>"
    )
    assert (page.step, page.position, page.code, page.sounds) == ("trial", 3, "AB12", {"X": "/audio/x"})
    assert page.form("/trial").choices == {"choice": ["A", "B"], "q_plays": ["Oud"]}
    assert page.form("/trial").names == {"position", "choice", "q_years", "q_plays", "q_remarks"}
    assert page.form("/trial").fields["position"] == "3"
    assert page.back is None
    with pytest.raises(LookupError):
        page.form("/nowhere")
    posted = read_page('<form action="http://h/x" data-back><input type="hidden" name="a" value="b"></form>').back
    assert posted is not None and (posted.method, posted.action, posted.fields) == ("post", "http://h/x", {"a": "b"})
    linked = read_page(
        '<main data-step="done"><a class="primary" href="http://h/y?cc=1" data-back>Back</a></main>'
    ).back
    assert linked is not None and (linked.method, linked.action) == ("get", "http://h/y?cc=1")


@given(st.floats(-1, 2), st.floats(-1, 2))
def test_agreement_rises_with_the_difference_from_chance_to_one_less_lapse(one: float, other: float) -> None:
    config = RehearsalConfig(scale=0.3, shape=1.2, lapse=0.03)
    low, high = (p_agree(difference, config) for difference in sorted((one, other)))
    assert 0.5 <= low <= high <= 1 - config.lapse + 1e-12
    assert p_agree(0, config) == 0.5
    assert p_agree(100, config) == pytest.approx(0.97)
    # The closed form of study/config.py, by other means.
    assert p_agree(0.3, config) == pytest.approx(0.5 + 0.47 * (1 - np.exp(-1)))


def test_without_true_rates_the_difference_in_similarity_decides() -> None:
    trial: Any = next(iter(read_trials()))
    assert ResponseModel(RehearsalConfig()).p_agree(trial) == p_agree(
        trial.similarity_high - trial.similarity_low, RehearsalConfig()
    )
    assert ResponseModel(RehearsalConfig(), {"1-2": 0.61}).p_agree(trial) == (
        0.61 if (trial.bin_high, trial.bin_low) == (1, 2) else ResponseModel(RehearsalConfig()).p_agree(trial)
    )


def read_trials() -> list[Any]:
    from study.config_sections import DesignConfig
    from study.design.schedule import make_schedule
    from tests.paper_study import make_triplets

    return list(make_schedule(make_triplets(15, 1), DesignConfig(), np.random.default_rng(1)))


@pytest.mark.slow
def test_intervals_cover_the_true_rates(tmp_path: Path) -> None:
    """Over 40 seeds of the paper's 900 trials, 95 % intervals cover p in 90 to 99 % of the 240 cells."""
    study = make_study(tmp_path / "s", seconds=0.02)
    plan = read_plan(study)
    assert sorted(list_order(plan, 1)) == list(range(90))
    cells = covered = 0
    for seed in range(1, 41):
        for pair, (agreed, n) in walk_in_process(plan, study.config.study.seed, seed, RATES).items():
            assert n == 150
            interval = binomtest(agreed, n).proportion_ci(0.95, method="exact")
            cells += 1
            covered += interval.low <= RATES[pair] <= interval.high
    assert cells == 240
    assert 0.90 <= covered / cells <= 0.99, f"{covered} of {cells}"
