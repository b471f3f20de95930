"""Exclusion rules compared with a direct implementation of each, and through the command."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.preregistration.sensitivity import in_words, sensitivity_analysis, to_frame
from analysis.responses.exclusions import RULES, ExclusionPlan, Thresholds, apply, parse_rules, plan_of
from analysis.responses.load import read_responses
from embeddings.errors import RootnoteError
from rootnote import main
from study.config import load_study
from study.config_sections import EXCLUSION_RULES

Row = dict[str, Any]
THRESHOLDS = Thresholds(catch_misses_allowed=1, fastest_ms=5000, longest_run=3)

answer = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["scored", "scored", "catch", "repeat"]),
        "choice": st.sampled_from("AB"),
        "high_side": st.sampled_from("AB"),
        "response_ms": st.sampled_from([None, 100, 4999, 5000, 9000]),
        "plays_x": st.sampled_from([None, 0, 1, 1, 2]),
        "plays_a": st.sampled_from([1, 1, 0]),
        "plays_b": st.just(1),
        "elapsed_s": st.sampled_from([None, 0.1, 4.999, 5.0, 9.0]),
        "doubts": st.sampled_from([None, "", "", "hearing", "response", "hearing response"]),
    }
)
run = st.tuples(
    st.sampled_from(["l1", "l2", "l3", "l4"]),
    st.lists(answer, min_size=1, max_size=9),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9),
)


def rows_of(made: list[Any]) -> list[Row]:
    """Runs as rows of a file: one assignment each, positions from 1, and a start time."""
    rows: list[Row] = []
    for number, (listener, answers, screened, done, minute) in enumerate(made):
        for position, one in enumerate(answers, start=1):
            rows.append(
                {
                    "embedder": "m", "listener": listener, "assignment": f"a{number}", "prompt": str(position),
                    "bin_high": 1, "bin_low": 2, "position": str(position),
                    "agreed": int(one["choice"] == one["high_side"]), "passed_prescreen": int(screened),
                    "completed": int(done), "answered_at": f"2026-03-01T12:0{minute}:{position:02}.{number:03}Z", **one,
                }
            )  # fmt: skip
    return rows


def plainly_left_out(rows: list[Row], rule: str) -> list[bool]:
    """The rows that a rule leaves out, by a direct implementation."""
    runs: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        runs[row["assignment"]].append(row)
    first = {person: min((r for r in rows if r["listener"] == person), key=lambda r: r["answered_at"])["assignment"]
             for person in {r["listener"] for r in rows}}  # fmt: skip

    def is_out(row: Row) -> bool:
        own = runs[row["assignment"]]
        sides = [r["choice"] for r in own]
        match rule:
            case "failed_prescreen":
                return not row["passed_prescreen"]
            case "incomplete":
                return not row["completed"]
            case "duplicate_person":
                return bool(first[row["listener"]] != row["assignment"])
            case "catch_missed":
                return sum(r["kind"] == "catch" and not r["agreed"] for r in own) > 1
            case "too_fast":
                taken = row["response_ms"] if row["elapsed_s"] is None else 1000 * row["elapsed_s"]
                return taken is not None and taken < 5000
            case "not_heard":
                return any(row[f"plays_{clip}"] == 0 for clip in "xab") or "hearing" in (row["doubts"] or "")
            case "impossible_time":
                return bool(row["doubts"])
            case "straight_lining":
                return max(len(list(same)) for _, same in groupby(sides)) >= 3
            case "one_side":
                return len(own) >= 6 and len(set(sides)) == 1
        raise AssertionError(rule)

    return [is_out(row) for row in rows]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(made=st.lists(run, min_size=1, max_size=6), order=st.randoms(use_true_random=False))
def test_each_rule_and_all_together_equal_a_direct_implementation(made: list[Any], order: Any) -> None:
    rows = rows_of(made)
    order.shuffle(rows)
    frame = pd.DataFrame(rows).astype({"elapsed_s": float})
    ordered = [sorted(rows, key=lambda r: (r["assignment"], int(r["position"]))).index(row) for row in rows]
    in_order = sorted(rows, key=lambda r: (r["assignment"], int(r["position"])))
    out = {rule: [plainly_left_out(in_order, rule)[i] for i in ordered] for rule in RULES}
    if not any(row["kind"] == "catch" for row in rows):
        out["catch_missed"] = [False] * len(rows)
    for rule in RULES:
        kept = apply(frame, ExclusionPlan((rule,), THRESHOLDS)).kept
        wanted = [row["prompt"] + row["assignment"] for row, left in zip(rows, out[rule], strict=True) if not left]
        assert list(kept["prompt"] + kept["assignment"]) == wanted, rule
    everything = apply(frame, ExclusionPlan(tuple(RULES), THRESHOLDS))
    keep = [not any(out[rule][i] for rule in RULES) for i in range(len(rows))]
    assert len(everything.kept) == sum(keep)
    scored = [row["kind"] == "scored" for row in rows]
    assert len(everything.scored) == sum(k and s for k, s in zip(keep, scored, strict=True))
    assert sum(item.rows for item in everything.exclusions) == len(rows) - len(everything.scored)
    everyone = {row["listener"] for row in rows}
    assert sum(item.listeners for item in everything.exclusions) == len(everyone) - everything.scored[
        "listener"].nunique()  # fmt: skip


def test_study_toml_and_the_analysis_have_the_same_rules() -> None:
    assert tuple(RULES) == EXCLUSION_RULES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('rules = ["to_fast"]', "unknown rule 'to_fast'; did you mean 'too_fast'?"),
        ('rules = ["too_fast", "too_fast"]', "named twice"),
        ("longest_run = 1", "exclusions.longest_run"),
        ("catch_missed = 1", "unknown key 'exclusions.catch_missed'"),
    ],
)
def test_a_wrong_rule_is_named(tmp_path: Path, text: str, words: str) -> None:
    toml = f'[study]\nname = "T"\n[corpus]\naudio = "m"\n[exclusions]\n{text}\n'
    (tmp_path / "study.toml").write_text(toml)
    with pytest.raises(RootnoteError) as caught:
        load_study(tmp_path)
    assert words in str(caught.value)


def test_the_fastest_answer_follows_the_clip(tmp_path: Path) -> None:
    toml = '[study]\nname = "T"\n[corpus]\naudio = "m"\nclip_seconds = 10\n[exclusions]\nrules = ["too_fast"]\n'
    (tmp_path / "study.toml").write_text(toml)
    plan = plan_of(load_study(tmp_path).config)
    assert plan.thresholds.fastest_ms == 27_000
    assert RULES["too_fast"].describe(plan.thresholds) == "answered in less than 27 s"


def test_rules_by_name() -> None:
    assert parse_rules("none") == ()
    assert parse_rules("too_fast, incomplete") == ("too_fast", "incomplete")
    for wrong, words in (("fast", "did you mean 'too_fast'"), ("", "no exclusion rule ''"), ("a,a", "'a'")):
        with pytest.raises(RootnoteError, match=words):
            parse_rules(wrong)


# ------------------------------------------------------------------ files and the command


def write(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def study_rows() -> list[Row]:
    """Ten good listeners with eight scored trials, one who always chooses side A, one who answers immediately."""
    rows = []
    for person in range(12):
        for position in range(1, 9):
            side = "AB"[position % 2]
            choice = "A" if person == 10 else side if (person + position) % 5 else "AB"[side == "A"]
            rows.append(
                {
                    "study": "S", "embedder": "m", "assignment": f"a{person}", "listener": f"l{person}",
                    "position": position, "prompt": position, "bin_high": 1, "bin_low": 2 + position % 3,
                    "high_side": side, "choice": choice, "agreed": int(choice == side),
                    "response_ms": 500 if person == 11 else 12_000,
                }
            )  # fmt: skip
    return rows


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run `rootnote analysis report` in this process."""

    def run(*args: str | Path) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(["analysis", "report", *map(str, args)])
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, printed.out, printed.err)

    return run


