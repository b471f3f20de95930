"""The public release: what a stranger gets, what an attacker can find, and when it is refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner, Result
from sqlalchemy import Engine, make_url, select, text
from sqlalchemy.orm import Session

import rootnote
from analysis.preregistration.deviations import check_preregistration
from analysis.preregistration.plan import apply_plan, find_plan
from analysis.responses.exclusions import RULES, Thresholds
from analysis.responses.load import read_responses
from embeddings.errors import RootnoteError
from server.app import create_app
from server.assignments.places import seeded_turns
from server.audit import study_control
from server.db import database
from server.db.models import Answer, Assignment, AssignmentState, LogEntry, Response
from server.export.responses import response_rows
from server.participant.privacy_views import PUBLISHED
from server.public_release.responses import coarse_ms, coarse_time
from server.settings import Settings
from study.columns import RESPONSE_COLUMNS, CoarseTime
from study.config import Study, load_study
from study.preregistration.create import freeze
from study.trial_plan import read_plan
from tests.analysis.preregistration.test_plan import build
from tests.server.conftest import SECRET, FakeClock
from tests.server.desk.half_finished import fill

TOML = """\
[storage]
[recruiter.prolific]
workspace = "workspace-4711"
project = "project-0815"
[embedding]
embedders = ["logmel"]
clap = {checkpoint = "/home/anna/weights/630k.pt"}
[exclusions]
rules = ["incomplete", "too_fast"]
fastest_seconds = 9.876
[[questions]]
id = "age"
type = "age_band"
[[questions]]
id = "years"
type = "number"
text = "How many years have you played?"
most = 80
[[questions]]
id = "home"
type = "single"
text = "Where are you?"
options = ["=At home", "Elsewhere"]
[[questions]]
id = "remarks"
type = "text"
text = "Anything else?"
"""
ENDS = {
    AssignmentState.FINISHED: 20,
    AssignmentState.WITHDRAWN: 2,
    AssignmentState.EXPIRED: 1,
    AssignmentState.SCREENED_OUT: 1,
}
OPTIONS = ("--licence", "CC-BY-4.0", "--author", "Lovelace, Ada, 0000-0002-1825-0097", "--author", "The Listening Lab")
RULE = CoarseTime(step_ms=100, longest_ms=300_000)
TITLE = 'Who: "hears"\u2028what?'
FREE_TEXT = "My name is Anna and I live at number 12"


@dataclass
class ReleaseSite:
    """A study with a filled database, and the command."""

    study: Study
    url: str
    engine: Engine
    folder: Path

    def anonymize(self, out: Path, *words: str, unchecked: bool = True) -> Result:
        given = [str(self.study.folder), "--out", str(out), *OPTIONS, *words, *(["--unchecked"] if unchecked else [])]
        return CliRunner().invoke(
            rootnote.cli,
            ["server", "anonymize", *given],
            env={"ROOTNOTE_DATABASE_URL": self.url, "ROOTNOTE_SECRET": SECRET},
        )

    def release(self, name: str = "release", *words: str, unchecked: bool = True) -> Path:
        done = self.anonymize(self.folder / name, *words, unchecked=unchecked)
        assert done.exit_code == 0, (done.output, done.exception)
        return self.folder / name

    def refusal(self, *words: str) -> str:
        """The error of a refused release, which must leave no files."""
        done = self.anonymize(self.folder / "refused", *words)
        assert isinstance(done.exception, RootnoteError), done.output
        assert not [path for path in self.folder.iterdir() if "refused" in path.name]
        return str(done.exception)

    def close(self) -> ReleaseSite:
        with database.writing(self.engine) as session, session.begin():
            study_control.close(session, "anna", "all have listened", FakeClock().now)
        return self

    def log(self) -> list[LogEntry]:
        with Session(self.engine) as session:
            return list(session.scalars(select(LogEntry).order_by(LogEntry.id)))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("release") / "my-study", TOML, listeners=24).folder


def open_site(study: Study, url: str, folder: Path) -> ReleaseSite:
    """A fresh database with the study's places."""
    engine = database.connect(make_url(url), SECRET)
    database.migrate(engine)
    create_app(study, Settings(make_url(url), SECRET)).extensions["rootnote"].engine.dispose()
    return ReleaseSite(study, url, engine, folder)


