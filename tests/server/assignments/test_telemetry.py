"""What comes with an answer and what is believed of it, sounds fetched ahead, and the way out where none is heard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.assignments.telemetry import TELEMETRY, agent_class, is_plausible, read_telemetry
from server.db import database
from server.monitoring.status import shown_codes
from tests.server.conftest import Site, Walker
from tests.server.export.test_responses import export

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
HEARD = {"play_order": "XABX", "focus_losses": "2", "sample_rate": "48000", "output_latency_ms": "21.34"}


def test_telemetry_reaches_the_export(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(trials=2, toml="[player]\nconfidence = true\n")
    walker = site.walker().begin().hear_all()
    assert walker.post("trial", **walker.answer_fields()).status_code == 400, "it is asked how sure they are"
    told = {**walker.answer_fields(), **HEARD, "plays_x": 2, "seconds_x": "0.251", "confidence": "4"}
    assert walker.post("trial", **{**told, "confidence": "6"}).status_code == 400
    reply = walker.client.post(f"{walker.address}/trial", data=told, headers={"User-Agent": FIREFOX})
    assert reply.status_code == 303
    walker.reload().hear_all().go("trial", **walker.answer_fields(), confidence="1")
    first, second = export(site, tmp_path)
    expected = {"seconds_x": "0.251", "seconds_a": "0.1", "focus_losses": "2", "sample_rate": "48000"}
    expected |= {"play_order": "XABX", "output_latency_ms": "21.3", "agent_class": "firefox-desktop", "confidence": "4"}
    assert {name: first[name] for name in expected} == expected
    assert (second["play_order"], second["sample_rate"], second["confidence"]) == ("", "", "1")
    assert "Mozilla" not in str(site.query("SELECT * FROM responses"))


@pytest.mark.parametrize(
    ("agent", "known"),
    [
        (FIREFOX, "firefox-desktop"),
        ("Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0", "firefox-mobile"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36", "chrome-"),
        ("Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36", "chrome-mobile"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "edge-desktop"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 OPR/120.0", "opera-desktop"),
        ("Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML) Version/18.0 Safari/605.1.15", "safari-desktop"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1 CriOS/140.0 Mobile",
            "chrome-mobile",
        ),
        ("curl/8.5.0", "other-desktop"),
        ("", "other-desktop"),
        ("\x00" * 10_000, "other-desktop"),
    ],
)
def test_browsers_are_known_by_family_and_size_alone(agent: str, known: str) -> None:
    assert agent_class(agent).startswith(known)
    assert len(agent_class(agent)) <= 32


@pytest.mark.parametrize(
    "told",
    [
        {"response_ms": 250},  # three clips of 0.1 s were heard in a quarter of a second
        {"plays_a": 50},  # fifty times 0.1 s in 4.321 s
        {"seconds_b": "0.05"},  # half of the clip is not its whole
        {"plays_x": 3, "seconds_x": "0.1"},
        {"seconds_a": "60"},  # a minute in 4.321 s
        *({f"seconds_{clip}": bad} for clip in "xab" for bad in ("-1", "NaN", "inf", "1e300", "x", "9" * 40, "\x00")),
    ],
)
def test_what_cannot_have_been_heard_is_refused(heard: Walker, told: dict[str, Any]) -> None:
    assert heard.post("trial", **{**heard.answer_fields(), **told}).status_code == 400
    assert heard.site.query("SELECT * FROM responses") == []


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    """A listener at a first trial whose clips were all fetched; nothing that is refused changes that."""
    from sqlalchemy import make_url

    from server.app import create_app
    from server.settings import Settings
    from tests.server.conftest import SECRET, FakeClock
    from tests.server.small_study import make_study

    folder = tmp_path_factory.mktemp("heard")
    study, url = make_study(folder / "study"), make_url(f"sqlite:///{folder / 'answers.sqlite3'}")
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    clock = FakeClock()
    app = create_app(study, Settings(url, SECRET), clock=clock)
    return Site(study, app, clock, str(url)).walker().begin().hear_all()


def test_other_telemetry_that_is_none_is_left_out(site: Site) -> None:
    walker = site.walker().begin()
    odd = ["", "-1", "NaN", "Infinity", "1e999", "9" * 30, "٣", "<script>", "\x00", "XAQ", "X" * 257]
    for value in odd[:3]:
        told = dict.fromkeys(("play_order", "focus_losses", "sample_rate", "output_latency_ms"), value)
        walker.hear_all().go("trial", **{**walker.answer_fields(), **told})
    assert set(site.query("SELECT play_order, focus_losses, sample_rate, output_latency_ms FROM responses")) == {
        (None, None, None, None)
    }
    for value in odd:
        told = dict.fromkeys(("play_order", "focus_losses", "sample_rate", "output_latency_ms"), value)
        read = read_telemetry(told, "")
        assert {getattr(read, name) for name in told} == {None}


@given(
    st.dictionaries(st.sampled_from(TELEMETRY), st.text(max_size=30) | st.floats().map(str) | st.integers().map(str))
)
def test_telemetry_is_finite_or_refused(told: dict[str, str]) -> None:
    try:
        read = read_telemetry(told, told.get("agent_class", ""))
    except ValueError:
        return
    for name in ("seconds_x", "seconds_a", "seconds_b", "focus_losses", "sample_rate", "output_latency_ms"):
        value = getattr(read, name)
        assert value is None or 0 <= value < 2**31
    is_plausible((1, 1, 1), 1000, read, 0.1)


# ------------------------------------------------------------------ fetched ahead


def ahead(walker: Walker) -> list[str]:
    return walker.find(r'data-next="([^"]*)"').split()


def test_the_next_trials_sounds_can_be_fetched_ahead_and_no_later_ones(make_site: Callable[..., Site]) -> None:
    site = make_site(trials=3)
    walker = site.walker().consent().screen()
    first = ahead(walker)
    assert [walker.client.get(sound).status_code for sound in first] == [200] * 3
    walker.go("instructions")
    assert [walker.sound(clip) for clip in "XAB"] == first
    # What was fetched ahead was fetched; the answer to the next one is still refused.
    second = ahead(walker)
    assert [walker.client.get(sound).status_code for sound in second] == [200] * 3
    assert walker.post("trial", **{**walker.answer_fields(), "position": 2}).status_code == 400
    walker.go("trial", **walker.answer_fields())
    assert [walker.sound(clip) for clip in "XAB"] == second
    walker.go("trial", **walker.answer_fields())
    assert ahead(walker) == [], "the last trial has none after it"
    assert [walker.client.get(sound).status_code for sound in first + second] == [404] * 6
    # No name is given to trials that are further off, so there is nothing to guess.
    assert site.query("SELECT max(position) FROM servings") == [(3,)]


# ------------------------------------------------------------------ no sound


@pytest.mark.parametrize("until", ["prescreen", "instructions", "trial"])
def test_no_sound_is_a_way_out_that_is_paid(make_site: Callable[..., Site], until: str) -> None:
    site = make_site(listeners=1, toml="[pay]\nwithout_sound = 0.75\nwithdrawn = 0\n")
    walker = site.walker().consent()
    if until != "prescreen":
        walker.screen()
    if until == "trial":
        walker.go("instructions").answer()
    assert walker.step == until
    assert f'href="{walker.address}/technical"' in walker.html
    walker.page = walker.client.get(f"{walker.address}/technical")
    assert walker.step == "no_sound"
    assert "US dollars" in walker.html
    assert walker.reload().step == until
    assert walker.go("technical").step == "technical"
    assert walker.go("technical").go("leave", confirm="yes").step == "technical"
    with database.reading(site.app.extensions["rootnote"].engine) as session:
        assert list(shown_codes(session, site.study.config.pay)) == [(walker.code, "technical", 0.75)]
    assert walker.client.get(f"{walker.address}/technical").status_code == 303
    assert site.walker().take_part().step == "done", "the place is free again"


def test_who_is_not_paid_is_not_told_so(make_site: Callable[..., Site]) -> None:
    walker = make_site(toml="[pay]\nwithout_sound = 0\n").walker().consent()
    walker.page = walker.client.get(f"{walker.address}/technical")
    assert "paid" not in walker.html
    assert "paid" not in walker.go("technical").html
