"""An attacker collects all that listeners get but the sound itself, and learns from it which side is more similar.

The stimuli are such that the attack would be worth while: the more similar a clip is to X, the nearer it is in packed
size, as with music.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sqlalchemy import make_url

from embeddings.provenance import read_json, write_json
from server.app import create_app
from server.assignments.trials import SLOTS
from server.db import database
from server.settings import Settings
from study.config import Study
from study.config_sections import StimuliConfig
from study.stimuli.flac import INFO_END
from study.stimuli.render import fill_up_all, render
from study.trial_plan import read_plan
from tests.paper_study import CLIPS_PER_PROMPT, make_study
from tests.server.conftest import SECRET, FakeClock, Site, Walker

TRIALS = 10
RATE = 44100


def write_stimuli(study: Study, *, filled_up: bool) -> None:
    """Render clips of noise and tone: each prompt has its share of noise, its clips the less like it the more other."""
    content, provenance = read_json(study.stimuli_index, "stimuli", "")
    rng = np.random.default_rng(1)
    turn = rng.choice([-1, 1], 100)
    for key, entry in content["clips"].items():
        prompt, bin_ = divmod(int(key.split("/")[0]), CLIPS_PER_PROMPT)
        noise = 2.0 ** -(4 + 3 * np.sin(prompt) + 0.5 * bin_ * turn[prompt])
        tone = np.sin(2 * np.pi * rng.uniform(200, 800) * np.arange(round(0.1 * RATE)) / RATE)
        flac = render(0.1 * (tone + noise * rng.standard_normal(len(tone))), StimuliConfig(), rng).flac
        (study.stimuli / entry["file"]).write_bytes(flac)
    if filled_up:
        fill_up_all(study.stimuli, content["clips"])
    write_json(study.stimuli_index, content, provenance)


def collect(study: Study, folder: Path, listeners: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What every listener gets: features [trial, feature], whether A is more similar, and whose trial it is."""
    url = make_url(f"sqlite:///{folder / 'answers.sqlite3'}")
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    # As a rehearsal, so that the same lists are heard every time.
    clock = FakeClock()
    app = create_app(study, Settings(url, SECRET, rehearsal=True), clock=clock)
    site = Site(study, app, clock, str(url))
    plan, rows, labels, owners = read_plan(study), [], [], []
    for listener in range(listeners):
        walker = site.walker().consent().go("instructions")
        number = site.query("SELECT list_number FROM assignments ORDER BY id DESC LIMIT 1")[0][0]
        for trial in plan.lists[number]:
            rows.append(observe(walker))
            labels.append(trial.high_side == "A")
            owners.append(listener)
            walker.go("trial", **walker.answer_fields("A"))
    site.app.extensions["rootnote"].engine.dispose()
    return np.array(rows, dtype=float), np.array(labels), np.array(owners)


def observe(walker: Walker) -> np.ndarray:
    """Features of the page and of each sound; then how A and B compare with each other and with X."""
    page = walker.html
    addresses = {slot: walker.sound(slot) for slot in SLOTS}
    seen = {}
    for slot in SLOTS:
        began = time.perf_counter()
        reply = walker.client.get(addresses[slot])
        took = time.perf_counter() - began
        name = addresses[slot].removeprefix("/audio/")
        headers = [float(len(value)) for _, value in sorted(reply.headers)]
        numbers = [float(number) for _, value in sorted(reply.headers) for number in re.findall(r"\d+", value)[:1]]
        seen[slot] = np.array(
            [
                *(reply.status_code, len(reply.data), took, len(name), page.index(name), page.rindex(name)),
                *(ord(letter) for letter in name[:12]),
                *headers,
                *numbers,
                *reply.data[:INFO_END],  # what comes before the sound in the file
            ],
            dtype=float,
        )
    x, a, b = (seen[slot] for slot in SLOTS)
    nearer = np.abs(a - x) - np.abs(b - x)
    return np.concatenate([[len(page)], a, b, a - b, nearer, np.sign(nearer)])


def guess(features: np.ndarray, labels: np.ndarray, owners: np.ndarray) -> int:
    """How many trials are guessed rightly by a ridge regression that learns from the other listeners' trials."""
    right = 0
    for fold in range(6):
        test = owners % 6 == fold
        mean, scale = features[~test].mean(axis=0), features[~test].std(axis=0) + 1e-9
        train, new = (np.clip((features[which] - mean) / scale, -10, 10) for which in (~test, test))
        weights = np.linalg.solve(train.T @ train + 30 * np.eye(train.shape[1]), train.T @ (2.0 * labels[~test] - 1))
        right += int(np.sum((new @ weights > 0) == labels[test]))
    return right


@pytest.mark.slow
@pytest.mark.parametrize(("filled_up", "listeners"), [(True, 18), (False, 9)])
def test_nothing_but_the_sound_tells_the_more_similar_side(tmp_path: Path, filled_up: bool, listeners: int) -> None:
    extra = 'catch_trials = 1\nrepeat_trials = 1\n[prescreen]\nkind = "none"\n'
    study = make_study(tmp_path / "s", prompts=15, listeners=listeners, trials=TRIALS, toml=extra)
    write_stimuli(study, filled_up=filled_up)
    features, labels, owners = collect(study, tmp_path, listeners)
    n = len(labels)
    assert n == listeners * (TRIALS + 2)
    right = guess(features, labels, owners)
    if filled_up:
        assert stats.binomtest(right, n).pvalue > 0.0001, f"{right} of {n}"
    else:
        assert right / n > 0.8, "the attacker is no fool: files as they are packed give it away"
