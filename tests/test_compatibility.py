"""Files made by version 0.1.0 keep working: a study, its frozen plan, its databases and its report.

`fixtures/0.1.0/README.txt` says what they are. Each test works on a copy.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import rootnote
from server.app import create_app
from server.settings import read_settings
from study.config import load_study
from study.export_manifest import read_manifest
from study.leaks import LEAKS as BUILD_LEAKS
from study.stimuli.storage import mimetype

FIXTURES = Path(__file__).parent / "fixtures" / "0.1.0"
MUSIC_TIME = 1_767_225_600  # 2026-01-01T00:00:00Z: Git does not keep the times of files


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the study folder, with the environment that its databases need."""
    monkeypatch.setenv("ROOTNOTE_SECRET", "test-only-secret-of-the-fixtures-0.1.0")
    monkeypatch.setenv("LOGNAME", "researcher")
    monkeypatch.delenv("ROOTNOTE_DATABASE_URL", raising=False)
    shutil.copytree(FIXTURES / "study", tmp_path / "study")
    for path in (tmp_path / "study" / "music").iterdir():
        os.utime(path, (MUSIC_TIME, MUSIC_TIME))
    return tmp_path / "study"


def run(*words: object) -> Result:
    done = CliRunner().invoke(rootnote.cli, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()) < 1 << 20


def test_check_reads_the_built_study(study: Path) -> None:
    found = json.loads(run("study", "check", study, "--json").stdout)
    assert found["built"]
    assert "study.seed" in found["warnings"][0]
    assert (found["name"], found["embedders"]) == ("Fixture study", ["logmel"])
    assert (found["listeners"], found["trials_per_listener"]) == (8, 5)


def test_build_finds_nothing_to_do(study: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (study / "build").rglob("*") if path.is_file()}
    done = run("study", "build", study)
    assert done.stdout.count("(up to date)") == 6
    after = {path: path.stat().st_mtime_ns for path in (study / "build").rglob("*") if path.name != ".lock"}
    assert {path: time for path, time in after.items() if path.is_file()} == before


def test_the_frozen_plan_holds(study: Path) -> None:
    former = json.loads((study / "preregistration.json").read_text())
    now = json.loads(run("study", "freeze", study, "--json").stdout)
    assert not now["written"]
    assert now["hash"] == former["hash"]


def test_the_rehearsal_database_opens(study: Path) -> None:
    run("server", "migrate", study, "--rehearsal")
    found = json.loads(run("server", "status", study, "--rehearsal", "--json").stdout)
    assert found["places"] == {"all": 8, "free": 0, "held": 0, "filled": 8}
    assert found["responses"] == 46


def test_the_real_database_opens_and_its_log_is_whole(study: Path) -> None:
    run("server", "migrate", study)
    run("server", "audit", study, "--verify")
    found = json.loads(run("server", "status", study, "--json").stdout)
    assert found["places"] == {"all": 8, "free": 3, "held": 0, "filled": 5}
    assert found["responses"] == 23


def test_the_rehearsal_exports_the_same_responses(study: Path, tmp_path: Path) -> None:
    run("server", "migrate", study, "--rehearsal")
    run("server", "export", study, "--rehearsal", "--out", tmp_path / "export")
    old = (study / "rehearsal" / "responses.csv").read_text().splitlines()
    new = (tmp_path / "export" / "responses.csv").read_text().splitlines()
    assert _columns(old, old[0]) == _columns(new, old[0])


# Statistics that were corrected after 0.1.0; the changelog says how.
REVISED = {"dependence", "mixed", "psychometric", "reliability", "reliability_in_words"}


def test_the_report_has_the_same_numbers(study: Path, tmp_path: Path) -> None:
    note = "Made for tests: the listeners are simulated."  # its export does not state the leaks; the folder does
    responses = study / "rehearsal" / "responses.csv"
    run("analysis", "report", responses, "--study", study, "--out", tmp_path / "report", "--note", note)
    for name in ("table1.json", "numbers.json"):
        old, new = (json.loads((place / name).read_text()) for place in (FIXTURES / "report", tmp_path / "report"))
        for key in REVISED & set(old):
            assert new[key], key
            del old[key]
        _require_same(old, new, name)
    assert "It was fixed in the frozen plan." in " ".join(new["claims"])
    assert new["primary_test"]["primary"] == "exact_holm"
    assert set(json.loads((tmp_path / "report" / "numbers.json").read_text())["leaks"]) == LEAKS


