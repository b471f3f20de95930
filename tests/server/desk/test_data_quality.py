"""Data quality at the desk: each component sees the run that it is meant for, and the report counts the same."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy.stats import binomtest

from analysis.responses.exclusions import ExclusionPlan
from analysis.responses.load import read_responses
from analysis.statistics.data_quality import data_quality, to_frame
from study.data_quality import order_agrees, side_share
from study.trial_plan import read_plan
from tests.server.conftest import Site, Walker
from tests.server.desk.desk_client import Visit, add_researcher, visible
from tests.server.export.test_responses import export

TOML = """
[[questions]]
id = "check"
type = "attention"
required = true
"""


def take(walker: Walker, site: Site, *, right: bool, order: str, check: str, sides: str = "") -> None:
    """Take the whole study; the catch trial (the last) is answered rightly or not."""
    walker.begin()
    plan, number = read_plan(site.study), -1
    while walker.step == "trial":
        walker.hear_all()
        number = site.query("SELECT max(list_number) FROM assignments")[0][0]
        position = int(walker.find(r'data-position="(\d+)"'))
        trial = plan.lists[number][position - 1]
        choice = sides or (trial.high_side if trial.kind != "catch" or right else "AB".replace(trial.high_side, ""))
        walker.go("trial", **walker.answer_fields(choice), play_order=order)
    walker.go("questions", q_check=check)


def rows_of(page: str) -> dict[str, list[str]]:
    """The cells of the table by listener."""
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    lines = [
        [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.split(r"</t[hd]>", line)] for line in body.split("</tr>")
    ]
    return {cells[0]: cells[1:-1] for cells in lines if len(cells) > 1}


@pytest.mark.both_databases
def test_the_desk_and_the_report_show_the_same_components(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(listeners=3, trials=8, catch=True, toml=TOML)
    add_researcher(site)
    desk = Visit(site).signed_in()
    assert "No trial has been answered yet." in desk.page("quality")
    take(site.walker(), site, right=True, order="XAB", check="Somewhat disagree")
    take(site.walker(), site, right=False, order="XA", check="Strongly agree")
    take(site.walker(), site, right=True, order="XAB", check="Somewhat disagree", sides="A")
    page = desk.page("quality")
    found = list(rows_of(page).values())
    scores = [int(cells[1]) for cells in found]
    assert scores == sorted(scores) and scores[0] < 60 and scores[-1] > 90
    careless = found[0]
    #                       catch, repeats, attention, times, plays, telemetry
    assert careless[2:8] == ["0 of 1", "–", "0 of 1", "8 of 8", "8 of 8", "0 of 8"]
    assert "8 of 8 A" in [cells[8] for cells in found]
    assert "excludes nobody" in visible(page)

    export(site, tmp_path)
    read = read_responses(tmp_path / "responses.csv", ExclusionPlan(()))
    runs = {run.listener: run for run in data_quality(read.everything)}
    for name, cells in rows_of(page).items():
        words = [part.words for part in runs[name].components if part.name != "attention"]
        assert words == [*cells[2:4], *cells[5:9]]
    assert set(to_frame(list(runs.values()))["telemetry"]) == {0.0, 1.0}
    with (tmp_path / "responses.csv").open(newline="") as file:
        assert {row["doubts"] for row in csv.DictReader(file)} == {""}


def test_sides_are_judged_by_the_exact_binomial_test() -> None:
    for answers in (1, 2, 6, 10, 31):
        for chose_a in range(answers + 1):
            exact = binomtest(chose_a, answers).pvalue
            assert side_share(chose_a, answers) == pytest.approx(min(1.0, exact / 0.05))


def test_an_order_of_plays_must_hold_every_play() -> None:
    assert order_agrees((1, 1, 1), "XAB") and order_agrees((1, 1, 1), "XXABA")
    assert not order_agrees((2, 1, 1), "XAB")
    assert order_agrees((300, 1, 1), "X" * 256), "an order that was cut off says nothing"