def add_listeners(site: ReleaseSite) -> None:
    """Add listeners; those who finished have answered the questions."""
    fill(site.engine, site.study, FakeClock().now, ENDS)
    rng = np.random.default_rng(4)
    with database.writing(site.engine) as session, session.begin():
        for number, one in enumerate(
            session.scalars(select(Assignment).where(Assignment.state == AssignmentState.FINISHED))
        ):
            given = {
                "age": str(rng.choice(["18 to 24", "25 to 34"])) if number else "65 or older",
                "years": str(int(rng.integers(0, 12))) if number else "61",
                "home": "=At home" if rng.random() < 0.5 else "Elsewhere",
                "remarks": FREE_TEXT,
            }
            session.add_all(
                Answer(assignment_id=one.id, question=question, value=value, answered_at=one.consented_at)
                for question, value in given.items()
            )


@pytest.fixture
def empty_site(built: Path, database_url: str, tmp_path: Path) -> Iterator[ReleaseSite]:
    site = open_site(load_study(built), database_url, tmp_path)
    yield site
    site.engine.dispose()


@pytest.fixture
def site(empty_site: ReleaseSite) -> ReleaseSite:
    add_listeners(empty_site)
    return empty_site


@pytest.fixture(scope="module")
def published(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReleaseSite]:
    """A closed study on SQLite with a release of it, `folder`/release: for tests that change neither."""
    folder = tmp_path_factory.mktemp("published")
    site = open_site(load_study(built), f"sqlite:///{folder / 'answers.sqlite3'}", folder)
    add_listeners(site)
    site.close().release("release", "--title", TITLE)
    yield site
    site.engine.dispose()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def true_rows(site: ReleaseSite) -> list[dict[str, Any]]:
    with Session(site.engine) as session:
        return list(response_rows(session, site.study, read_plan(site.study)))


# ------------------------------------------------------------------ what a stranger gets


@pytest.mark.both_databases
def test_responses_are_those_of_the_study_with_new_names_and_coarser_times(site: ReleaseSite) -> None:
    rows = table(site.close().release() / "responses.csv")
    with Session(site.engine) as session:
        withdrawn = set(
            session.scalars(select(Assignment.pseudonym).where(Assignment.state == AssignmentState.WITHDRAWN))
        )
    true = [row for row in true_rows(site) if row["assignment"] not in withdrawn]
    same = ("position", "kind", "bin_high", "bin_low", "similarity_high", "high_side", "choice", "agreed", "completed")
    expected = Counter((*(str(row[name]) for name in same), coarse_ms(row["response_ms"], 9876, RULE)) for row in true)
    assert Counter((*(row[name] for name in same), int(row["response_ms"])) for row in rows) == expected
    assert all(abs(coarse_ms(row["response_ms"], 9876, RULE) - row["response_ms"]) < 100 for row in true)
    gone = {"answered_at", "seconds_x", "play_order", "focus_losses", "sample_rate", "output_latency_ms", "agent_class"}
    assert not gone & set(rows[0])
    parquet = pq.read_table(site.folder / "release" / "responses.parquet").to_pylist()
    assert [{name: str(value) for name, value in row.items()} for row in parquet] == rows


