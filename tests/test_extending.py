"""Another installed package adds one thing of each kind, and the whole product works with it.

tests/extensions is that package: its files, and a dist-info folder with its entry points. A new kind of extension
adds its file and its entry point there, what it needs to `STUDY`, and a test here.
"""

from __future__ import annotations

import csv
import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from sqlalchemy import make_url

from embeddings.models import registry as embedders
from embeddings.vectors import read_vectors
from server.app import create_app
from server.assignments.experiment import Experiment, utc_now
from server.db import database
from server.desk import overview, questions
from server.irb.context import gather
from server.irb.html import render
from server.settings import Settings
from study import registry
from study.config import Study, load_study
from study.languages import LANGUAGES
from study.prescreen.registry import STEPS
from study.questionnaire import QUESTION_TYPES
from study.stimuli.storage import open_storage
from study.trial_plan import read_plan
from tests.commands import refusal, run
from tests.study.test_build import edit, write_music

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("extending")]
PACKAGE = "rootnote_example"
REGISTRIES = (LANGUAGES, QUESTION_TYPES, STEPS)
SECRET = "a secret of the tests that is long enough"
LISTENERS = 6
STUDY = """
[[questions]]
id = "mood"
type = "slider"
text = "How do you feel?"
[questions.translations.fr]
text = "Comment allez-vous ?"
[[questions]]
id = "favourite"
type = "colour"
text = "Which colour do you like?"
[questions.translations.fr]
text = "Quelle couleur aimez-vous ?"
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package as if it were installed, for this process and for those that it starts."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    shutil.copytree(Path(__file__).parent / "extensions", folder)
    for po in folder.rglob("*.po"):
        with po.with_suffix(".mo").open("wb") as file:
            write_mo(file, read_po(po.read_bytes().splitlines()))
    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        patch.setenv("ROOTNOTE_SECRET", SECRET)
        yield folder
    forget()


def forget() -> None:
    """Let this process look for entry points again."""
    importlib.invalidate_caches()
    registry._entry_points.cache_clear()
    embedders._installed.cache_clear()
    for each in REGISTRIES:
        each._loaded.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def study(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A built and rehearsed study that uses everything in the package."""
    base = tmp_path_factory.mktemp("extended")
    folder = base / "study"
    write_music(base / "music", 24)
    done = run("study", "init", folder, "--audio", base / "music", "--languages", "en,fr")
    assert done.returncode == 0, done.stderr
    edit(folder, 'kind = "paper" ', f'kind = "paper"\nprompts = 6\nlisteners = {LISTENERS}\ntrials = 6 ')
    edit(folder, "half_width = 0.02", "half_width = 0.03")
    edit(folder, 'steps = ["tones"]  ', 'steps = ["tones", "loudest"]\nloudest = { items = 2, difference_db = 9 }  ')
    toml = folder / "study.toml"
    toml.write_text(toml.read_text(encoding="utf-8").partition("[[questions]]")[0] + STUDY, encoding="utf-8")
    assert (done := run("study", "build", folder)).returncode == 0, done.stderr
    words = ("--fail-prescreen", "0.3", "--abandon", "0", "--json")
    assert (done := run("server", "rehearse", folder, *words)).returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcomes"]["finished"] == LISTENERS
    return load_study(folder)


@pytest.fixture
def experiment(study: Study) -> Experiment:
    return Experiment(study.config, read_plan(study), utc_now, open_storage(study), rehearsal=True)


def rehearsal_url(study: Study) -> str:
    return f"sqlite:///{study.folder / 'rehearsal.sqlite3'}"


def test_the_settings_of_a_step_are_checked_by_its_own_model(study: Study, tmp_path: Path) -> None:
    assert study.config.prescreen.section("loudest").items == 2
    (tmp_path / "study.toml").write_text(
        '[study]\nname = "T"\n[corpus]\naudio = "m"\n[prescreen.loudest]\ndiference_db = 3\n'
    )
    assert "'prescreen.loudest.diference_db'; did you mean 'difference_db'?" in refusal("study", "check", tmp_path)


def test_the_export_has_the_step_and_the_answers(study: Study, tmp_path: Path) -> None:
    done = run("server", "export", study.folder, "--rehearsal", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    with next(tmp_path.rglob("listeners.csv")).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "finished"]
    assert len(rows) == LISTENERS
    assert all(row["loudest_passed"] == "1" and 0 <= int(row["q_mood"]) <= 100 for row in rows)


def test_the_desk_shows_the_step_and_the_answers(study: Study, experiment: Experiment) -> None:
    engine = database.connect(make_url(rehearsal_url(study)))
    with database.reading(engine) as session:
        mood, favourite = questions.tallies(session, experiment)
        prescreen = overview._prescreen(session)
    engine.dispose()
    assert mood.answered == favourite.answered == LISTENERS
    assert mood.spread is not None and 0 <= mood.spread.median <= 100
    assert "The loudest noise" in prescreen


def test_the_public_release_publishes_or_names_every_question(study: Study, tmp_path: Path) -> None:
    words = ("--licence", "CC0-1.0", "--author", "Lovelace, Ada", "--k", "2", "--rehearsal")
    done = run("server", "anonymize", study.folder, "--out", tmp_path / "release", *words)
    assert done.returncode == 0, done.stderr
    assert "q_mood: bands of" in done.stdout
    reason = "its question type does not say how answers are published"
    assert f"q_favourite: not published ({reason})" in done.stdout
    assert reason in (tmp_path / "release" / "README.md").read_text(encoding="utf-8")


def test_the_packet_describes_the_step_the_questions_and_the_language(study: Study) -> None:
    page = render(gather(study, {}, datetime(2026, 3, 1, tzinfo=UTC)), [])
    assert "chooses which of three noises is the loudest" in page
    assert "a position on a slider from 0 to 100" in page and "colour" in page
    assert "English and French" in page


def test_pages_are_in_the_language_and_in_english_where_it_has_no_translation(study: Study, tmp_path: Path) -> None:
    url = make_url(f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    app = create_app(study, Settings(url, SECRET))
    page = app.test_client().get("/take?lang=fr").text
    assert '<html lang="fr" dir="ltr">' in page and "Bonjour." in page
    assert "Français" in page and "Accessibility" in page
    with app.test_request_context("/take?lang=fr"):
        words = app.jinja_env.from_string('{{ _("Which noise is the loudest?") }}|{{ _("Third noise") }}').render()
    assert words == "Quel bruit est le plus fort ?|Third noise"
    app.extensions["rootnote"].engine.dispose()


def test_an_embedder_makes_unit_vectors_of_the_corpus(study: Study, tmp_path: Path) -> None:
    words = ("--corpus", study.corpus, "--embedder", "brightness", "--out", tmp_path / "v.npy")
    assert (done := run("embeddings", "embed", *words)).returncode == 0, done.stderr
    vectors, provenance = read_vectors(tmp_path / "v.npy")
    assert provenance.settings["embedder"] == "brightness"
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_what_a_simulated_listener_cannot_answer_is_one_sentence(
    study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(study.folder.parent, tmp_path / "copy", copy_function=shutil.copy2)
    monkeypatch.delattr(STEPS["loudest"], "simulate")
    sentence = refusal("server", "rehearse", tmp_path / "copy" / "study", "--listeners", "1", "--fail-prescreen", "0")
    assert "prescreen step 'loudest'" in sentence and "simulate" in sentence
