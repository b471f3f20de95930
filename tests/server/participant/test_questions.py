"""Every type of question through HTTP: shown, checked, kept, counted at the desk, exported."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from server.db import database
from server.export.responses import export
from study.trial_plan import read_plan
from tests.server.conftest import Site, Walker
from tests.server.desk.desk_client import Visit, add_researcher, visible

TOML = """
[[questions]]
id = "device"
type = "single"
text = "What with?"
options = ["Headphones", "Loudspeakers & <more>"]
required = true
[[questions]]
id = "plays"
type = "multiple"
text = "Which do you play?"
options = ["Piano", "Violin", "Oud"]
most = 2
[[questions]]
id = "loud"
type = "scale"
text = "How loud is it?"
points = 3
options = ["Silent", "Loud"]
[[questions]]
id = "years"
type = "number"
text = "How many years?"
least = -5
most = 80
unit = "years"
[[questions]]
id = "age"
type = "age_band"
ages = [18, 30]
[[questions]]
id = "remarks"
type = "text"
text = "Anything else?"
lines = 2
limit = 100
"""
GOOD = {"q_device": "Headphones", "q_loud": "3", "q_age": "18 to 29"}


def at_the_questions(site: Site) -> Walker:
    walker = site.walker().begin().listen()
    assert walker.step == "questions"
    return walker


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_each_type_is_shown_in_a_group_of_its_own_with_a_name(make_site: Callable[..., Site]) -> None:
    page = at_the_questions(make_site(trials=1, toml=TOML)).html
    assert len(re.findall("<fieldset", page)) == len(re.findall("<legend>", page)) == 4
    for name, kind, n in (("device", "radio", 2), ("plays", "checkbox", 3), ("loud", "radio", 3), ("age", "radio", 3)):
        assert len(re.findall(f'type="{kind}" name="q_{name}"', page)) == n
    for name in ("years", "remarks"):
        assert f'<label class="legend" for="q_{name}">' in page and f'id="q_{name}" name="q_{name}"' in page
    assert 'value="Loudspeakers &amp; &lt;more&gt;"' in page
    assert "I prefer not to say" in page and "(choose at most 2)" in page


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_errors_are_shown_at_their_question_and_answers_are_kept(make_site: Callable[..., Site]) -> None:
    site = make_site(trials=1, toml=TOML)
    walker = at_the_questions(site)
    sent = {"q_plays": ["Piano", "Violin", "Oud"], "q_loud": "2", "q_years": "some", "q_remarks": "\nnext <line>"}
    walker.page = walker.post("questions", **sent)
    assert (walker.page.status_code, walker.step) == (400, "questions")
    for name, words in (("device", "Please answer"), ("plays", "at most 2"), ("years", "in digits")):
        assert re.search(rf'href="#q_{name}"', walker.html)
        assert re.search(rf'aria-describedby="q_{name}_wrong"', walker.html)
        assert re.search(rf'id="q_{name}_wrong">[^<]*{words}', walker.html)
    for name in ("loud", "age", "remarks"):
        assert f"q_{name}_wrong" not in walker.html
    assert len(re.findall(r'name="q_plays" value="\w+" checked', walker.html)) == 3
    assert re.search(r'name="q_loud" value="2" checked', walker.html)
    assert 'value="some"' in walker.html and "&lt;line&gt;" in walker.html
    assert site.query("SELECT count(*) FROM answers") == [(0,)]
    assert walker.go("questions", **GOOD).step == "done"


def test_answers_are_kept_exported_and_counted(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(trials=1, listeners=3, toml=TOML)
    given = {**GOOD, "q_plays": ["Oud", "Piano"], "q_years": "-3", "q_remarks": "=1+1"}
    at_the_questions(site).go("questions", **given)
    at_the_questions(site).go("questions", q_device="Headphones", q_plays="Piano", q_years="٧")
    at_the_questions(site)  # has not finished: counts for nothing
    with database.reading(site.app.extensions["rootnote"].engine) as session:
        export(session, site.study, read_plan(site.study), tmp_path / "out")
    with (tmp_path / "out" / "listeners.csv").open(newline="") as file:
        first, second, third = csv.DictReader(file)
    kept = {"device": "Headphones", "plays": "Piano|Oud", "loud": "3", "years": "-3", "age": "18 to 29"}
    assert {name: first[f"q_{name}"] for name in kept} == kept
    assert first["q_remarks"] == "'=1+1"
    assert (second["q_years"], second["q_plays"], second["q_loud"], third["q_device"]) == ("7", "Piano", "", "")
    add_researcher(site)
    page = re.sub(r"<svg.*?</svg>", "", visible(Visit(site).signed_in().page("questions")))
    rows = {row[0]: row[1:] for row in re.findall(r'<tr><th scope="row">([^<]+)</th><td class="n">(\d+)</td>'
                                                  r'<td class="n">([^<]+)</td>', page)}  # fmt: skip
    assert rows["Headphones"] == ("2", "100 %") and rows["Piano"] == ("2", "100 %") and rows["Oud"] == ("1", "50 %")
    assert rows["3 (Loud)"] == ("1", "100 %") and rows["1 (Silent)"] == ("0", "0 %")
    assert rows["18 to 29"][0] == "1" and rows["not said"][0] == "0"
    assert "<dt>Median</dt><dd>2 years</dd>" in page and "<dt>Minimum</dt><dd>-3 years</dd>" in page
    assert "text: 1 answered, 1 skipped" in page and "=1+1" not in page
