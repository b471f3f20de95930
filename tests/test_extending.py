"""Another installed package adds one thing of each kind, and the whole product works with it.

tests/extensions is that package: its files, and a dist-info folder with its entry points, one line for each thing. One
study uses all of them; it is built and rehearsed once.
"""

from __future__ import annotations

import contextlib
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
from flask import Flask
from sqlalchemy import make_url

from analysis.report.registry import SECTIONS
from analysis.retrieval.robustness.registry import PERTURBATIONS
from embeddings.models import registry as embedders
from embeddings.vectors import read_vectors
from server.app import create_app
from server.assignments.experiment import Experiment, utc_now
from server.db import database
from server.desk import overview, questions
from server.identity.vault import Vault, new_key
from server.irb.context import gather
from server.irb.html import render
from server.settings import Settings
from server.simulation.launch import as_recruited_by
from study import registry
from study.columns import RESPONSE_COLUMNS
from study.config import Study, load_study
from study.languages import LANGUAGES
from study.marketplaces import MARKETPLACES
from study.prescreen.registry import STEPS
from study.questionnaire import QUESTION_TYPES
from study.stimuli.storage import open_storage
from study.trial_plan import read_plan
from tests.commands import refusal, run
from tests.reference_pages import reference
from tests.study.test_build import edit, write_music

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("extending")]
MODULES = ("rootnote_example", "toy_marketplace", "bit_depth", "total_plays", "fast_answers")
REGISTRIES = (LANGUAGES, QUESTION_TYPES, STEPS, MARKETPLACES, RESPONSE_COLUMNS, SECTIONS, PERTURBATIONS)
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


def look_again() -> None:
    """Let this process look for entry points again."""
    importlib.invalidate_caches()
    registry._entry_points.cache_clear()
    registry._installed.cache_clear()
    embedders._installed.cache_clear()