def test_a_bundle_is_complete_and_identifies_no_one(published: ReleaseSite) -> None:
    site, bundle = published, published.folder / "release"
    assert {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()} == {
        "responses.csv", "responses.parquet", "listeners.csv", "dictionary.json", "dictionary.md", "study.toml",
        "build/logmel.bins.json", "README.md", "LICENSE", "CITATION.cff", "SHA256SUMS", "export.json",
    }  # fmt: skip
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=bundle, capture_output=True, check=False)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 11
    everything = b"".join(path.read_bytes() for path in bundle.rglob("*") if path.is_file()).decode("utf-8", "replace")
    with Session(site.engine) as session:
        people = list(session.scalars(select(Assignment)))
        secret = {name for one in people for name in (one.pseudonym, one.listener.pseudonym, one.completion_code)}
        secret |= {one.consented_at.isoformat()[:10] for one in people}
    secret |= {FREE_TEXT, "workspace-4711", "project-0815", "anna", str(site.study.folder)}
    assert not [word for word in secret if word in everything]
    written = "".join(path.read_text("utf-8") for path in bundle.rglob("*") if path.suffix in (".csv", ".json", ".md"))
    assert not re.search(r":\d\d(\.\d+)?(Z|\+00:00)", written)  # no time of the day
    described = json.loads((bundle / "dictionary.json").read_text(encoding="utf-8"))
    for name in ("responses.csv", "listeners.csv"):
        assert [entry["name"] for entry in described[name]] == list(table(bundle / name)[0])
        assert all(entry["meaning"] for entry in described[name])
    readme = (bundle / "README.md").read_text(encoding="utf-8")
    assert "24 listeners consented: finished 20, withdrawn 2, expired 1, screened out 1." in readme
    assert "`q_remarks` (free text)" in readme and "CC" in (bundle / "LICENSE").read_text()


@pytest.mark.parametrize("fastest", [1000.2, 1001, 1003, 1099.5, 1100])
def test_coarser_times_stay_on_their_side_of_too_fast(fastest: float) -> None:
    column = RESPONSE_COLUMNS["elapsed_s"].publish
    assert isinstance(column, CoarseTime)
    milliseconds = range(900, 1300)
    true = [number / 1000 for number in milliseconds]
    published = [coarse_time(one, fastest, column) for one in true]
    thresholds = Thresholds(fastest_ms=fastest)

    def are_fast(times: list[float]) -> list[bool]:
        frame = pd.DataFrame({"response_ms": 0, "elapsed_s": times})
        return list(RULES["too_fast"].mask(frame, thresholds))

    assert are_fast(true) == [number < fastest for number in milliseconds] == are_fast(published)


def test_the_citation_is_a_citation_file(published: ReleaseSite) -> None:
    found = yaml.safe_load((published.folder / "release" / "CITATION.cff").read_text(encoding="utf-8"))
    assert found["cff-version"] == "1.2.0" and found["type"] == "dataset"
    assert found["title"] == TITLE
    assert found["authors"] == [
        {"family-names": "Lovelace", "given-names": "Ada", "orcid": "https://orcid.org/0000-0002-1825-0097"},
        {"name": "The Listening Lab"},
    ]
    assert found["license"] == "CC-BY-4.0" and len(found["date-released"]) == 10


def test_the_design_is_published_without_names_and_places(published: ReleaseSite) -> None:
    bundle = published.folder / "release"
    own, found = published.study.config, load_study(bundle).config
    assert (found.study.contact, found.corpus.audio) == ("", "not-published")
    assert found.embedding.clap is not None and found.embedding.clap.checkpoint == "630k.pt"
    for section in ("design", "bins", "exclusions", "prescreen", "questions", "pay", "stimuli", "player"):
        assert getattr(found, section) == getattr(own, section)
    withheld = json.loads((bundle / "export.json").read_text())["withheld"]
    assert "recruiter.prolific.project" in withheld and "embedding.clap.checkpoint" in withheld


