"""Prolific's signed arrivals over HTTP, with keys that a server of the test publishes."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from server.recruiting.marketplaces.prolific_token import AGAIN_SECONDS, KEYS_PATH, ProlificSignatures
from tests.server.recruiting.mturk_study import MTurkWalker
from tests.server.recruiting.prolific_study import MakeProlific, ProlificStudy, Taken, make_prolific, participant

__all__ = ["make_prolific"]
HOST = "localhost"  # of the test's browser
SUBMISSION = "5" * 24


@cache
def key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class KeySite:
    """A site that publishes keys, which the test changes."""

    published: dict[str, rsa.RSAPrivateKey] = field(default_factory=dict)
    fetched: int = 0
    url: str = ""


@pytest.fixture
def keys() -> Iterator[KeySite]:
    site = KeySite({"first": key("first")})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == KEYS_PATH
            site.fetched += 1
            found = [
                json.loads(RSAAlgorithm.to_jwk(one.public_key())) | {"kid": kid, "use": "sig", "alg": "RS256"}
                for kid, one in site.published.items()
            ]
            body = json.dumps({"keys": found}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()


@dataclass
class Door:
    """A launch whose server checks signatures with these keys, at a time that the test moves on."""

    prolific: ProlificStudy
    keys: KeySite
    seconds: list[float]

    @property
    def study(self) -> str:
        return str(next(iter(self.prolific.market.state.studies)))

    def token(self, worker: str, *, kid: str = "first", signer: str = "first", **changed: Any) -> str:
        now = int(time.time())
        ids = {"PROLIFIC_PID": participant(worker), "STUDY_ID": self.study, "SESSION_ID": SUBMISSION}
        claims = {
            "iss": "https://www.prolific.com",
            "iat": now,
            "exp": now + 120,
            "aud": f"http://{HOST}/take?PROLIFIC_PID=1",
            "sub": SUBMISSION,
            "prolific": ids | {"workspace_id": "7" * 24},
        }
        return jwt.encode(claims | changed, key(signer), algorithm="RS256", headers={"kid": kid})

    def arrive(self, worker: str, token: str) -> MTurkWalker:
        walker = MTurkWalker(self.prolific.site)
        walker.mturk = self.prolific
        query = f"PROLIFIC_PID={participant(worker)}&STUDY_ID={self.study}&SESSION_ID={SUBMISSION}"
        walker.accepted = Taken(SUBMISSION, f"https://x/take?{query}&prolific_token={token}")
        return walker.arrive()

    def standings(self) -> list[str]:
        return [row[0] for row in self.prolific.site.query("SELECT verification FROM assignments ORDER BY id")]


@pytest.fixture
def door(make_prolific: MakeProlific, keys: KeySite, monkeypatch: pytest.MonkeyPatch) -> Door:
    prolific = make_prolific(listeners=8, trials=1)
    prolific.launch()
    seconds = [0.0]
    marketplace = prolific.site.app.extensions["rootnote"].marketplace_entry.marketplace
    monkeypatch.setattr(marketplace, "_signatures", ProlificSignatures(keys.url, clock=lambda: seconds[0]))
    return Door(prolific, keys, seconds)


def test_a_signed_arrival_is_confirmed_at_once(door: Door) -> None:
    walker = door.arrive("P1", door.token("P1")).agree()
    assert walker.step == "instructions"
    assert door.standings() == ["confirmed"]
    assert door.arrive("P1", "").address == walker.address, "the same submission again, the token used up"
    assert door.keys.fetched == 1
    door.arrive("P2", door.token("P2")).agree()
    assert door.keys.fetched == 1, "the keys are kept"


def test_a_token_that_cannot_be_checked_proves_nothing_and_harms_nobody(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    now = int(time.time())
    for worker, changed, words in (
        ("P1", {"exp": now - 60}, "its token has expired"),
        ("P2", {"iat": now + 90}, "this machine's clock is slow"),
        ("P3", {"kid": "unpublished"}, "a key that Prolific does not publish"),
        ("P4", {"aud": "https://other.example.org/take"}, "its token is for https://other.example.org/take"),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            walker = door.arrive(worker, door.token(worker, **changed)).agree()
        assert walker.step == "instructions"
        assert words in caplog.text
    assert door.standings() == ["unconfirmed"] * 4


def test_keys_that_cannot_be_fetched_harm_nobody(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    signatures = door.prolific.site.app.extensions["rootnote"].marketplace_entry.marketplace._signatures
    signatures._keys.uri = "http://127.0.0.1:9/none"
    with caplog.at_level(logging.WARNING):
        assert door.arrive("P1", door.token("P1")).agree().step == "instructions"
    assert "the keys at http://127.0.0.1:9/none cannot be fetched" in caplog.text
    assert door.standings() == ["unconfirmed"]


def test_a_little_difference_between_clocks_is_tolerated(door: Door) -> None:
    door.arrive("P1", door.token("P1", iat=int(time.time()) + 15, exp=int(time.time()) + 135)).agree()
    door.arrive("P2", door.token("P2", exp=int(time.time()) - 15)).agree()
    assert door.standings() == ["confirmed", "confirmed"]


def test_new_keys_are_found_and_old_ones_end(door: Door) -> None:
    door.arrive("P1", door.token("P1")).agree()
    door.keys.published = {"second": key("second")}
    early = door.token("P2", kid="second", signer="second")
    door.arrive("P2", early).agree()
    for _ in range(5):
        door.arrive("P3", door.token("P3", kid="invented", signer="second"))
    assert (door.standings(), door.keys.fetched) == (["confirmed", "unconfirmed"], 1), "no stranger makes us fetch"
    door.seconds[0] += AGAIN_SECONDS
    door.arrive("P4", door.token("P4", kid="second", signer="second")).agree()
    assert (door.standings()[-1], door.keys.fetched) == ("confirmed", 2)
    assert door.arrive("P5", door.token("P5")).agree().step == "instructions"
    assert door.standings()[-1] == "unconfirmed", "the first key is no longer published"


def test_a_forged_token_is_refused(door: Door) -> None:
    for token in (
        door.token("P1", signer="second"),
        door.token("P2"),
        door.token("P1", prolific="P1"),
        jwt.encode({"prolific": {}, "aud": HOST}, "", algorithm="none", headers={"kid": "first"}),
        jwt.encode({"aud": HOST, "exp": 9e9}, "k" * 32, algorithm="HS256", headers={"kid": "first"}),
        door.token("P1")[:-8],
        "a.b.c",
        "x" * 5000,
    ):
        walker = door.arrive("P1", token)
        assert walker.page is not None and walker.page.status_code == 400, token
        assert "This address was changed on the way here" in walker.html
    assert door.standings() == []
