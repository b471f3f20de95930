"""The server's clock decides: what no listener can have heard is refused, or stored as doubtful and left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from analysis.responses.exclusions import ExclusionPlan, apply
from analysis.responses.load import read_responses
from server.app import create_app
from server.assignments.rehearsal_clock import HEADER
from server.settings import Settings
from tests.server.conftest import SECRET, FakeClock, Site, Walker
from tests.server.export.test_responses import export

CLIP = 3.0
LONG = {"seconds": CLIP, "toml": '[prescreen]\nsteps = ["tones"]\n'}
PLAN = ExclusionPlan(("impossible_time",))


class Script(Walker):
    """A program: it fetches every sound, waits as long as it likes, and claims that it heard them all."""

    def post(self, step: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        return self.client.post(f"{self.address}/{step}", data=fields, headers=headers)

    def claims(self, seconds: float = 9.5) -> dict[str, Any]:
        heard = {f"seconds_{clip}": CLIP for clip in "xab"}
        return {**self.answer_fields(), **heard, "response_ms": round(1000 * seconds)}

    def wait(self, seconds: float) -> None:
        self.site.clock.advance(seconds / 60)


def script(site: Site) -> Script:
    """A script at its first trial."""
    walker = site.walker().consent().screen().go("instructions")
    return Script(site, walker.address, walker.page)


def counted(site: Site, folder: Path, plan: ExclusionPlan = PLAN) -> int:
    """How many responses the analysis counts."""
    if not export(site, folder):
        return 0
    everything = read_responses(folder / "responses.csv", ExclusionPlan(())).everything
    return len(apply(everything, plan).scored)


@pytest.mark.both_databases
def test_a_script_that_answers_at_once_stores_nothing(make_site: Callable[..., Site]) -> None:
    """Ten claims of 9.5 s within 1.5 s: all are refused, in one sentence."""
    walker = script(site := make_site(trials=10, **LONG)).hear_all()
    for _ in range(10):
        walker.wait(0.15)
        reply = walker.post("trial", **walker.claims())
        assert reply.status_code == 400
        assert "Please listen to all three sounds to the end before you answer." in reply.text
    assert site.query("SELECT * FROM responses") == []


def test_the_fastest_run_that_counts_takes_as_long_as_its_sounds(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    """A script that waits as little as possible, tried in steps of 1 %: what it stores sooner is left out."""
    site = make_site(listeners=12, trials=2, **LONG)
    outcomes = {}
    for percent in (50, 89, 91, 99, 100):
        walker = script(site)
        while walker.reload().step == "trial":
            walker.hear_all()
            walker.wait(3 * CLIP * percent / 100)
            if walker.post("trial", **walker.claims(3 * CLIP)).status_code != 303:
                break
        assert (walker.step == "trial") == (percent < 90)
        outcomes[percent] = counted(site, tmp_path / str(percent)) - sum(outcomes.values())
    assert outcomes == {50: 0, 89: 0, 91: 0, 99: 0, 100: 2}
    assert {row[0].split(" ")[0] for row in site.query("SELECT doubts FROM responses")} == {"hearing", ""}


@pytest.mark.parametrize(
    ("claimed", "waited", "doubts"),
    [
        ({"plays_x": 3}, 5 * CLIP, ""),
        ({"plays_x": 3, "response_ms": 13_000}, 4.6 * CLIP, None),  # its own numbers disagree
        ({"plays_x": 3, "response_ms": 13_800}, 4.6 * CLIP, "hearing"),
        ({"plays_x": 3}, 4 * CLIP, None),  # five plays in the time of four
        ({"response_ms": 60_000}, 60, ""),
        ({"response_ms": 60_000}, 56, "response"),
        ({"response_ms": 60_000}, 30, None),  # the page was not shown for so long
        ({"seconds_a": 12.0, "response_ms": 25_000}, 16, None),
    ],
)
def test_claims_are_checked_against_the_time_since_the_answer_before(
    make_site: Callable[..., Site], claimed: dict[str, Any], waited: float, doubts: str | None
) -> None:
    walker = script(site := make_site(**LONG)).hear_all()
    walker.wait(waited)
    fields = {**walker.claims(max(9.5, 5 * CLIP)), **claimed}
    fields["seconds_x"] = CLIP * fields["plays_x"]
    assert walker.post("trial", **fields).status_code == (400 if doubts is None else 303)
    assert [row[0] for row in site.query("SELECT doubts FROM responses")] == ([] if doubts is None else [doubts])


def test_a_clip_is_not_heard_before_it_was_sent(make_site: Callable[..., Site]) -> None:
    walker = script(make_site(**LONG))
    walker.hear("X")
    walker.hear("A")
    walker.wait(30)
    walker.hear("B")
    walker.wait(1)
    assert walker.post("trial", **walker.claims()).status_code == 400
    walker.wait(2)
    assert walker.post("trial", **walker.claims()).status_code == 303


def test_a_prescreen_takes_as_long_as_its_sound(make_site: Callable[..., Site]) -> None:
    walker = make_site(toml='[prescreen]\nsteps = ["tones"]\n').walker().consent()
    bot = Script(walker.site, walker.address, walker.page)
    sound = 8 * 0.55 + 0.7
    bot.wait(sound - 0.1)
    reply = bot.post("prescreen", item="tones-1-1", count=5)
    assert reply.status_code == 400
    assert "Please listen to the sound to the end before you answer." in reply.text
    bot.wait(0.2)
    assert bot.post("prescreen", item="tones-1-1", count=5).status_code == 303
    assert bot.post("prescreen", item="tones-1-1", count=5).status_code == 303, "sending twice is harmless"
    assert bot.post("prescreen", item="tones-1-2", count=5).status_code == 400


def test_nothing_honest_is_lost(make_site: Callable[..., Site]) -> None:
    """Answers sent again, pages reloaded, an older page in another window: each trial is answered once."""
    walker = script(site := make_site(trials=3, **LONG)).hear_all()
    older = walker.claims()
    walker.wait(10)
    for _ in range(3):
        assert walker.post("trial", **older).status_code == 303
    walker.reload().hear_all()
    walker.wait(7)
    walker.reload().hear_all()  # from the start, with a shorter time on the page
    walker.wait(9.5)
    assert walker.post("trial", **{**older, "choice": "B"}).status_code == 303, "from the older page"
    assert walker.post("trial", **walker.claims()).status_code == 303
    rows = site.query("SELECT position, choice, elapsed_s, doubts FROM responses ORDER BY position")
    assert [tuple(row) for row in rows] == [(1, "A", 10.0, ""), (2, "A", 16.5, "")]


# ------------------------------------------------------------------ what was sent


def test_bytes_are_counted_and_not_the_ends_of_ranges(make_site: Callable[..., Site]) -> None:
    walker = script(site := make_site(**LONG))
    walker.hear("X")
    for clip in "AB":
        for part in ("-1", "0-99", "0-99", "200-", "100-200"):
            reply = walker.client.get(walker.sound(clip), headers={"Range": f"bytes={part}"})
            assert reply.status_code == 206
            walker.wait(5)
            if (clip, part) != ("B", "100-200"):
                assert walker.post("trial", **walker.claims()).status_code == 400, (clip, part)
    assert walker.post("trial", **walker.claims()).status_code == 303
    assert site.query("SELECT count(*) FROM servings WHERE fetched_at IS NOT NULL") == [(3,)]


def test_endless_parts_are_not_noted(make_site: Callable[..., Site]) -> None:
    walker = script(site := make_site(**LONG))
    for start in range(0, 400, 2):
        walker.client.get(walker.sound("X"), headers={"Range": f"bytes={start}-{start}"})
    [(sent,)] = site.query("SELECT sent FROM servings WHERE sent IS NOT NULL")
    assert len(sent.split(",")) == 64


# ------------------------------------------------------------------ the clock of a rehearsal


@pytest.mark.parametrize("made_by", ["rehearsal", "real"])
@pytest.mark.parametrize("served_by", ["rehearsal", "real"])
def test_only_a_rehearsal_on_its_own_database_lets_listeners_state_the_time(
    make_site: Callable[..., Site], made_by: str, served_by: str
) -> None:
    """The same header to a real server, or to a rehearsal on the database of a real study, changes nothing."""
    site = make_site(settings={"rehearsal": made_by == "rehearsal"}, **LONG)
    settings = Settings(make_url(site.database_url), SECRET, rehearsal=served_by == "rehearsal")
    served = replace(site, app=create_app(site.study, settings, clock=site.clock))
    walker = script(served).hear_all()
    reply = walker.post("trial", headers={HEADER: "9.5"}, **walker.claims())
    allowed = (made_by, served_by) == ("rehearsal", "rehearsal")
    assert reply.status_code == (303 if allowed else 400)
    for damaged in ("-9", "nan", "inf", "1e9", "", "9,5", "x" * 50):
        walker.reload()
        assert walker.post("trial", headers={HEADER: damaged}, **walker.claims()).status_code == 400
    if served_by == "real":
        again = create_app(site.study, replace(settings, rehearsal=True), clock=site.clock)
        walker = Script(replace(site, app=again), walker.address).reload()
        assert walker.post("trial", headers={HEADER: "9.5"}, **walker.claims()).status_code == 400, "once real, always"
    served.app.extensions["rootnote"].engine.dispose()


def test_the_servers_clock_set_back_refuses_nobody(make_site: Callable[..., Site], clock: FakeClock) -> None:
    walker = script(site := make_site(**LONG)).hear_all()
    clock.advance(-60)
    assert walker.post("trial", **walker.claims()).status_code == 303
    assert [tuple(row) for row in site.query("SELECT elapsed_s, doubts FROM responses")] == [(None, "")]
