"""Sections of the report: the registry, a section added by a test, and agreement by a column."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from analysis.cli import cli
from analysis.presentation.html import environment
from analysis.report import registry
from analysis.report.section import ReportInputs, ReportSection
from analysis.statistics.two_way import dependence
from embeddings.audio.corpus import SCHEMA
from embeddings.errors import RootnoteError
from embeddings.provenance import Provenance, write_json, write_table
from study.design.eligibility import Prompts, prompts_provenance, write_prompts
from tests.analysis.report.test_html import one_embedder

DEVICES = ("headphones", "loudspeakers", "")


def answers() -> pd.DataFrame:
    """Forty listeners; those with odd numbers used a phone."""
    frame = one_embedder()
    frame = frame[frame["assignment"].isin([f"CLAP{number}" for number in range(40)])]
    odd = frame["assignment"].str.removeprefix("CLAP").astype(int) % 2 == 1
    return frame.assign(agent_class=odd.map({True: "safari-phone", False: "firefox-desktop"}))


def write_listeners(frame: pd.DataFrame, folder: Path) -> None:
    people = frame[["assignment", "listener"]].drop_duplicates()
    people = people.assign(
        state="finished", prescreen="passed", q_device=[DEVICES[place % 3] for place in range(len(people))]
    )
    people.to_csv(folder / "listeners.csv", index=False)


def run(frame: pd.DataFrame, folder: Path, *options: str, suffix: str = "csv") -> Result:
    path = folder / f"responses.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path, index=False)
    return CliRunner().invoke(cli, ["report", str(path), "--out", str(folder / "out"), *options])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_agreement_by_a_question_and_by_a_column_of_the_responses(tmp_path: Path) -> None:
    frame = answers()
    write_listeners(frame, tmp_path)
    done = run(frame, tmp_path, "--by", "q_device", "--by", "agent_class")
    assert done.exit_code == 0, (done.output, done.exception)
    scored = frame[(frame["kind"] == "scored") & (frame["passed_prescreen"] == 1)]
    devices = {row["assignment"]: row["q_device"] for row in table(tmp_path / "listeners.csv")}
    rows = {row["q_device"]: row for row in table(tmp_path / "out" / "agreement_by_q_device.csv")}
    assert set(rows) == set(DEVICES)
    for value, row in rows.items():
        known = scored["assignment"].map(devices).fillna("") == value
        expected = dependence(scored[known])
        assert (int(row["agreed"]), int(row["n"])) == (expected.agreed, expected.n)
        assert float(row["ci_low"]) == pytest.approx(expected.ci_low)
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf-8"))["agreement_by"]
    assert [row["value"] for row in numbers["q_device"]][-1] == ""
    assert {row["value"] for row in numbers["agent_class"]} == {"safari-phone", "firefox-desktop"}
    assert sum(row["n"] for row in numbers["agent_class"]) == len(scored)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for words in ("Agreement by q_device", "of listeners.csv", "not known", "Agreement by agent_class", "safari-phone"):
        assert words in page, words


def test_a_column_of_a_parquet_file(tmp_path: Path) -> None:
    done = run(answers(), tmp_path, "--by", "agent_class", suffix="parquet")
    assert done.exit_code == 0, (done.output, done.exception)
    assert len(table(tmp_path / "out" / "agreement_by_agent_class.csv")) == 2


def test_an_unknown_column_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    frame = answers()
    done = run(frame, tmp_path, "--by", "q_age")
    assert isinstance(done.exception, RootnoteError)
    assert "q_age" in str(done.exception)
    write_listeners(frame, tmp_path)
    assert "q_device" in str(run(frame, tmp_path, "--by", "q_age").exception)
    assert not (tmp_path / "out").exists()


def test_without_the_option_nothing_is_added(tmp_path: Path) -> None:
    frame = answers()
    write_listeners(frame, tmp_path)
    assert run(frame, tmp_path).exit_code == 0
    assert "agreement_by" not in json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf-8"))
    assert not list((tmp_path / "out").glob("agreement_by*"))


class MedianTime(ReportSection):
    """An example of a section that a user might add."""

    template = "methods.html.j2"

    def compute(self, inputs: ReportInputs) -> float:
        return float(inputs.responses.frame["response_ms"].median())

    def values(self, result: float, report: object) -> Mapping[str, Any]:
        return {"paragraphs": [f"The median answer took {result:.0f} ms."]}

    def data(self, result: float) -> Mapping[str, Any]:
        return {"median_ms": result}

    def frames(self, result: float) -> Mapping[str, pd.DataFrame]:
        return {"median.csv": pd.DataFrame({"median_ms": [result]})}


def test_a_section_is_one_class_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SECTIONS.built_in, "median_time", f"{__name__}:MedianTime")
    frame = answers()
    assert run(frame, tmp_path).exit_code == 0
    median = float(frame[(frame["kind"] == "scored") & (frame["passed_prescreen"] == 1)]["response_ms"].median())
    assert json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf-8"))["median_ms"] == median
    assert float(table(tmp_path / "out" / "median.csv")[0]["median_ms"]) == median
    assert f"The median answer took {median:.0f} ms." in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_every_registered_section_has_its_template() -> None:
    for name, section in registry.load_sections().items():
        assert environment().get_template(section.template), name


def test_eligible_prompts_of_the_build_next_to_the_responses(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    build = tmp_path / "build"
    build.mkdir()
    genre = np.array(["rock", "soul"])[rng.integers(2, size=200)]
    eligible = (genre == "rock") & (rng.random(200) < 0.7)
    counts = np.repeat(eligible[:, None], 3, axis=1).astype(np.int64)
    prompts = Prompts(np.arange(200), np.arange(200), counts, eligible, np.zeros(200, np.bool_))
    write_prompts(build / "CLAP.prompts.parquet", prompts, prompts_provenance("CLAP", "f"))
    rows = {name: [None] * 200 for name in SCHEMA.names} | {"genre": list(genre), "clip": list(range(200))}
    rows |= {name: [0.0] * 200 for name in ("start_s", "duration_s", "rms_dbfs")}
    write_table(build / "corpus.parquet", pa.table(rows, schema=SCHEMA), Provenance("corpus", {}, {}))
    bins = {"embedder": "CLAP", "mu": 0.8, "sigma": 0.06, "half_width": 0.02, "method": "per_prompt"}
    bins |= {"centres": {"1": 0.92, "2": 0.86, "3": 0.8, "4": 0.5}, "counts": {}}
    bins |= {"fit": {"expected": {}, "between_prompts": 0, "skew": 0, "duplicate_share": 0.5, "same_track_share": 0}}
    write_json(build / "CLAP.bins.json", bins, Provenance("bins", {}, {}))
    done = run(answers(), tmp_path)
    assert done.exit_code == 0, (done.output, done.exception)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Which prompts could be used" in page
    assert f"{eligible.sum()} of 200 prompts eligible" in page
    assert "50 % as many exact duplicates" in page
    first, *_ = table(tmp_path / "out" / "eligible_prompts.csv")
    assert first["property"] == "genre"
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf-8"))["prompts"]
    assert numbers["CLAP"]["eligible"] == eligible.sum()