def forget() -> None:
    """Let this process look for entry points again, and load what they name again."""
    look_again()
    for each in REGISTRIES:
        each._loaded.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def study(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A built and rehearsed study that uses everything in the package that a study can use."""
    base = tmp_path_factory.mktemp("extended")
    folder = base / "study"
    write_music(base / "music", 24)
    done = run("study", "init", folder, "--audio", base / "music", "--languages", "en,fr")
    assert done.returncode == 0, done.stderr
    edit(folder, 'kind = "paper" ', f'kind = "paper"\nprompts = 6\nlisteners = {LISTENERS}\ntrials = 6 ')
    edit(folder, "half_width = 0.02", "half_width = 0.03")
    edit(folder, 'embedders = ["logmel"]', 'embedders = ["brightness"]')
    edit(folder, 'kind = "link"', 'kind = "toy"')
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


@pytest.fixture(scope="module")
def exported(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the rehearsal's responses.csv."""
    folder = tmp_path_factory.mktemp("exported")
    done = run("server", "export", study.folder, "--rehearsal", "--out", folder)
    assert done.returncode == 0, done.stderr
    return next(folder.rglob("responses.csv")).parent


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_commands_and_study_toml_list_the_names(study: Study) -> None:
    assert "A toy marketplace" in run("study", "recruiters").stdout
    assert "bit-depth" in run("analysis", "robustness", "--list").stdout
    toml = (study.folder / "study.toml").read_text(encoding="utf-8")
    (names,) = [line for line in toml.splitlines() if line.startswith("embedders")]
    assert "one or more of" in names and "brightness;" in names


def test_the_reference_pages_list_the_names(package: Path) -> None:
    page, files = reference().study_toml(), reference().columns()
    assert 'type = "slider"' in page and "recruiter.toy" in page and "prescreen.loudest" in page
    assert "| `total_plays` |" in files


def test_the_study_is_built_on_the_embedder(study: Study) -> None:
    vectors, provenance = read_vectors(study.vectors("brightness"))
    assert provenance.settings["embedder"] == "brightness"
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert {trial.embedder for trials in read_plan(study).lists.values() for trial in trials} == {"brightness"}


def test_the_export_has_the_step_the_answers_and_the_column(exported: Path) -> None:
    rows = [row for row in read_csv(exported / "listeners.csv") if row["state"] == "finished"]
    assert len(rows) == LISTENERS
    assert all(row["loudest_passed"] == "1" and 0 <= int(row["q_mood"]) <= 100 for row in rows)
    responses = read_csv(exported / "responses.csv")
    assert responses
    assert all(int(row["total_plays"]) == sum(int(row[f"plays_{clip}"]) for clip in "xab") for row in responses)


def test_the_desk_shows_the_step_and_the_answers(study: Study, experiment: Experiment) -> None:
    engine = database.connect(make_url(rehearsal_url(study)))
    with database.reading(engine) as session:
        mood, favourite = questions.tallies(session, experiment)
        prescreen = overview._prescreen(session)
    engine.dispose()
    assert mood.answered == favourite.answered == LISTENERS
    assert mood.spread is not None and 0 <= mood.spread.median <= 100
    assert "The loudest noise" in prescreen


def release(study: Study, out: Path) -> tuple[str | Path, ...]:
    words = ("--licence", "CC0-1.0", "--author", "Lovelace, Ada", "--k", "2", "--unchecked", "--rehearsal")
    return ("server", "anonymize", study.folder, "--out", out, *words)


def test_the_public_release_publishes_or_names_every_question_and_column(study: Study, tmp_path: Path) -> None:
    done = run(*release(study, tmp_path / "release"))
    assert done.returncode == 0, done.stderr
    assert "q_mood: bands of" in done.stdout
    reason = "its question type does not say how answers are published"
    assert f"q_favourite: not published ({reason})" in done.stdout
    assert reason in (tmp_path / "release" / "README.md").read_text(encoding="utf-8")
    assert all(3 <= int(row["total_plays"]) <= 15 for row in read_csv(tmp_path / "release" / "responses.csv"))
    dictionary = json.loads((tmp_path / "release" / "dictionary.json").read_text(encoding="utf-8"))
    (entry,) = [entry for entry in dictionary["responses.csv"] if entry["name"] == "total_plays"]
    assert (entry["type"], entry["values"]) == ("whole number", "0 to 15")


def test_a_column_that_does_not_say_how_it_is_published_is_refused(
    study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "yawns-1.0.dist-info").mkdir()
    (tmp_path / "yawns-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: yawns\nVersion: 1.0\n")
    points = "[rootnote.response_columns]\nyawns = yawns:YAWNS\n"
    (tmp_path / "yawns-1.0.dist-info" / "entry_points.txt").write_text(points)
    (tmp_path / "yawns.py").write_text(
        "from study.columns import ResponseColumn\n"
        'YAWNS = ResponseColumn("int64", "Number of yawns", source="yawns:count", analysis="ignored")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    look_again()
    try:
        sentence = refusal(*release(study, tmp_path / "release"))
    finally:
        monkeypatch.undo()
        look_again()
    assert "'yawns' of rootnote.response_columns" in sentence and "publish" in sentence
    assert not (tmp_path / "release").exists()


def test_the_report_has_the_section(study: Study, exported: Path, tmp_path: Path) -> None:
    done = run("analysis", "report", exported / "responses.csv", "--study", study.folder, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    share = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))["fast_answers"]["brightness"]
    assert 0 <= share <= 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Fast answers" in page and f"brightness: {100 * share:.1f} % within a second." in page
    assert [float(row["fast"]) for row in read_csv(tmp_path / "fast_answers.csv")] == [share]


def test_the_perturbation_and_the_embedder_are_in_the_table_of_robustness(study: Study, tmp_path: Path) -> None:
    words = ("--study", study.folder, "--perturbation", "bit-depth", "--targets", "8", "--out", tmp_path)
    assert (done := run("analysis", "robustness", *words)).returncode == 0, done.stderr
    rows = read_csv(tmp_path / "robustness.csv")
    assert {(row["embedder"], row["perturbation"]) for row in rows} == {("brightness", "bit-depth")}
    assert [float(row["level"]) for row in rows] == [4, 6, 8, 12]
    similarity = [float(row["mean_similarity"]) for row in rows]
    assert similarity == sorted(similarity) and similarity[-1] > 0.99
    assert "Bit depth" in (tmp_path / "robustness.html").read_text(encoding="utf-8")


def test_the_packet_describes_the_marketplace_the_step_the_questions_and_the_language(study: Study) -> None:
    page = render(gather(study, {}, datetime(2026, 3, 1, tzinfo=UTC)), [])
    assert "chooses which of three noises is the loudest" in page
    assert "a position on a slider from 0 to 100" in page and "colour" in page
    assert "English and French" in page
    assert "Toy Panel" in page


@contextlib.contextmanager
def serving(study: Study, folder: Path) -> Iterator[Flask]:
    """The web application on an empty database."""
    url = make_url(f"sqlite:///{folder / 'empty.sqlite3'}")
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    app = create_app(study, Settings(url, SECRET, vault=Vault([new_key()])))
    yield app
    app.extensions["rootnote"].engine.dispose()


def test_the_marketplace_may_frame_the_pages(study: Study, tmp_path: Path) -> None:
    with serving(study, tmp_path) as app:
        policy = app.test_client().get("/healthz").headers["Content-Security-Policy"]
    assert "frame-ancestors https://toy.example.org" in policy


def test_pages_are_in_the_language_and_in_english_where_it_has_no_translation(study: Study, tmp_path: Path) -> None:
    with as_recruited_by(study, "link") as by_link, serving(by_link, tmp_path) as app:
        page = app.test_client().get("/take?lang=fr").text
        assert '<html lang="fr" dir="ltr">' in page and "Bonjour." in page
        assert "Français" in page and "Accessibility" in page
        with app.test_request_context("/take?lang=fr"):
            words = app.jinja_env.from_string('{{ _("Which noise is the loudest?") }}|{{ _("Third noise") }}').render()
    assert words == "Quel bruit est le plus fort ?|Third noise"


def test_what_a_simulated_listener_cannot_answer_is_one_sentence(
    study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(study.folder.parent, tmp_path / "copy", copy_function=shutil.copy2)
    monkeypatch.delattr(STEPS["loudest"], "simulate")
    sentence = refusal("server", "rehearse", tmp_path / "copy" / "study", "--listeners", "1", "--fail-prescreen", "0")
    assert "prescreen step 'loudest'" in sentence and "simulate" in sentence
