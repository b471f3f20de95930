"""What the server forbids, limits, writes into its log and tells machines."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from werkzeug.test import Client

from server.settings import REQUESTS_PER_SECOND, read_settings
from server.web import logs
from server.web.rate_limits import Limit, Limits, network
from server.web.security_headers import MarketplaceOrigins, security_headers
from study.config import Study
from study.marketplaces import load_marketplace
from tests.reference_pages import reference
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.desk.desk_client import PASSWORD, Visit, add_researcher
from tests.server.small_study import make_study

TOKEN = "a token for tests, long enough"
HTTPS = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}


class Seconds:
    """A clock for limits."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


# ------------------------------------------------------------------ headers


@pytest.mark.parametrize("path", ["/a//token", "/static//rootnote.css", "/desk", "//evil.example//take"])
def test_no_redirect_follows_the_host_that_a_request_names(site: Site, path: str) -> None:
    environ = {"PATH_INFO": path, "QUERY_STRING": "x=1"}
    reply = Client(site.app).get(base_url="http://evil.example", environ_overrides=environ)
    if path.startswith("//"):
        assert reply.status_code == 404
        return
    assert reply.status_code == 308
    location = reply.headers["Location"]
    assert location.startswith("/") and not location.startswith("//")
    assert "evil" not in location


