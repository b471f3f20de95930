"""What the replies tell and what they refuse: headers, sounds, damaged and hostile input."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from server.assignments.trials import SLOTS
from tests.server.conftest import Site

SECURITY = ("Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options", "X-Frame-Options")
LEAKY = ("ETag", "Last-Modified", "Content-Disposition", "Set-Cookie", "Server", "X-Powered-By")
HOSTILE = ["", " ", "0", "-1", "1.5", "1e3", "9" * 40, "NaN", "٣", "²", "A' OR 1=1 --", "<script>", "\x00", "é" * 500]


@pytest.mark.parametrize("path", ["/take", "/nothing", "/a/none", "/audio/none", "/healthz", "/static/rootnote.css"])
def test_headers_of_every_reply(site: Site, path: str) -> None:
    reply = site.walker().client.get(path, buffered=True)
    assert all(name in reply.headers for name in SECURITY)
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    assert "Set-Cookie" not in reply.headers
    cached = "public, max-age=86400" if path.startswith("/static") else "private, no-store, no-transform"
    assert reply.headers["Cache-Control"] == cached


def test_healthz(site: Site) -> None:
    assert site.walker().client.get("/healthz").text == "ok\n"
    assert site.walker().client.head("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/a/" + "x" * 43, 404),
        ("GET", "/a/" + "x" * 5000, 404),
        ("GET", "/a/%00", 404),
        ("DELETE", "/take", 405),
        ("POST", "/take", 400),
        ("GET", "/take?worker=" + "w" * 200, 400),
        ("GET", "/audio/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/static/../app.py", 404),
    ],
)
def test_error_pages_are_plain(site: Site, method: str, path: str, status: int) -> None:
    reply = site.walker().client.open(path, method=method)
    assert reply.status_code == status
    assert '<main data-step="error"' in reply.text
    for jargon in ("Traceback", "Werkzeug", "Method Not Allowed", "Bad Request", "URL", "HTTP"):
        assert jargon not in reply.text


def test_too_much_is_refused(site: Site) -> None:
    walker = site.walker().begin().listen()
    reply = walker.post("questions", q_remarks="x" * 70_000)
    assert reply.status_code == 413
    assert '<main data-step="error"' in reply.text
    assert walker.reload().step == "questions"


def test_the_longest_answers_fit_in_any_script(make_site: Callable[..., Site]) -> None:
    """Twelve bytes a character, as an emoji is sent."""
    toml = "".join(f'[[questions]]\nid = "q{n}"\ntype = "text"\ntext = "Tell."\n' for n in range(10))
    walker = make_site(trials=1, toml=toml).walker().begin().listen()
    reply = walker.post("questions", **{f"q_q{n}": "\N{MUSICAL SYMBOL G CLEF}" * 2000 for n in range(10)})
    assert reply.status_code == 303
    assert walker.reload().step == "done"


def test_a_sound_of_an_impossible_name(site: Site) -> None:
    for name in ("%00", "x" * 42 + "%00", "x" * 43, "x" * 64, "%F0%9F%8E%B5" * 43):
        assert site.walker().client.get(f"/audio/{name}").status_code == 404


@pytest.mark.both_databases
def test_a_failing_server_says_so_kindly_and_keeps_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    walker = site.walker().begin().hear_all()

    def fail(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("server.assignments.trials.serve_clips", fail)
    reply = walker.post("trial", **walker.answer_fields())
    assert reply.status_code == 500
    assert "secret detail" not in reply.text
    assert site.query("SELECT * FROM responses") == []
    monkeypatch.undo()
    assert walker.post("trial", **walker.answer_fields()).status_code == 303


# ------------------------------------------------------------------ sounds


def told(reply: TestResponse) -> str:
    """What the headers tell, but for length and time."""
    return str([header for header in reply.headers if header[0] not in ("Content-Length", "Date")])


def test_sounds_leak_nothing_but_themselves(make_site: Callable[..., Site]) -> None:
    site = make_site(catch=True)
    walker = site.walker().begin()
    files = {path.read_bytes(): path.name for path in site.study.stimuli.iterdir()}
    while walker.step == "trial":
        replies = [walker.client.get(walker.sound(clip)) for clip in SLOTS]
        for reply in replies:
            assert not any(name in reply.headers for name in LEAKY)
            assert reply.data in files
            assert files[reply.data] not in str(reply.headers)
        # All alike but for what is heard, even where X and a clip are the same (a catch trial).
        assert len({told(reply) for reply in replies}) == 1
        assert len({reply.mimetype for reply in replies}) == 1
        assert len({hashlib.sha256(reply.data).digest() for reply in replies}) == 3
        walker.answer()


def test_ranges(site: Site) -> None:
    walker = site.walker().begin()
    whole = walker.hear("X")
    part = walker.client.get(walker.sound("X"), headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.data) == (206, whole[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(whole)}"
    assert not any(name in part.headers for name in LEAKY)
    assert walker.client.get(walker.sound("X"), headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
    for clip in "XAB":  # as browsers do: a first look, then the rest
        walker.client.get(walker.sound(clip), headers={"Range": "bytes=0-1"})
        walker.client.get(walker.sound(clip), headers={"Range": "bytes=2-"})
    assert walker.post("trial", **walker.answer_fields()).status_code == 303


def test_a_sound_is_there_only_while_it_is_due(site: Site) -> None:
    walker = site.walker().consent()
    tones = walker.sound("tones")
    walker.screen().go("instructions")
    clip = walker.sound("A")
    assert walker.client.get(tones).status_code == 404
    walker.answer()
    assert walker.client.get(clip).status_code == 404
    later = walker.sound("A")
    walker.go("leave", confirm="yes")
    assert walker.client.get(later).status_code == 404


def test_names_of_sounds_are_each_listeners_own(site: Site) -> None:
    first, second = site.walker().begin(), site.walker().begin()
    names = [walker.sound(clip) for walker in (first, second) for clip in "XAB"]
    assert len(set(names)) == 6
    assert all(re.fullmatch(r"/audio/[\w-]{43}", name) for name in names)


def test_pages_tell_neither_bin_nor_side(make_site: Callable[..., Site]) -> None:
    """With random names taken out, the trial page is the same whichever side the more similar clip is on."""
    site = make_site(listeners=6, trials=4)
    pages = {}
    for _ in range(6):
        walker = site.walker().begin()
        while walker.step == "trial":
            page = re.sub(r"/(audio|a)/[\w-]+", "", walker.html)
            position = walker.find(r'data-position="(\d+)"')
            assert pages.setdefault(position, page) == page
            for word in ("high", "bin", "similarity", "catch", "logmel", "scored"):
                assert word not in page
            walker.answer()


def test_the_prescreens_answer_is_nowhere(make_site: Callable[..., Site]) -> None:
    """Pages, lengths and headers are the same whatever the count."""
    site = make_site(listeners=12)
    seen = set()
    for _ in range(12):
        walker = site.walker().consent()
        reply = walker.client.get(walker.sound("tones"))
        seen.add((re.sub(r"/(audio|a)/[\w-]+", "", walker.html), told(reply), len(reply.data)))
    assert len(seen) == 1
    assert len({row[0] for row in site.query("SELECT CAST(params AS VARCHAR(200)) FROM prescreen_items")}) == 24


# ------------------------------------------------------------------ hostile input


@pytest.mark.parametrize("field", ["position", "choice", "response_ms", "plays_x", "plays_a", "plays_b"])
def test_damaged_trial_fields_are_refused(site: Site, field: str) -> None:
    walker = site.walker().begin().hear_all()
    good = walker.answer_fields()
    for value in HOSTILE:
        if (field, value) == ("response_ms", "0"):
            continue
        assert walker.post("trial", **{**good, field: value}).status_code == 400
    assert walker.post("trial", **{name: v for name, v in good.items() if name != field}).status_code == 400
    assert site.query("SELECT * FROM responses") == []
    assert walker.post("trial", **good).status_code == 303


def test_damaged_prescreen_fields_are_refused(site: Site) -> None:
    walker = site.walker().consent()
    for value in HOSTILE:
        if value not in ("0", "٣"):  # these are numbers of tones
            assert walker.post("prescreen", item="tones-1-1", count=value).status_code == 400
        assert walker.post("prescreen", item=value, count=5).status_code == 400
    for item in ("1-2", "2-1", "1-3", "0-1", "99-99"):
        assert walker.post("prescreen", item=f"tones-{item}", count=5).status_code == 400
    for item in ("1-1", "tones", "tones-1", "huggins-1-1", "volume-1-1", "noise-1-1", "--", "tones--1"):
        assert walker.post("prescreen", item=item, count=5, interval=1, heard=1).status_code == 400
    assert site.query("SELECT * FROM prescreen_items WHERE answer IS NOT NULL") == []


def test_forged_entries_are_refused(site: Site) -> None:
    from server.identity.tokens import TokenSigner

    forged = TokenSigner("x" * 40)
    ticket = forged.new_ticket("0" * 64)
    assert ticket is not None
    for value in [*HOSTILE, forged.sign_ticket(ticket)]:
        assert site.walker().client.post("/take", data={"entry": value}).status_code == 400
    assert site.query("SELECT * FROM assignments") == []


def test_the_entry_names_nobody(site: Site) -> None:
    import base64

    entry = site.walker().open("?worker=WORKER-7").find(r'name="entry" value="([^"]+)"')
    payload = base64.urlsafe_b64decode(entry.split(".")[0] + "===")
    assert b"WORKER-7" not in payload


texts = st.text(max_size=80)
fields = st.dictionaries(
    st.sampled_from(
        ["entry", "item", "count", "position", "choice", "response_ms", "plays_x", "confirm", "q_device", "q_remarks"]
    ),
    texts | st.integers(-5, 10**12).map(str),
    max_size=8,
)


@pytest.mark.both_databases
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.sampled_from(["prescreen", "instructions", "trial", "questions", "leave"]) | texts, sent=fields)
def test_nothing_sent_breaks_the_server(fuzzed: Site, step: str, sent: dict[str, str]) -> None:
    walker = fuzzed.walker()
    if fuzzed.app.extensions["address"] is None:
        fuzzed.app.extensions["address"] = walker.consent().address
    walker.address = fuzzed.app.extensions["address"]
    from urllib.parse import quote

    assert walker.post(quote(step, safe=""), **sent).status_code < 500
    assert walker.reload().page is not None
    assert walker.page is not None
    assert walker.page.status_code == 200


@pytest.fixture
def fuzzed(site: Site) -> Site:
    site.app.extensions["address"] = None
    return site


def test_no_external_resources_and_little_weight(site: Site) -> None:
    walker = site.walker().begin()
    links = re.findall(r'(?:src|href|action)="([^"]+)"', walker.html)
    assert links
    assert all(link.startswith("/") for link in links)
    assert "style=" not in walker.html
    static = Path(site.app.root_path) / "static"
    parts = [static / name for name in re.findall(r'(?:src|href)="/static/([\w.]+)', walker.html)]
    assert len(parts) == 4
    assert len(walker.html) + sum(path.stat().st_size for path in parts) < 50_000