def test_the_sensitivity_analysis_shows_none_each_and_all(tmp_path: Path) -> None:
    read = read_responses(write(tmp_path / "r.csv", study_rows()), ExclusionPlan(("one_side", "too_fast")))
    assert (len(read.frame), read.listeners) == (80, 10)
    rungs = {rung.name: rung for rung in sensitivity_analysis(read)}
    assert list(rungs)[:4] == ["none", "the plan's", "one_side", "too_fast"]
    assert set(rungs) == {"none", "the plan's", "every rule", *RULES}
    assert {name: (rung.responses_dropped, rung.listeners_dropped) for name, rung in rungs.items()} == {
        "none": (0, 0), "the plan's": (16, 2), "one_side": (8, 1), "too_fast": (8, 1), "straight_lining": (8, 1),
        "duplicate_person": (0, 0), "every rule": (16, 2), "failed_prescreen": (0, 0), "incomplete": (0, 0),
        "catch_missed": (0, 0), "not_heard": (0, 0), "impossible_time": (0, 0),
    }  # fmt: skip
    assert rungs["impossible_time"].not_applicable == "the file lacks the column elapsed_s"
    assert rungs["not_heard"].not_applicable == "the file lacks the columns plays_x and plays_a and plays_b"
    planned = rungs["the plan's"].tables["m"]
    counts = read.frame.groupby(["bin_high", "bin_low"])["agreed"].agg(["sum", "count"])
    for (high, low), (agreed, n) in counts.iterrows():
        assert (planned.pairs[high, low].agreed, planned.pairs[high, low].n) == (agreed, n)
    table = to_frame(list(rungs.values()))
    assert set(table["rules"]) == {name for name, rung in rungs.items() if not rung.not_applicable}
    assert in_words(list(rungs.values())).startswith("No bin pair")


