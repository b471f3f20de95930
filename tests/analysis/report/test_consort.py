"""The participant flow adds up, whatever files are available."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.report.consort import ParticipantFlow, draw_participant_flow, in_words, participant_flow
from analysis.responses.exclusions import ExclusionPlan
from analysis.responses.load import Responses, read_responses
from study.export_manifest import write_manifest

RULES = ExclusionPlan(("failed_prescreen", "incomplete", "catch_missed", "too_fast"))
STATES = ("finished", "approved", "withdrawn", "expired", "listening", "screened_out", "consented", "technical")
person = st.tuples(st.sampled_from(STATES), st.booleans(), st.integers(0, 3))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_files(folder: Path, people: list[tuple[str, bool, int]], arrived: int = 0) -> Path:
    """Responses of those who started the trials (four trials, a catch trial), listeners.csv and export.json."""
    rows, listed = [], []
    for number, (state, attentive, fast) in enumerate([("finished", True, 0), *people]):
        passed = state not in ("screened_out", "consented", "technical")
        done = state in ("finished", "approved")
        listed.append({"listener": f"l{number}", "state": state, "prescreen": "passed" if passed else "failed"})
        for position in range(1, 6 if done else 3 if passed else 1):
            rows.append(
                {
                    "embedder": "m<1>" if number % 2 else "n", "listener": f"l{number}", "prompt": position,
                    "bin_high": 1, "bin_low": 2, "position": position, "kind": "catch" if position == 1 else "scored",
                    "agreed": int(attentive or position > 1), "passed_prescreen": int(passed), "completed": int(done),
                    "response_ms": 100 if position - 2 < fast and position > 1 else 9000,
                }
            )  # fmt: skip
    path = write(folder / "responses.csv", rows)
    write(folder / "listeners.csv", listed)
    write_manifest(folder, "S", "", "", [path], {"informed": arrived, "not_let_in": 2} if arrived else {})
    return path


def number_of(text: str) -> int:
    """The number of listeners in "3 and 14 responses"; 0 in a line with responses only."""
    first = text.split(" and ")[0]
    return 0 if "response" in first else int(first.replace(",", ""))


def adds_up(flow: ParticipantFlow) -> None:
    for stage, following in zip(flow.stages, flow.stages[1:], strict=False):
        assert stage.number - sum(number_of(number) for _, number in stage.left) == following.number, stage


@settings(max_examples=25, deadline=None)
@given(people=st.lists(person, max_size=12))
def test_each_stage_is_the_previous_one_minus_those_who_left(
    tmp_path_factory: pytest.TempPathFactory, people: list[tuple[str, bool, int]]
) -> None:
    folder = tmp_path_factory.mktemp("flow")
    read = read_responses(make_files(folder, people, arrived=len(people) + 5), RULES)
    flow = participant_flow(read)
    assert [stage.name for stage in flow.stages] == [
        "Arrived", "Consented", "Passed the prescreen", "Finished", "Analysed",
    ]  # fmt: skip
    adds_up(flow)
    assert flow.stages[-1].number == read.listeners
    (folder / "listeners.csv").unlink()
    shorter = participant_flow(read)
    assert [stage.name for stage in shorter.stages] == ["Listeners in the file", "Analysed"]
    adds_up(shorter)


@pytest.fixture
def read(tmp_path: Path) -> Responses:
    return read_responses(make_files(tmp_path, [("finished", False, 0), ("withdrawn", True, 1)], arrived=9), RULES)


def test_the_figure_is_xml_with_the_numbers(read: Responses) -> None:
    flow = participant_flow(read)
    drawn = ET.fromstring(draw_participant_flow(flow))
    texts = [text.text or "" for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "Finished: 2" in texts
    assert "1  catch missed" in texts
    assert drawn.get("aria-label") == f"Participant flow. {in_words(flow)}"
    others = read_responses(read.path, ExclusionPlan(()))
    unfinished = participant_flow(others).stages[-1]
    assert "1 of them had not finished" in unfinished.lines
    assert any(line.startswith("m<1>: ") for line in unfinished.lines)
    ET.fromstring(draw_participant_flow(participant_flow(others)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"listener,state,prescreen\nsomebody,finished,passed\n", "lacks 3 of the 3 listeners"),
        (b"listener,state\nl0,finished\n", "lacks the column prescreen"),
        (b"listener,\xff\xfe\n", "cannot be read"),
        (b"", None),
    ],
)
def test_a_listeners_file_of_another_export_is_reported(read: Responses, content: bytes, words: str | None) -> None:
    (read.path.parent / "listeners.csv").write_bytes(content)
    flow = participant_flow(read)
    assert flow.stages[0].name == "Listeners in the file"
    adds_up(flow)
    assert [words in note for note in flow.notes] == [True] if words else flow.notes == ()


def test_arrivals_of_an_edited_file_are_ignored(read: Responses) -> None:
    read.path.write_text(read.path.read_text().replace(",9000\n", ",9001\n", 1))
    assert participant_flow(read_responses(read.path, RULES)).stages[0].name == "Consented"


def test_the_erased_are_counted_and_named_nowhere_else(tmp_path: Path) -> None:
    path = make_files(tmp_path, [("finished", True, 0), ("withdrawn", True, 0)])
    write_manifest(tmp_path, "S", "", "", [path], {"informed": 7}, erased=2)
    flow = participant_flow(read_responses(path, RULES))
    assert dict(flow.stages[0].left) == {"had their answers erased": "2", "did not consent": "2"}
    adds_up(flow)
    assert any("2 more people took part" in note for note in flow.notes)
