"""The rule `unconfirmed` applies to every file that has the column, whatever the plan says, and to no other."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest

from analysis.report.consort import in_words, participant_flow
from analysis.report.exclusions_text import describe_exclusions, describe_verification
from analysis.responses.exclusions import ExclusionPlan, sensitivity_plans
from analysis.responses.load import Responses, read_responses, under_rules
from embeddings.errors import RootnoteError

STANDINGS = {"l1": "confirmed", "l2": "unverified", "l3": "unconfirmed", "l4": "unconfirmed"}


def write(path: Path, standings: dict[str, str] | None) -> Path:
    """Six answers of each of four listeners, with or without the column."""
    pairs = list(itertools.combinations((1, 2, 3, 4), 2))
    rows = [
        {"embedder": "m", "listener": listener, "prompt": index, "bin_high": high, "bin_low": low, "agreed": 1}
        | ({"verification": standings[listener]} if standings else {})
        for listener in STANDINGS
        for index, (high, low) in enumerate(pairs)
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def listeners(read: Responses) -> set[str]:
    return set(read.frame["listener"].astype(str))


@pytest.mark.parametrize("rules", [(), ("failed_prescreen", "incomplete"), ("one_side",)])
def test_no_plan_switches_it_off(tmp_path: Path, rules: tuple[str, ...]) -> None:
    read = read_responses(write(tmp_path / "responses.csv", STANDINGS), ExclusionPlan(rules=rules))
    assert listeners(read) == {"l1", "l2"}
    first = read.exclusions[0]
    assert (first.rule, first.rows, first.listeners) == ("unconfirmed", 12, 2)
    assert "run that the marketplace never listed" in describe_exclusions(read)
    assert "2 unconfirmed" in in_words(participant_flow(read))
    assert describe_verification(read).startswith("1 analysed run is unverified: ")
    for _, tried in sensitivity_plans(read.plan):
        assert listeners(under_rules(read, ExclusionPlan(rules=tried))) <= {"l1", "l2"}


def test_a_file_without_the_column_is_read_as_before(tmp_path: Path) -> None:
    read = read_responses(write(tmp_path / "responses.csv", None), ExclusionPlan(rules=()))
    assert listeners(read) == set(STANDINGS)
    assert (read.exclusions, read.not_applied, describe_verification(read)) == ((), {}, "")


def test_another_standing_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "responses.csv", STANDINGS | {"l4": "maybe"})
    with pytest.raises(RootnoteError, match=r"row 20: verification is 'maybe'; it must be confirmed, unconf"):
        read_responses(path)
