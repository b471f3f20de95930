"""The prescreen's steps over HTTP: order, attempts, thresholds, what is stored, and that nothing tells the answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command
from sqlalchemy import JSON, column, insert, make_url, table, text
from sqlalchemy.orm import Session

from server.db import database
from server.export.responses import listener_rows, response_rows
from server.simulation.hearing import LOUDSPEAKERS
from study.trial_plan import read_plan
from tests.server.conftest import Site, Walker
from tests.server.desk.desk_client import Visit, add_researcher
from tests.server.participant.test_http import told

ALL = '[prescreen]\nsteps = ["volume", "tones", "huggins", "antiphase"]\n'


def results(site: Site) -> list[tuple[Any, ...]]:
    query = "SELECT kind, attempt, correct, asked, passed FROM prescreen_results ORDER BY id"
    return [
        (kind, attempt, correct, asked, bool(passed)) for kind, attempt, correct, asked, passed in site.query(query)
    ]


def kind(walker: Walker) -> str:
    return walker.find(r'data-kind="(\w+)"')


def test_every_step_in_its_order(make_site: Callable[..., Site]) -> None:
    walker = (site := make_site(toml=ALL)).walker().consent()
    kinds = []
    while walker.step == "prescreen":
        kinds.append(kind(walker))
        walker.answer_item()
    assert kinds == ["volume"] + ["tones"] * 2 + ["huggins"] * 6 + ["antiphase"] * 6
    assert walker.step == "instructions"
    assert 'data-clip="volume"' not in walker.html, "the volume is set once"
    assert results(site) == [
        ("volume", 1, 1, 1, True),
        ("tones", 1, 2, 2, True),
        ("huggins", 1, 6, 6, True),
        ("antiphase", 1, 6, 6, True),
    ]
    assert walker.go("instructions").step == "trial"


def test_another_order_and_a_threshold(make_site: Callable[..., Site]) -> None:
    site = make_site(toml='[prescreen]\nsteps = ["antiphase", "tones"]\n[prescreen.antiphase]\nattempts = 1\n')
    one, two = site.walker().consent(), site.walker().consent()
    for walker, wrong in ((one, 1), (two, 2)):
        for number in range(6):
            walker.answer_item(right=number >= wrong)
    assert kind(one) == "tones", "five of six are enough"
    assert two.step == "screened_out"
    amount = f"{site.study.config.pay.screened_out:.2f} US dollars"
    assert amount in two.html, (amount, two.html.partition("<main")[2])
    assert results(site) == [("antiphase", 1, 5, 6, True), ("antiphase", 1, 4, 6, False)]


def test_listeners_with_loudspeakers_get_another_attempt_and_are_screened_out(make_site: Callable[..., Site]) -> None:
    toml = '[prescreen]\nsteps = ["antiphase"]\n[pay]\nscreened_out = 0\n'
    walker = make_site(toml=toml).walker().consent()
    for _ in range(6):
        walker.answer_item(hearing=LOUDSPEAKERS)
    assert "This is your last attempt" in walker.html
    for _ in range(6):
        walker.answer_item(hearing=LOUDSPEAKERS)
    assert walker.step == "screened_out"
    assert "paid" not in walker.html, "nothing is promised that is not in study.toml"
    assert walker.code


def test_the_outcome_of_a_step_that_is_not_required_is_recorded_and_all_continue(
    make_site: Callable[..., Site],
) -> None:
    toml = '[prescreen]\nsteps = ["huggins", "tones"]\n[prescreen.huggins]\nrequired = false\nattempts = 1\nitems = 2\n'
    walker = (site := make_site(toml=toml)).walker().consent()
    for _ in range(2):
        walker.answer_item(right=False)
    assert kind(walker) == "tones"
    assert walker.screen().step == "instructions"
    assert results(site) == [("huggins", 1, 0, 2, False), ("tones", 1, 2, 2, True)]
    walker.go("instructions").listen().finish()
    site.walker().consent().screen().go("instructions").listen().finish()
    with Session(site.app.extensions["rootnote"].engine) as session:
        plan = read_plan(site.study)
        passed = {row["assignment"]: row["passed_prescreen"] for row in response_rows(session, site.study, plan)}
        people = listener_rows(session, site.study)
    assert sorted(passed.values()) == [0, 1], "one did not pass, is paid, and can be left out"
    assert [(one["state"], one["huggins_passed"], one["huggins_correct"]) for one in people] == [
        ("finished", 0, 0),
        ("finished", 1, 2),
    ]


@pytest.mark.both_databases
def test_sending_twice_changes_nothing_in_any_step(make_site: Callable[..., Site]) -> None:
    """Above all, a click on one step's last page that comes late is no answer to the next step's first."""
    walker = (site := make_site(toml='[prescreen]\nsteps = ["huggins", "antiphase"]\n')).walker().consent()
    for number in range(1, 7):
        walker.answer_item()
        for answer in (1, 2, 3):
            assert walker.post("prescreen", item=f"huggins-1-{number}", interval=answer).status_code == 303
    assert walker.reload().find(r'name="item" value="([^"]+)"') == "antiphase-1-1"
    assert results(site) == [("huggins", 1, 6, 6, True)]
    assert site.query("SELECT count(*) FROM prescreen_items WHERE kind = 'antiphase' AND answer IS NOT NULL") == [(0,)]


def test_damaged_choices_are_refused(make_site: Callable[..., Site]) -> None:
    walker = (site := make_site(toml='[prescreen]\nsteps = ["huggins"]\n')).walker().consent()
    for value in ("0", "4", "", "-1", "1.0", "one", "1" * 13, "²"):
        reply = walker.post("prescreen", item="huggins-1-1", interval=value)
        assert reply.status_code == 400
        assert "Please choose one of the three." in reply.text
    assert site.query("SELECT * FROM prescreen_items WHERE answer IS NOT NULL") == []


@pytest.mark.parametrize("step", ["huggins", "antiphase"])
def test_only_the_sound_reveals_the_answer(make_site: Callable[..., Site], step: str) -> None:
    """Pages, lengths and headers of twelve listeners are the same; their sounds all differ."""
    site = make_site(listeners=12, toml=f'[prescreen]\nsteps = ["{step}"]\n')
    pages, sounds = set(), set()
    for _ in range(12):
        walker = site.walker().consent()
        reply = walker.client.get(walker.find(r'<audio data-clip="\w+"[^>]* src="([^"]+)"'))
        pages.add((re.sub(r"/(audio|a)/[\w-]+", "", walker.html), told(reply), len(reply.data), reply.data[:44]))
        sounds.add(reply.data)
    assert len(pages) == 1
    assert len(sounds) == 12
    field = "target" if step == "huggins" else "soft"
    answers = {re.search(rf'"{field}": (\d)', row[0])[1] for row in site.query(PARAMS)}  # type: ignore[index]
    assert answers == {"1", "2", "3"}


PARAMS = "SELECT CAST(params AS VARCHAR(200)) FROM prescreen_items"


def test_the_desk_shows_outcomes_by_step(make_site: Callable[..., Site]) -> None:
    """One passes, one fails huggins twice, one passes it later and fails antiphase, one is still at the tones."""
    short = "huggins = { items = 1 }\nantiphase = { items = 1, threshold = 1, attempts = 1 }\ntones = { items = 1 }\n"
    site = make_site(listeners=4, toml='[prescreen]\nsteps = ["volume", "tones", "huggins", "antiphase"]\n' + short)
    site.walker().consent().screen()
    for pattern in ((True, True, False, False), (True, True, False, True, False), (True,)):
        walker = site.walker().consent()
        for right in pattern:
            walker.answer_item(right)
    add_researcher(site)
    visit = Visit(site).signed_in()
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", visit.page()))
    outcomes = (
        "Passed at the first attempt {} % Passed later {} % Failed {} % In progress {} % Left before the end 0 0 %"
    )
    assert "Count the tones " + outcomes.format("3 75", "0 0", "0 0", "1 25") in words
    assert "Huggins pitch " + outcomes.format("1 33", "1 33", "1 33", "0 0") in words
    assert "Antiphase tones " + outcomes.format("1 50", "0 0", "1 50", "0 0") in words
    listeners = visit.page("listeners")
    assert "passed: tones 1 of 1, huggins 1 of 1, antiphase 1 of 1" in listeners
    assert "failed: tones 1 of 1, huggins 0 of 1 at attempt 2" in listeners
    assert "failed: tones 1 of 1, huggins 1 of 1 at attempt 2, antiphase 0 of 1" in listeners


def test_sounds_of_an_attempt_are_available_until_answered(make_site: Callable[..., Site]) -> None:
    walker = make_site(toml='[prescreen]\nsteps = ["huggins"]\n').walker().consent()
    now, following = walker.find(r'<audio data-clip="\w+"[^>]* src="([^"]+)"'), walker.find(r'data-next="([^"]+)"')
    assert walker.client.get(following).status_code == 200, "fetched ahead"
    walker.answer_item()
    assert walker.client.get(now).status_code == 404
    assert walker.find(r'<audio data-clip="\w+"[^>]* src="([^"]+)"') == following


@pytest.mark.both_databases
def test_older_attempts_are_graded_when_migrating(database_url: str) -> None:
    """Answers from the time of one step get their results; an attempt under way gets none."""
    engine = database.connect(make_url(database_url))
    revision = database.migrate(engine)
    with engine.begin() as connection:
        command.downgrade(database._alembic(connection), BEFORE)
        now = datetime(2026, 1, 1, 12, tzinfo=UTC)
        connection.execute(text("INSERT INTO listeners (id, pseudonym) VALUES (1, 'p')"))
        connection.execute(
            text(
                "INSERT INTO assignments (id, pseudonym, listener_id, entry_hash, token_hash, state, list_number,"
                " completion_code, consent_version, consented_at)"
                " VALUES (1, 'a', 1, 'e', 't', 'consented', 0, 'C', 'v', :now)"
            ),
            {"now": now},
        )
        items = table("prescreen_items", *map(column, COLUMNS), column("params", JSON))
        for number, (attempt, item, answer) in enumerate([(1, 1, 5), (1, 2, 6), (2, 1, 5), (2, 2, 5), (3, 1, None)]):
            values = (number + 1, 1, attempt, item, "tones", f"s{number}", answer, now if answer else None)
            row = dict(zip(COLUMNS, values, strict=True)) | {"params": {"count": 5, "slots": 8, "seed": 1}}
            connection.execute(insert(items).values(row))
    assert database.migrate(engine) == revision
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT attempt, correct, asked, passed FROM prescreen_results ORDER BY attempt")
        )
        assert [tuple(map(int, row)) for row in found] == [(1, 1, 2, 0), (2, 2, 2, 1)]
    engine.dispose()


BEFORE = "0003"
COLUMNS = ("id", "assignment_id", "attempt", "item", "kind", "sound", "answer", "answered_at")