@pytest.mark.parametrize("recruiter", ["link", "mturk", "prolific"])
def test_pages_may_be_framed_by_the_marketplace_in_use_alone(recruiter: str) -> None:
    marketplace = load_marketplace(recruiter)
    origins = MarketplaceOrigins(marketplace.frame_origins, marketplace.form_origins)
    headers = security_headers(origins, desk=False, secure=False)
    policy = headers["Content-Security-Policy"]
    framed = policy.partition("frame-ancestors ")[2]
    assert {"mturk": "worker.mturk.com", "prolific": "app.prolific.com"}.get(recruiter, "'none'") in framed
    assert ("mturk" in policy) == (recruiter == "mturk")
    assert ("X-Frame-Options" in headers) == (framed == "'none'")
    assert "frame-ancestors 'none'" in security_headers(origins, desk=True, secure=False)["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "*" not in policy


@pytest.mark.slow
def test_hsts_only_by_https_and_headers_only_from_trusted_proxies(make_site: Callable[..., Site]) -> None:
    site = make_site()
    assert "Strict-Transport-Security" not in Client(site.app).get("/healthz", headers=HTTPS).headers
    public = make_site(settings={"public_url": "https://study.example.org"})
    assert Client(public.app).get("/nothing").headers["Strict-Transport-Security"].startswith("max-age=")
    behind = make_site(settings={"trusted_proxies": 1, "requests_per_second": 0.01})
    assert "Strict-Transport-Security" in Client(behind.app).get("/healthz", headers=HTTPS).headers
    # One request was this address's all; another address, told by the proxy, has its own.
    assert Client(behind.app).get("/healthz", headers=HTTPS).status_code == 429
    assert Client(behind.app).get("/healthz", headers=HTTPS | {"X-Forwarded-For": "203.0.113.10"}).status_code == 200
    assert (
        Client(behind.app).get("/healthz", headers=HTTPS | {"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}).status_code
        == 429
    )


# ------------------------------------------------------------------ limits


def test_too_many_requests_are_told_kindly_when_to_come_again(make_site: Callable[..., Site]) -> None:
    client = Client(make_site(settings={"requests_per_second": 0.02}).app)
    assert [client.get("/take").status_code for _ in range(3)] == [200, 200, 429]
    # A forwarded address is not believed.
    reply = client.get("/take", headers={"X-Forwarded-For": "203.0.113.77"})
    assert reply.status_code == 429
    assert 1 <= int(reply.headers["Retry-After"]) <= 50
    assert '<main data-step="error"' in reply.text
    assert "wait a moment" in reply.text


def test_one_sound_is_not_made_over_and_over(make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.web.rate_limits.TOKEN_BURST", 4)
    monkeypatch.setattr("server.web.rate_limits.TOKEN_PER_SECOND", 0.001)  # a slow machine must not refill it
    walker = make_site().walker().consent()
    sound = walker.sound("tones")
    assert [walker.client.get(sound).status_code for _ in range(6)] == [200] * 4 + [429] * 2
    assert [walker.client.get(walker.address).status_code for _ in range(5)] == [200] * 3 + [429] * 2


def test_a_launch_of_500_behind_one_address_meets_no_limit() -> None:
    """Forty requests each within ten seconds, then one each in three seconds for ten minutes."""
    clock = Seconds()
    limits = Limits(REQUESTS_PER_SECOND, clock)
    sent = [(i * 10 / 20_000, i % 500) for i in range(20_000)]
    sent += [(10 + i * 3 / 500, i % 500) for i in range(100_000)]
    for clock.now, listener in sent:
        assert limits.wait("198.51.100.1", f"token {listener}") == 0


def test_one_listener_cannot_take_what_is_the_others() -> None:
    limits = Limits(REQUESTS_PER_SECOND, Seconds())
    waits = [limits.wait("198.51.100.1", "one") for _ in range(400)]
    assert waits[:300] == [0.0] * 300
    assert all(waits[300:])
    assert limits.wait("198.51.100.1", "another") == 0


@given(st.lists(st.floats(0, 50), min_size=1, max_size=60), st.floats(0.1, 20), st.integers(1, 10))
def test_a_bucket_lets_through_its_size_and_its_rate(gaps: list[float], rate: float, burst: int) -> None:
    clock = Seconds()
    limit = Limit(rate, burst, clock)
    passed = 0
    for gap in gaps:
        clock.now += gap
        wait = limit.take("key")
        passed += not wait
        assert 0 <= wait <= 1 / rate
    assert passed <= burst + rate * sum(gaps) + 1e-6


def test_addresses_are_counted_by_household() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff") != network("2001:db8:0:1::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") != network("192.0.2.2")
    assert network(None) == network("nonsense") == "unknown"


# ------------------------------------------------------------------ logs


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The server's log, with everything put back afterwards."""
    names = ("", "server", *logs.FOREIGN)
    kept = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in names}
    stream = io.StringIO()
    logs.configure(stream)
    yield stream
    for name, (handlers, level) in kept.items():
        logging.getLogger(name).handlers[:] = handlers
        logging.getLogger(name).setLevel(level)


def test_the_log_names_nobody(site: Site, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole study, a mistyped address and a failure; then the log is searched for all that names someone."""
    walker = site.walker()
    person = {"REMOTE_ADDR": "203.0.113.7", "HTTP_USER_AGENT": "A browser of mine"}
    walker.client = Client(lambda environ, start: site.app({**environ, **person}, start))
    walker.consent("?worker=A1WORKER").screen().go("instructions")
    sounds = [walker.sound(clip) for clip in "XAB"]
    walker.listen().finish()
    walker.client.get("/nothing/of/this/name")
    walker.client.open("/take", method="BREW")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"about {walker.address}")

    researcher = Visit(site)
    add_researcher(site, "anna.b")
    researcher.sign_in("anna.b", "a password mistyped")
    researcher.signed_in("anna.b").page("log")
    monkeypatch.setattr("server.assignments.lifecycle.find", fail)
    failed = walker.client.get(walker.address)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    error = next(line for line in lines if line["event"] == "failed")
    assert error["error"] == "RuntimeError"
    assert any("server/participant/views.py" in frame for frame in error["at"])
    assert error["reference"] in failed.text
    assert {"time", "level", "route", "method", "status", "ms"} <= lines[0].keys()
    assert {line["route"] for line in lines} >= {"participant.take", "participant.audio", None}
    people = site.query(
        "SELECT a.pseudonym, l.pseudonym, worker_hash, token_hash, completion_code FROM assignments a, listeners l"
    )
    secrets = [
        walker.address.rpartition("/")[2],
        *sounds,
        "A1WORKER",
        "203.0.113.7",
        "browser of mine",
        "/of/this",
        "BREW",
    ]
    for secret in [*secrets, *people[0], SECRET, "anna.b", PASSWORD, "mistyped"]:
        assert secret not in log.getvalue()


@pytest.mark.both_databases
def test_a_driver_that_quotes_a_value_is_not_quoted(site: Site, log: io.StringIO) -> None:
    try:
        site.query("SELECT nothing FROM assignments WHERE pseudonym = 'A1WORKER'")
    except Exception as error:
        logging.getLogger("server").error("failed", exc_info=error)
        logging.getLogger("waitress").error("Exception while serving %s", "/a/token", exc_info=error)
    assert len(log.getvalue().splitlines()) == 2
    assert "A1WORKER" not in log.getvalue()
    assert "/a/token" not in log.getvalue()


# ------------------------------------------------------------------ what machines ask


@pytest.mark.both_databases
def test_ready_while_the_database_is_this_studys(site: Site) -> None:
    client, engine = Client(site.app), site.app.extensions["rootnote"].engine
    assert client.get("/readyz").text == "ready\n"
    [(schedule,)] = site.query("SELECT schedule FROM study")
    for change, words in (
        ("UPDATE study SET schedule = 'another'", "another schedule"),
        (f"UPDATE study SET schedule = '{schedule}'", "ready"),
        ("UPDATE alembic_version SET version_num = '0000'", "rootnote server migrate"),
        ("DROP TABLE alembic_version", "cannot be read"),
    ):
        with engine.begin() as connection:
            connection.execute(text(change))
        reply = client.get("/readyz")
        assert words in reply.text
        assert reply.status_code == (200 if words == "ready" else 503)
    assert client.get("/healthz").text == "ok\n"


def test_metrics_count_for_who_bears_the_token(make_site: Callable[..., Site]) -> None:
    closed = Client(make_site(listeners=3).app)
    assert closed.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404
    site = make_site(settings={"metrics_token": TOKEN}, listeners=3)
    client, bearer = Client(site.app), {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer é"}).status_code == 404
    walker = site.walker().begin().listen()
    answered_at = site.clock.now.timestamp()
    walker.finish()
    site.walker().consent().screen(right=False)
    site.walker().begin()
    reply = client.get("/metrics", headers=bearer)
    families = {family.name: family for family in text_string_to_metric_families(reply.text)}
    numbers = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert numbers["rootnote_places", "filled"] == 1
    assert numbers["rootnote_places", "held"] == 1
    assert numbers["rootnote_places", "free"] == 1
    assert numbers["rootnote_listeners", "finished"] == 1
    assert numbers["rootnote_listeners", "screened_out"] == 1
    assert numbers["rootnote_responses_total",] == 3
    assert numbers["rootnote_arrivals_total", "informed"] == 3
    assert numbers["rootnote_recruiting",] == 1
    assert numbers["rootnote_last_response_timestamp_seconds",] == answered_at
    assert families["rootnote_responses"].type == "counter"


# ------------------------------------------------------------------ settings


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("settings") / "study", listeners=1, trials=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROOTNOTE_PUBLIC_URL", "study.example.org"),
        ("ROOTNOTE_PUBLIC_URL", "https://study.example.org/path"),
        ("ROOTNOTE_TRUSTED_PROXIES", "-1"),
        ("ROOTNOTE_TRUSTED_PROXIES", "all"),
        ("ROOTNOTE_METRICS_TOKEN", "short"),
        ("ROOTNOTE_REQUESTS_PER_SECOND", "nan"),
        ("ROOTNOTE_REQUESTS_PER_SECOND", "many"),
        ("ROOTNOTE_AT_WORK", "0"),
        ("ROOTNOTE_AT_WORK", "1.5"),
    ],
)
def test_settings_that_are_none_are_named(study: Study, name: str, value: str) -> None:
    with pytest.raises(Exception, match=name) as refused:
        read_settings(study, {"ROOTNOTE_SECRET": SECRET, name: value})
    assert type(refused.value).__name__ == "RootnoteError"


def test_every_setting_is_documented() -> None:
    root = Path(__file__).parents[3]
    read = {
        name for file in (root / "server").rglob("*.py") for name in re.findall(r'"(ROOTNOTE_\w+)"', file.read_text())
    }
    documented = reference().environment()
    assert {"ROOTNOTE_SECRET", "ROOTNOTE_PUBLIC_URL", "ROOTNOTE_METRICS_TOKEN"} <= read
    assert [name for name in sorted(read) if f"`{name}`" not in documented] == []


def test_settings_by_default_trust_nobody(study: Study, clock: FakeClock) -> None:
    settings = read_settings(study, {"ROOTNOTE_SECRET": SECRET})
    assert (settings.trusted_proxies, settings.secure, settings.metrics_token) == (0, False, "")
    assert settings.requests_per_second == REQUESTS_PER_SECOND
    assert read_settings(study, {"ROOTNOTE_SECRET": SECRET}, rehearsal=True).requests_per_second == 0