# ------------------------------------------------------------------ blinding


LEAKS = {"schedule", "layout", "dither"}


@pytest.fixture
def fresh(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study with an empty database: it was built with 0.1.0, and nobody has consented."""
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", f"sqlite:///{tmp_path / 'fresh.sqlite3'}")
    run("server", "migrate", study)
    return study


@pytest.mark.parametrize("command", ["run", "open"])
def test_an_old_build_is_refused_before_anyone_consents(fresh: Path, command: str) -> None:
    refused = CliRunner().invoke(rootnote.cli, ["server", command, str(fresh)])
    assert refused.exit_code == 1
    assert f"rootnote study build {fresh} --redraw" in str(refused.exception)
    assert "study.seed" in str(refused.exception) and "\n" not in str(refused.exception)


def test_the_named_command_rebuilds_an_old_study(fresh: Path) -> None:
    assert "--redraw" in run("study", "build", fresh).stdout, "the command is shown, and nothing else changes"
    assert CliRunner().invoke(rootnote.cli, ["server", "run", str(fresh)]).exit_code == 1
    done = run("study", "build", fresh, "--redraw")
    assert done.stdout.count("(up to date)") == 4 and "--redraw" not in done.stdout
    assert {path.suffix for path in (fresh / "build/stimuli").iterdir()} == {".wav"}
    site = create_app(load_study(fresh), read_settings(load_study(fresh), os.environ))
    site.extensions["rootnote"].engine.dispose()
    assert "leaks" not in json.loads(run("server", "status", fresh, "--json").stdout)


def test_an_old_study_that_has_begun_continues_and_says_what_it_reveals(study: Path, tmp_path: Path) -> None:
    run("server", "migrate", study)
    run("server", "open", study)
    run("server", "rehearse", study, "--listeners", "1")  # has a database in which nobody has consented
    site = create_app(load_study(study), read_settings(load_study(study), os.environ))
    context = site.extensions["rootnote"]
    stimulus = next(iter(context.experiment.plan.stimuli.values()))
    assert mimetype(stimulus) == "audio/flac" and context.download_bytes > 1000
    context.engine.dispose()
    assert set(json.loads(run("server", "status", study, "--json").stdout)["leaks"]) == LEAKS
    assert "study.seed" in run("server", "status", study).stdout
    run("server", "sync", study)
    run("server", "pay", study, "--yes")
    run("server", "export", study, "--out", tmp_path / "export")
    manifest = read_manifest(tmp_path / "export")
    assert manifest is not None and set(manifest.leaks) == LEAKS
    run("analysis", "report", tmp_path / "export" / "responses.csv", "--out", tmp_path / "report")
    report = (tmp_path / "report" / "report.html").read_text()
    assert all(text in report for text in BUILD_LEAKS.values())
    assert set(json.loads((tmp_path / "report" / "numbers.json").read_text())["leaks"]) == LEAKS


def _columns(lines: list[str], header: str) -> list[list[str]]:
    """The columns that version 0.1.0 wrote; later versions may add some."""
    names = lines[0].split(",")
    chosen = [names.index(name) for name in header.split(",")]
    return [[line.split(",")[place] for place in chosen] for line in lines]


def _require_same(old: Any, new: Any, where: str) -> None:
    """Everything that the old file states is in the new one; numbers may differ in their last digits."""
    if where.endswith(".versions"):
        return
    if isinstance(old, dict):
        assert set(old) <= set(new), where
        for key in old:
            _require_same(old[key], new[key], f"{where}.{key}")
    elif isinstance(old, list):
        assert len(old) == len(new), where
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            _require_same(one, other, f"{where}[{place}]")
    elif isinstance(old, float):
        assert new == pytest.approx(old, rel=1e-6, abs=1e-9), where
    elif isinstance(old, str) and " " in old:
        assert isinstance(new, str) and new, f"{where}: sentences may be reworded"
    else:
        assert new == old, where