@pytest.mark.slow
def test_the_report_from_the_bundle_alone_has_the_studys_table(built: Path, tmp_path: Path) -> None:
    study = load_study(shutil.copytree(built, tmp_path / "my-study"))
    freeze(study, FakeClock().now)
    site = open_site(study, f"sqlite:///{tmp_path / 'answers.sqlite3'}", tmp_path)
    add_listeners(site)
    with database.writing(site.engine) as session, session.begin():
        for answer in session.scalars(select(Response)):
            answer.response_ms, answer.elapsed_s = 9876, 9.8 + 0.02 * answer.position  # some are just too fast
    moved = site.close().release("release", unchecked=False).rename(tmp_path / "downloads")
    true = pd.DataFrame(true_rows(site))
    site.engine.dispose()
    counts = true[(true["completed"] == 1) & (true["elapsed_s"] >= 9.876)].groupby(["bin_high", "bin_low"])["agreed"]
    pairs = [row for row in table(moved / "table1.csv") if row["bin_low"] in ("2", "3", "4")]
    found = {(int(row["bin_high"]), int(row["bin_low"])): (int(row["agreed"]), int(row["n"])) for row in pairs}
    assert found == {pair: (own.sum(), len(own)) for pair, own in counts}
    assert 0 < sum(n for _, n in found.values()) < 120, "too_fast leaves some out"
    planned = find_plan(moved / "responses.csv", None, None)
    planned, read = apply_plan(planned, read_responses(moved / "responses.csv", planned.exclusions), named=False)
    registered = check_preregistration(read, planned.study, planned.frozen, "two-sided")
    plan = json.loads((study.folder / "preregistration.json").read_text())
    assert (registered.hash, registered.as_exported) == (plan["hash"], True)
    assert not [text for text in registered.deviations if "study.toml" in text or "edited" in text]
    assert "every digit of Table 1" in (moved / "README.md").read_text()


# ------------------------------------------------------------------ what an attacker finds


def test_someone_who_knows_a_listener_finds_k_candidates(published: ReleaseSite) -> None:
    people = pd.read_csv(published.folder / "release" / "listeners.csv", dtype=str, keep_default_na=False)
    finished = people[people["state"] == "finished"]
    personal = [name for name in finished if name not in ("assignment", "listener", "state", "prescreen")]
    assert {"q_age", "q_years"} <= set(personal) and not [name for name in personal if "remarks" in name]
    assert finished.groupby(personal).size().min() >= 5
    others = people[people["state"] != "finished"]
    assert (others[personal] == "").all().all()
    # The only listener above 64 must not be visible, nor that there is one.
    assert "65 or older" not in set(finished["q_age"]) and finished["q_age"].eq("withheld").sum() >= 5


def test_two_releases_have_no_name_in_common(published: ReleaseSite) -> None:
    assert (
        "Nothing that listeners said about themselves"
        in (published.release("none", "--k", "21") / "README.md").read_text()
    )
    words = ("--licence", "CC0-1.0", "--k", "4", "--leave-out", "age", "--with-clips")
    one, other = published.folder / "release", published.release("again", *words)
    assert "q_age" in table(one / "listeners.csv")[0] and "q_age" not in table(other / "listeners.csv")[0]
    assert {row["clip"] for row in table(other / "clips.csv")} == {
        row[name] for row in table(other / "responses.csv") for name in ("prompt", "clip_high", "clip_low")
    }
    named = ("listener", "assignment", "trial", "prompt", "clip_high", "clip_low")
    files = [table(folder / "responses.csv") + table(folder / "listeners.csv") for folder in (one, other)]
    names = [{row[name] for row in rows for name in named if name in row} for rows in files]
    assert not names[0] & names[1] and min(map(len, names)) > 100
    orders = [[row["choice"] for row in table(folder / "responses.csv")] for folder in (one, other)]
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]


def test_an_attacker_with_the_study_folder_cannot_tell_who_came_when(site: ReleaseSite) -> None:
    guessed, true = attack(site, site.close().release())
    assert sorted(guessed) == sorted(true)
    assert sum(one == other for one, other in zip(guessed, true, strict=True)) < 12


def test_list_order_of_an_earlier_version_stays_and_causes_a_warning(empty_site: ReleaseSite) -> None:
    site = empty_site
    before = list_order(site)
    assert before != seeded_turns(site.study.config, 24) and sorted(before) == list(range(24))
    with site.engine.begin() as connection:
        connection.execute(text("UPDATE places SET turn = turn + 1000"))
        for number, turn in enumerate(seeded_turns(site.study.config, 24)):
            connection.execute(text(f"UPDATE places SET turn = {turn} WHERE list_number = {number}"))
    open_site(site.study, site.url, site.folder).engine.dispose()
    assert list_order(site) == seeded_turns(site.study.config, 24), "a restart leaves the turns as they are"
    add_listeners(site)
    done = site.close().anonymize(site.folder / "release")
    assert "build/schedule.parquet" in done.stderr
    guessed, true = attack(site, site.folder / "release")
    assert guessed == true, "the attack is one"
    assert "seed" not in tomllib.loads((site.folder / "release" / "study.toml").read_text())["study"]


