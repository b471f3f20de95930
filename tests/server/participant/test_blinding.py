"""Attackers with the source code, study.toml and the corpus, but without the secret key and without ears.

One collects all that listeners get except the samples and learns from it which side is more similar; one looks for
dither that it can compute itself; one draws the schedule again. Each finds the leaks of earlier versions and nothing
in what is sent now. benchmarks/blinding.py has the same attacks with larger numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import stats
from sqlalchemy import make_url

from server.app import create_app
from server.db import database
from server.settings import Settings
from study.config import Study
from study.config_sections import DesignConfig, StimuliConfig
from study.design.schedule import make_schedule
from study.secret_key import SecretKey, draw_key, stimulus_name
from study.stimuli.render import ClipSource, render_all
from study.trial_plan import read_plan
from tests.paper_study import CLIPS_PER_PROMPT, make_study, make_triplets
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.participant.attacker import LEAKS, Evidence, attack, collect
from tests.server.participant.file_reader import find_dither
from tests.server.small_study import write_sounds

TRIALS = 10
RATE = 44100
UNLIKELY = 0.0001  # what is not found may look like this in one of ten thousand runs of the suite


# ------------------------------------------------------------------ everything but the samples


def write_telling_sounds(study: Study) -> None:
    """Write clips of noise and tone that are worth an attack: the more similar to X, the nearer in compressed size."""
    rng = np.random.default_rng(1)
    turn = rng.choice([-1, 1], 100)
    time, sounds = np.arange(round(0.1 * RATE)) / RATE, {}
    for key in read_plan(study).stimuli:
        prompt, bin_ = divmod(int(key.split("/")[0]), CLIPS_PER_PROMPT)
        noise = 2.0 ** -(4 + 3 * np.sin(prompt) + 0.5 * bin_ * turn[prompt])
        tone = np.sin(2 * np.pi * rng.uniform(200, 800) * time)
        sounds[key] = 0.1 * (tone + noise * rng.standard_normal(len(tone)))
    write_sounds(study, sounds)


def listen(study: Study, folder: Path, listeners: int) -> Iterator[Evidence]:
    """Let listeners take the study, and record everything that they receive in their trials."""
    url = make_url(f"sqlite:///{folder / 'answers.sqlite3'}")
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    # As a rehearsal, so that the same lists are heard every time.
    clock = FakeClock()
    settings = Settings(url, SECRET, rehearsal=True, requests_per_second=0)
    app = create_app(study, settings, clock=clock)
    site = Site(study, app, clock, str(url))
    plan = read_plan(study)
    for listener in range(listeners):
        walker = site.walker().consent().go("instructions")
        number = site.query("SELECT list_number FROM assignments ORDER BY id DESC LIMIT 1")[0][0]
        for trial in plan.lists[number]:
            yield collect(walker, listener, trial.high_side)
            walker.go("trial", **walker.answer_fields("A"))
    app.extensions["rootnote"].engine.dispose()


@pytest.mark.slow
def test_only_the_samples_tell_the_more_similar_side(tmp_path: Path) -> None:
    extra = 'catch_trials = 1\nrepeat_trials = 1\n[prescreen]\nkind = "none"\n'
    study = make_study(tmp_path / "s", prompts=15, listeners=18, trials=TRIALS, toml=extra)
    write_telling_sounds(study)
    seen = list(listen(study, tmp_path, 18))
    assert len(seen) == 18 * (TRIALS + 2)
    verdict = attack(seen)
    assert verdict.chance > UNLIKELY, verdict
    for name, plant in LEAKS.items():
        found = attack([plant(evidence) for evidence in seen])
        assert found.right / found.trials > 0.8, f"the attacker does not find {name}: {found}"


# ------------------------------------------------------------------ public streams of random numbers


def old_dither(row: int, copy: int, study: str) -> np.random.Generator:
    """The dither of earlier versions."""
    return np.random.default_rng([row, copy])


# What somebody with the source code and study.toml can try: (row, 1 for a catch copy, text of study.toml) -> stream.
PUBLIC_STREAMS: dict[str, Callable[[int, int, str], np.random.Generator]] = {
    "row and copy": old_dither,
    "seed, row and copy": lambda row, copy, study: np.random.default_rng([1, row, copy]),
    "row": lambda row, copy, study: np.random.default_rng(row),
    "an empty key": lambda row, copy, study: key_stream(SecretKey(bytes(32)), row, copy),
    "study.toml as key": lambda row, copy, study: key_stream(SecretKey(study.encode()), row, copy),
}


def key_stream(key: SecretKey, row: int, copy: int) -> np.random.Generator:
    return key.rng("dither", f"{row}/catch" if copy else str(row))


class PlantedKey(SecretKey):
    """Dither as in earlier versions: from the row, not from a secret."""

    def rng(self, *purpose: str | int) -> np.random.Generator:
        row, _, copy = str(purpose[1]).partition("/")
        return old_dither(int(row), int(bool(copy)), "")


def rows_found(folder: Path, rows: int, key: SecretKey, stream: Callable[[int, int, str], np.random.Generator]) -> int:
    """For how many of `rows` clips and as many catch copies the dither names both the row and the copy."""
    path = folder / "music.wav"
    if not path.exists():
        time = np.arange(rows * RATE // 2) / RATE
        sweep = np.sin(2 * np.pi * (200 * time + 30 * time**2))
        soundfile.write(path, (0.1 * sweep).astype(np.float32), RATE)
    sources = [ClipSource(row, path, row * 0.5) for row in range(rows)]
    index = render_all(folder / "stimuli", sources, set(range(rows)), StimuliConfig(), 0.5, key)
    names = {(row, copy): f"{row}/catch" if copy else str(row) for row in range(rows) for copy in (0, 1)}
    right = 0
    for name, entry in index.items():
        candidates = {names[of]: stream(*of, "study.toml") for of in names}
        right += find_dither((folder / "stimuli" / entry["file"]).read_bytes(), candidates) == name
    return right


def test_dither_tells_neither_the_row_nor_a_catch_copy(tmp_path: Path) -> None:
    rows = 12
    assert rows_found(tmp_path, rows, PlantedKey(bytes(32)), old_dither) == 2 * rows
    key = draw_key()
    for name, stream in PUBLIC_STREAMS.items():
        right = rows_found(tmp_path, rows, key, stream)
        assert stats.binom.sf(right - 1, 2 * rows, 1 / (2 * rows)) > UNLIKELY, f"{name}: {right} of {2 * rows}"


def test_names_tell_no_rows() -> None:
    key = draw_key()
    ordered = sorted(range(1000), key=lambda row: stimulus_name(key, str(row)))
    assert stats.spearmanr(ordered, range(1000)).pvalue > UNLIKELY


def test_study_toml_and_source_code_predict_no_side() -> None:
    """The schedule of earlier versions followed from study.seed."""
    triplets, design = make_triplets(15, 1), DesignConfig()
    streams = {
        "seed": lambda: np.random.default_rng(1),
        "an empty key": lambda: SecretKey(bytes(32)).rng("schedule"),
        "study.toml as key": lambda: SecretKey(b"study.toml").rng("schedule"),
    }
    sides = [trial.high_side for trial in make_schedule(triplets, design, draw_key().rng("schedule"))]
    planted = [trial.high_side for trial in make_schedule(triplets, design, np.random.default_rng(1))]
    for name, stream in streams.items():
        guessed = [trial.high_side for trial in make_schedule(triplets, design, stream())]
        right = sum(one == other for one, other in zip(guessed, sides, strict=True))
        assert stats.binomtest(right, len(sides)).pvalue > UNLIKELY, f"{name}: {right} of {len(sides)}"
        assert (guessed == planted) == (name == "seed")