def test_the_command_takes_the_rules_of_the_study_nearby(tmp_path: Path, report: Callable[..., Done]) -> None:
    toml = '[study]\nname = "S"\n[corpus]\naudio = "m"\n[exclusions]\nrules = ["one_side", "catch_missed"]\n'
    (tmp_path / "study.toml").write_text(toml)
    (tmp_path / "rehearsal").mkdir()
    responses = write(tmp_path / "rehearsal" / "responses.csv", study_rows())
    done = report(responses, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["responses"], found["listeners"]) == (88, 11)
    assert found["rules"]["not_applied"] == {"catch_missed": "the file lacks the column kind"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "The rule catch_missed could not be applied, because the file lacks the column kind." in page
    ladder = (tmp_path / "out" / "ladder.csv").read_text(encoding="utf-8")
    assert ladder.count("\nnone,") == 3
    other = report(responses, "--out", tmp_path / "out", "--rules", "none", "--json")
    assert json.loads(other.stdout)["responses"] == 96
    wrong = report(responses, "--out", tmp_path / "x", "--rules", "one_sided")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("rootnote: there is no exclusion rule 'one_sided'; did you mean 'one_side'?")
    assert not (tmp_path / "x").exists()


def test_a_nearby_study_with_another_name_is_not_used(tmp_path: Path, report: Callable[..., Done]) -> None:
    toml = '[study]\nname = "Other"\n[corpus]\naudio = "m"\n[exclusions]\nrules = ["one_side"]\n'
    (tmp_path / "study.toml").write_text(toml)
    responses = write(tmp_path / "responses.csv", study_rows())
    found = json.loads(report(responses, "--out", tmp_path / "out", "--json").stdout)
    assert (found["responses"], found["plan"]["verdict"]) == (96, None)
    assert "The study.toml near the responses is for Other, not for S" in " ".join(found["notes"])
    named = json.loads(report(responses, "--out", tmp_path / "out", "--study", tmp_path, "--json").stdout)
    assert named["responses"] == 88


def test_missing_values_of_r_and_pandas_are_read(tmp_path: Path) -> None:
    rows = [row | {"response_ms": "NA" if i % 2 else 9000, "agreed": bool(row["agreed"]), "completed": "TRUE"}
            for i, row in enumerate(study_rows())]  # fmt: skip
    read = read_responses(write(tmp_path / "r.csv", rows), ExclusionPlan(("too_fast", "incomplete")))
    assert len(read.frame) == 96
    assert read.frame["response_ms"].isna().sum() == 48
    assert read.frame["agreed"].sum() == sum(row["agreed"] for row in study_rows())


def test_folders_and_too_large_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(RootnoteError, match=r"folder\.csv is a directory"):
        read_responses(tmp_path / "folder.csv")
    with (tmp_path / "huge.csv").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(RootnoteError, match=r"has 3\.0 GiB"):
        read_responses(tmp_path / "huge.csv")


def test_rules_that_leave_no_response_are_an_error(tmp_path: Path, report: Callable[..., Done]) -> None:
    rows = [row | {"response_ms": 100} for row in study_rows()]
    done = report(write(tmp_path / "r.csv", rows), "--out", tmp_path / "out", "--rules", "too_fast")
    assert done.returncode == 1
    assert "no response left to analyse (answered in less than 8.1 s: 96)" in done.stderr


def test_the_code_in_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "analysis.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'^python -c "\n(.*?)"$', text, re.MULTILINE | re.DOTALL)
    write(tmp_path / "responses.csv", study_rows())
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "every rule" in capsys.readouterr().out