def list_order(site: ReleaseSite) -> list[int]:
    with site.engine.connect() as connection:
        return [row[0] for row in connection.execute(text("SELECT turn FROM places ORDER BY list_number"))]


def attack(site: ReleaseSite, bundle: Path) -> tuple[list[str], list[str]]:
    """Published listeners in the order of arrival that the study folder suggests, and in the true order."""
    plan = read_plan(site.study)
    lists = {tuple((str(t.similarity_high), t.high_side) for t in trials): n for n, trials in plan.lists.items()}
    heard: dict[str, list[tuple[str, str]]] = {}
    for row in table(bundle / "responses.csv"):
        if row["completed"] == "1":
            heard.setdefault(row["listener"], []).append((row["similarity_high"], row["high_side"]))
    number = {listener: lists[tuple(trials)] for listener, trials in heard.items()}
    believed = seeded_turns(site.study.config, len(plan.lists))
    guessed = sorted(number, key=lambda listener: believed[number[listener]])
    with Session(site.engine) as session:
        finished = (
            select(Assignment.list_number).where(Assignment.state == AssignmentState.FINISHED).order_by(Assignment.id)
        )
        came = list(session.scalars(finished))
    return guessed, sorted(number, key=lambda listener: came.index(number[listener]))


# ------------------------------------------------------------------ when there is none


def test_a_release_before_closing_needs_a_reason_which_is_logged(site: ReleaseSite) -> None:
    assert "not closed" in site.refusal()
    assert "at least 10 characters" in site.refusal("--before-closing", "hurry")
    assert PUBLISHED not in [entry.what for entry in site.log()]
    bundle = site.release("release", "--before-closing", "the journal asked for it")
    entry = site.log()[-1]
    assert (entry.what, entry.reason) == (PUBLISHED, "the journal asked for it")
    assert entry.detail.startswith("release: ") and "k = 5" in entry.detail
    assert "before the study was closed" in (bundle / "README.md").read_text()


def test_refusals_leave_no_files(empty_site: ReleaseSite) -> None:
    site = empty_site.close()
    assert "no responses" in site.refusal()
    (site.folder / "there").mkdir()
    done = site.anonymize(site.folder / "there")
    assert "already exists" in str(done.exception)
    assert "not a valid author" in site.refusal("--author", "Lovelace,")
    assert "no question 'agee'; its questions are age, years" in site.refusal("--leave-out", "agee")
    assert "not an ORCID iD" in site.refusal("--author", "Lovelace, Ada, 0000")
    assert site.log()[-1].what == "closed the study"


def test_a_release_that_cannot_be_logged_is_not_made(site: ReleaseSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **more: Any) -> None:
        raise RootnoteError("the log is full.")

    monkeypatch.setattr("server.audit.study_control.write_log", fail)
    site.engine.dispose()
    assert "not closed" in site.refusal()
    assert site.refusal("--before-closing", "the journal asked for it") == "the log is full."


def test_a_report_that_differs_prevents_the_release(published: ReleaseSite, monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[dict[str, Any]] = [
        {"table1": {"n": 1}, "plan": {"as_exported": True}},
        {"table1": {"n": 2}, "plan": None},
    ]
    monkeypatch.setattr("server.public_release.verify._read", lambda process: results.pop(0))
    monkeypatch.setattr("server.public_release.verify._begin", lambda *words: subprocess.Popen(["true"], text=True))
    done = published.anonymize(published.folder / "refused", unchecked=False)
    assert "Table 1 of the bundle differs" in str(done.exception)
    assert not [path for path in published.folder.iterdir() if "refused" in path.name]
