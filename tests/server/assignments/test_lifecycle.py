"""A listener's way through the study, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import update

from server.assignments import lifecycle
from server.db import database
from server.db.models import Assignment, AssignmentState, Place
from tests.server.conftest import FakeClock, Site, Walker, count_tones


def run_together(number: int, action: Callable[[int], Any]) -> list[Any]:
    """Run `action` in `number` threads that set off at once; what one of them raises is raised here."""
    barrier = threading.Barrier(number)

    def run(index: int) -> Any:
        barrier.wait()
        return action(index)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(run, range(number)))


@pytest.mark.both_databases
def test_whole_study(site: Site) -> None:
    walker = site.walker().consent()
    assert walker.step == "prescreen"
    assert walker.screen().step == "instructions"
    walker.go("instructions")
    assert [walker.step, walker.find(r'data-position="(\d+)"'), walker.find(r'data-of="(\d+)"')] == ["trial", "1", "3"]
    assert walker.listen().step == "questions"
    assert walker.finish().step == "done"
    assert len(walker.code) == 10
    assert [tuple(row) for row in site.query("SELECT position, choice FROM responses ORDER BY position")] == list(
        enumerate(walker.choices, start=1)
    )


def test_opening_the_link_makes_nothing(site: Site) -> None:
    assert site.walker().open().step == "consent"
    assert site.query("SELECT * FROM assignments") == []


def test_markdown_is_rendered_and_its_html_is_not(site: Site) -> None:
    page = site.walker().open().html
    assert "<strong>sounds</strong>" in page
    assert "<script>alert" not in page


def test_double_consent_gives_one_assignment(site: Site) -> None:
    walker = site.walker().open()
    entry = walker.find(r'name="entry" value="([^"]+)"')
    replies = [walker.client.post("/take", data={"entry": entry}) for _ in range(2)]
    assert {reply.status_code for reply in replies} == {303}
    assert replies[0].location == replies[1].location
    assert len(site.query("SELECT * FROM assignments")) == 1


@pytest.mark.both_databases
def test_double_consent_at_once_gives_one_assignment(site: Site) -> None:
    entry = site.walker().open().find(r'name="entry" value="([^"]+)"')
    replies = run_together(6, lambda _: site.walker().client.post("/take", data={"entry": entry}))
    assert {reply.status_code for reply in replies} == {303}
    assert len({reply.location for reply in replies}) == 1
    assert len(site.query("SELECT * FROM places WHERE assignment_id IS NOT NULL")) == 1


def test_reload_and_back_change_nothing(site: Site) -> None:
    walker = site.walker().begin()
    before = [walker.sound(clip) for clip in "XAB"]
    walker.reload().reload()
    assert [walker.sound(clip) for clip in "XAB"] == before
    first = walker.hear_all().answer_fields("A")
    walker.go("trial", **first)
    # Back, and the other answer: the first one stands.
    walker.go("trial", **{**first, "choice": "B"})
    assert walker.find(r'data-position="(\d+)"') == "2"
    assert [tuple(row) for row in site.query("SELECT position, choice FROM responses")] == [(1, "A")]


def test_earlier_forms_sent_again_change_nothing(site: Site) -> None:
    walker = site.walker().consent()
    item = walker.find(r'name="item" value="([^"]+)"')
    walker.screen().go("instructions").answer()
    walker.go("prescreen", item=item, count=1).go("instructions")
    assert walker.find(r'data-position="(\d+)"') == "2"
    walker.listen().finish().go("questions", q_remarks="changed").go("trial", position=1, choice="B", response_ms=1,
                                                                    plays_x=1, plays_a=1, plays_b=1)  # fmt: skip
    assert walker.step == "done"
    assert site.query("SELECT value FROM answers WHERE question = 'remarks'")[0][0] == "All well"


@pytest.mark.both_databases
def test_one_answer_from_many_clicks_at_once(site: Site) -> None:
    walker = site.walker().begin().hear_all()
    fields = walker.answer_fields()
    replies = run_together(8, lambda _: Walker(site, walker.address).post("trial", **fields))
    assert [reply.status_code for reply in replies] == [303] * 8
    assert len(site.query("SELECT * FROM responses")) == 1
    assert len(site.query("SELECT * FROM servings")) == 9  # of three trials: each once


@pytest.mark.parametrize("step", ["instructions", "trial", "questions"])
def test_later_steps_are_refused(site: Site, step: str) -> None:
    walker = site.walker().consent()
    fields = {"position": 1, "choice": "A", "response_ms": 1, "plays_x": 1, "plays_a": 1, "plays_b": 1}
    assert walker.post(step, **fields).status_code == 400
    assert walker.reload().step == "prescreen"


def test_wrong_position_is_refused(site: Site) -> None:
    walker = site.walker().begin().hear_all()
    for position in (2, 4, 99):
        assert walker.post("trial", **{**walker.answer_fields(), "position": position}).status_code == 400
    assert site.query("SELECT * FROM responses") == []


def test_an_answer_needs_all_three_sounds(site: Site) -> None:
    walker = site.walker().begin()
    for clip in "XA":
        walker.hear(clip)
    assert walker.post("trial", **walker.answer_fields()).status_code == 400
    walker.client.get(walker.sound("B"), headers={"Range": "bytes=0-9"})
    assert walker.post("trial", **walker.answer_fields()).status_code == 400
    walker.client.head(walker.sound("B"))
    assert walker.post("trial", **walker.answer_fields()).status_code == 400
    walker.hear("B")
    assert walker.post("trial", **walker.answer_fields(plays=0)).status_code == 400
    assert walker.post("trial", **walker.answer_fields()).status_code == 303


# ------------------------------------------------------------------ prescreen


def test_failing_twice_ends_kindly_and_frees_the_place(make_site: Callable[..., Site]) -> None:
    site = make_site(listeners=1)
    failed = site.walker().consent().screen(right=False)
    assert failed.step == "screened_out"
    assert len(site.query("SELECT * FROM prescreen_items WHERE answer IS NOT NULL")) == 4
    passed = site.walker().take_part()
    assert passed.step == "done"
    assert failed.reload().code != passed.code
    assert len(site.query("SELECT DISTINCT assignment_id FROM responses")) == 1


def test_a_second_attempt_can_pass_and_has_new_sounds(site: Site) -> None:
    walker = site.walker().consent()
    first = []
    for _ in range(2):
        first.append(walker.hear("tones"))
        walker.go("prescreen", item=walker.find(r'name="item" value="([^"]+)"'), count=1)
    assert "not quite right" in walker.html
    assert walker.hear("tones") not in first
    assert walker.screen().step == "instructions"


def test_one_right_item_is_not_enough(make_site: Callable[..., Site]) -> None:
    site = make_site(toml="[prescreen]\nattempts = 1\n")
    walker = site.walker().consent()
    walker.go("prescreen", item="tones-1-1", count=count_tones(walker.hear("tones")))
    walker.go("prescreen", item="tones-1-2", count=count_tones(walker.hear("tones")) + 1)
    assert walker.step == "screened_out"


def test_a_study_without_prescreen(make_site: Callable[..., Site]) -> None:
    assert make_site(toml='[prescreen]\nkind = "none"\n').walker().consent().step == "instructions"


# ------------------------------------------------------------------ places


@pytest.mark.both_databases
def test_places_are_never_overbooked(make_site: Callable[..., Site]) -> None:
    site = make_site(listeners=12, trials=1)
    # All have the consent page open while places are free.
    arrived = [site.walker().open() for _ in range(40)]
    walkers = run_together(40, lambda index: arrived[index].agree())
    assert Counter(walker.step for walker in walkers) == {"prescreen": 12, "full": 28}
    assert [row[0] for row in site.query("SELECT list_number FROM assignments ORDER BY 1")] == list(range(12))
    # Those who were told that it is full have left no trace.
    assert len(site.query("SELECT * FROM listeners")) == 12


def test_full_then_complete(make_site: Callable[..., Site]) -> None:
    site = make_site(listeners=1, trials=1)
    early, late = site.walker().begin(), site.walker().open()
    assert late.step == "full"
    assert "data-complete" not in late.html
    early.listen().finish()
    assert "data-complete" in late.open().html


def test_an_abandoned_place_is_given_to_another(make_site: Callable[..., Site], clock: FakeClock) -> None:
    site = make_site(listeners=1)
    gone = site.walker().begin().answer()
    clock.advance(59)
    assert site.walker().consent().step == "full"
    clock.advance(2)
    heir = site.walker().take_part()
    assert heir.step == "done"
    assert gone.reload().step == "expired"
    assert gone.code != heir.code
    assert len(site.query("SELECT * FROM places WHERE filled")) == 1


def test_someone_late_goes_on_where_nobody_came(make_site: Callable[..., Site], clock: FakeClock) -> None:
    site = make_site(listeners=1)
    walker = site.walker().begin().answer()
    clock.advance(500)
    assert walker.reload().step == "trial"
    walker.answer()
    # Going on has renewed the lease.
    assert site.walker().open().step == "full"
    assert walker.listen().finish().step == "done"


def test_a_late_answer_is_kept_and_marked(make_site: Callable[..., Site], clock: FakeClock) -> None:
    site = make_site(listeners=1)
    slow = site.walker().begin().answer().hear_all()
    clock.advance(61)
    assert site.walker().consent().step == "prescreen"
    slow.go("trial", **slow.answer_fields("B"))
    assert slow.step == "expired"
    assert len(slow.code) == 10
    rows = [tuple(row) for row in site.query("SELECT position, late FROM responses ORDER BY position")]
    assert rows == [(1, False), (2, True)]
    assert slow.post("trial", position=3, choice="A", response_ms=1, plays_x=1, plays_a=1, plays_b=1).status_code == 400
    assert slow.go("questions").step == "expired"


def test_who_loses_their_place_twice_and_comes_back_goes_on(make_site: Callable[..., Site], clock: FakeClock) -> None:
    site = make_site(listeners=1, trials=5)
    walker = site.walker().begin().answer()
    for _ in range(2):
        walker.hear_all()
        clock.advance(61)
        assert site.walker().consent().step == "prescreen"
        walker.go("trial", **walker.answer_fields())
        assert walker.step == "expired"
        clock.advance(61)
        assert rejoin(site, walker)
        assert walker.reload().step == "trial"
    walker.listen()
    assert walker.finish().step == "done"
    rows = [tuple(row) for row in site.query("SELECT position, late FROM responses ORDER BY position")]
    assert rows == [(1, False), (2, True), (3, True), (4, False), (5, False)]


def rejoin(site: Site, walker: Walker) -> bool:
    """As somebody who comes from the marketplace again."""
    house = site.app.extensions["rootnote"]
    with database.writing(site.app.extensions["rootnote"].engine) as session, session.begin():
        mine = lifecycle.find(session, walker.address.rpartition("/")[2])
        assert mine is not None
        return lifecycle.rejoin(session, house.experiment, mine)


def test_no_trial_is_answered_before_it_begins(site: Site) -> None:
    walker = site.walker().consent().screen()
    assert walker.step == "instructions"
    for name in walker.find(r'data-next="([^"]+)"').split():
        assert walker.client.get(name).status_code == 200
    fields = {"position": 1, "choice": "A", "response_ms": 9000, "plays_x": 1, "plays_a": 1, "plays_b": 1}
    assert walker.post("trial", **fields, seconds_x=0.1, seconds_a=0.1, seconds_b=0.1).status_code == 400
    assert site.query("SELECT * FROM responses") == []
    assert walker.reload().step == "instructions"


@pytest.mark.both_databases
def test_who_ends_while_sync_looks_for_the_absent_has_ended_so(site: Site) -> None:
    """Their place is gone, and they have not been told; they say that they cannot hear, and then `sync` writes."""
    walker = site.walker().begin()
    engine, began, looked = site.app.extensions["rootnote"].engine, threading.Event(), threading.Event()
    with database.writing(engine) as session, session.begin():
        session.execute(update(Place).values(assignment_id=None, expires_at=None))

    def ends() -> None:
        with database.writing(engine) as session, session.begin():
            mine = lifecycle.find(session, walker.address.rpartition("/")[2], lock=True)
            assert mine is not None
            began.set()
            looked.wait(1)
            lifecycle.end_for_technical_reasons(session, site.app.extensions["rootnote"].experiment, mine)

    def looks() -> None:
        began.wait(10)
        with database.writing(engine) as session, session.begin():
            lifecycle.expire_absent(session, site.clock())
            looked.set()

    run_together(2, lambda number: (ends, looks)[number]())
    assert site.query("SELECT state FROM assignments") == [("technical",)]


def test_who_holds_their_place_and_is_written_down_as_absent_comes_back(site: Site) -> None:
    walker = site.walker().begin()
    with database.writing(site.app.extensions["rootnote"].engine) as session, session.begin():
        session.execute(update(Assignment).values(state=AssignmentState.EXPIRED))
    assert rejoin(site, walker)
    assert walker.reload().step == "trial"


@pytest.mark.both_databases
def test_expired_places_are_given_once(make_site: Callable[..., Site], clock: FakeClock) -> None:
    site = make_site(listeners=4, trials=1)
    for _ in range(4):
        site.walker().begin()
    clock.advance(61)
    arrived = [site.walker().open() for _ in range(12)]
    steps = Counter(walker.step for walker in run_together(12, lambda index: arrived[index].agree()))
    assert steps == {"prescreen": 4, "full": 8}


# ------------------------------------------------------------------ leaving


@pytest.mark.parametrize("until", ["prescreen", "instructions", "trial", "questions"])
def test_leaving_is_possible_everywhere(make_site: Callable[..., Site], until: str) -> None:
    site = make_site(listeners=1)
    walker = site.walker().consent()
    if until != "prescreen":
        walker.screen()
    if until in ("trial", "questions"):
        walker.go("instructions").answer()
    if until == "questions":
        walker.listen()
    assert walker.step == until
    assert f'action="{walker.address}/leave"' in walker.html
    asked = walker.post("leave")
    assert (asked.status_code, asked.location) == (303, f"{walker.address}/leave")
    walker.page = walker.client.get(asked.location)
    assert walker.step == "leave"
    assert walker.reload().step == until
    assert walker.go("leave", confirm="yes").step == "withdrawn"
    assert len(walker.code) == 10
    assert walker.client.get(f"{walker.address}/leave").status_code == 303
    assert site.walker().take_part().step == "done"


def test_whoever_finished_cannot_leave_any_more(site: Site) -> None:
    assert site.walker().take_part().go("leave", confirm="yes").step == "done"


# ------------------------------------------------------------------ questions


QUESTIONS = """
[[questions]]
id = "loud"
type = "scale"
text = "How loud is it where you are?"
options = ["Silent", "Very loud"]
required = true
[[questions]]
id = "remarks"
type = "text"
text = "Anything else?"
"""


def test_questions_are_checked_and_nothing_typed_is_lost(make_site: Callable[..., Site]) -> None:
    site = make_site(trials=1, toml=QUESTIONS)
    walker = site.walker().begin().listen()
    walker.page = walker.post("questions", q_loud="", q_remarks="<b>kept</b>")
    assert (walker.page.status_code, walker.step) == (400, "questions")
    assert "Please answer this question." in walker.html
    assert "&lt;b&gt;kept&lt;/b&gt;" in walker.html
    assert walker.post("questions", q_loud="6").status_code == 400
    assert walker.post("questions", q_loud="3", q_remarks="x" * 2001).status_code == 400
    walker.go("questions", q_loud="3", q_remarks=" ünï\x00cödé\r\n ")
    assert walker.step == "done"
    answers = {row[0]: row[1] for row in site.query("SELECT question, value FROM answers")}
    assert answers == {"loud": "3", "remarks": "ünïcödé"}


def test_an_answer_that_was_not_offered_is_refused(site: Site) -> None:
    walker = site.walker().begin().listen()
    assert walker.post("questions", q_device="Telepathy").status_code == 400
    assert walker.go("questions").step == "done"


# ------------------------------------------------------------------ who comes


def test_a_worker_takes_part_once(site: Site) -> None:
    first = site.walker().consent("?worker=W123")
    again = site.walker().consent("?worker=W123")
    assert again.step == "taken"
    assert again.page is not None
    assert first.address.removeprefix("/a/") not in again.html
    assert site.walker().consent("?worker=W124").step == "prescreen"
    stored = str(site.query("SELECT * FROM listeners"))
    assert "W123" not in stored


@pytest.mark.both_databases
def test_a_worker_twice_at_once_gets_one_place(site: Site) -> None:
    arrived = [site.walker().open("?worker=W1") for _ in range(5)]
    walkers = run_together(5, lambda index: arrived[index].agree())
    assert sorted(walker.step for walker in walkers) == ["prescreen"] + ["taken"] * 4


def test_ones_own_link_resumes_anywhere(site: Site) -> None:
    from server.identity.tokens import TokenSigner
    from tests.server.conftest import SECRET

    link = TokenSigner(SECRET).make_link()
    walker = site.walker().consent(f"?link={link}").screen()
    elsewhere = site.walker().client.get(f"/take?link={link}")
    assert (elsewhere.status_code, elsewhere.location) == (303, walker.address)
    assert site.walker().client.get(f"/take?link={link[:-1]}").status_code == 400


def test_consent_is_versioned(site: Site) -> None:
    import hashlib

    site.walker().consent()
    version = hashlib.sha256((site.study.folder / "consent.md").read_bytes()).hexdigest()
    assert site.query("SELECT consent_version FROM assignments")[0][0] == version
