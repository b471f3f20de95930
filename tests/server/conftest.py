"""A small study made of synthetic artefacts, and a listener (`Walker`) who takes it through HTTP."""

from __future__ import annotations

import contextlib
import html
import io
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from argon2 import PasswordHasher
from flask import Flask
from sqlalchemy import URL, Connection, create_engine, make_url, text
from werkzeug.test import Client, TestResponse

from server.accounts import users
from server.app import create_app
from server.db import database
from server.settings import Settings
from server.simulation.hearing import HEADPHONES, Hearing, answer_by_ear
from study.config import Study
from study.prescreen.registry import STEPS
from tests.server import postgres_child
from tests.server.small_study import make_study

SECRET = "a secret for tests only, 32 characters and more"
CHEAP_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
DUMMY_HASH = CHEAP_HASHER.hash("a random password")


TAKEN = {"prescreen": 6.0, "trial": 4.5}  # seconds that a listener takes for a page


@dataclass
class FakeClock:
    """A clock that stands still until it is advanced."""

    now: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a real PostgreSQL that runs as long as the tests."""
    with postgres_child.running() as child:
        yield child.url


_numbers = itertools.count(1)
TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def migrated_template(postgres: str) -> str:
    """The name of a migrated PostgreSQL database, to be cloned: a migration takes longer than most tests."""
    with _administrator(postgres) as connection:
        connection.execute(text(f"CREATE DATABASE {TEMPLATE}"))
    engine = database.connect(make_url(postgres).set(database=TEMPLATE))
    database.migrate(engine)
    engine.dispose()
    return TEMPLATE


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database: empty, or migrated where the test makes a site in it.

    It is SQLite's; tests marked both_databases (tests/conftest.py) run on PostgreSQL too.
    """
    if getattr(request, "param", "sqlite") == "sqlite":
        yield f"sqlite:///{tmp_path / 'answers.sqlite3'}"
        return
    server = request.getfixturevalue("postgres")
    template = request.getfixturevalue("migrated_template") if "make_site" in request.fixturenames else "template1"
    name = f"test_{next(_numbers)}"
    with _administrator(server) as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    with _administrator(server) as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@contextlib.contextmanager
def _administrator(server: str) -> Iterator[Connection]:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(autouse=True)
def cheap_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make hashing cheap in this process; commands have the real cost, which tests/deploy/test_security.py tests."""
    monkeypatch.setattr(users, "_hasher", CHEAP_HASHER)
    monkeypatch.setattr(users, "_dummy_hash", lambda: DUMMY_HASH)


@dataclass
class Site:
    """A study with its running application."""

    study: Study
    app: Flask
    clock: FakeClock
    database_url: str

    def walker(self) -> Walker:
        return Walker(self)

    def query(self, sql: str) -> list[Any]:
        with self.app.extensions["rootnote"].engine.connect() as connection:
            return list(connection.execute(text(sql)))


_migrated_sqlite: list[bytes] = []


def _migrate(url: URL) -> None:
    """Migrate a database; of SQLite's, the first is migrated and the others are copies of it."""
    path = Path(str(url.database))
    new = url.get_backend_name() == "sqlite" and not path.exists()
    if new and _migrated_sqlite:
        path.write_bytes(_migrated_sqlite[0])
        return
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    if new:
        _migrated_sqlite.append(path.read_bytes())


@pytest.fixture
def make_site(tmp_path: Path, database_url: str, clock: FakeClock) -> Iterator[Callable[..., Site]]:
    """Make a site: `make_site(listeners=2, trials=3, toml="...", settings={"public_url": "..."})`."""
    engines = []

    def make(settings: dict[str, Any] | None = None, **options: Any) -> Site:
        study = make_study(tmp_path / "study", **options)
        url = make_url(database_url)
        _migrate(url)
        app = create_app(study, Settings(url, SECRET, **(settings or {})), clock=clock)
        engines.append(app.extensions["rootnote"].engine)
        return Site(study, app, clock, database_url)

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


def count_tones(wav: bytes) -> int:
    """Count tones as a listener would: by the silences between them."""
    samples, rate = soundfile.read(io.BytesIO(wav))
    frames = np.abs(samples[: len(samples) // (rate // 50) * (rate // 50)]).reshape(-1, rate // 50).max(axis=1)
    loud = frames > 0.02
    return int(np.sum(loud[1:] & ~loud[:-1]))


@dataclass
class Walker:
    """A listener with a browser; each action follows the redirect and returns the next page."""

    site: Site
    address: str = ""
    page: TestResponse | None = None
    choices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = Client(self.site.app)
        self.since = self.site.clock.now  # when the present page was due and all its sounds were there
        self.fetched: set[str] = set()

    # What the listener sees.
    @property
    def html(self) -> str:
        assert self.page is not None
        return self.page.text

    @property
    def step(self) -> str:
        return self.find(r'<main data-step="(\w+)"')

    @property
    def code(self) -> str:
        return self.find(r"<code data-code>(\w+)</code>")

    def find(self, pattern: str) -> str:
        found = re.search(pattern, self.html)
        assert found, f"{pattern} not in {self.html}"
        return html.unescape(found[1])

    def sound(self, clip: str) -> str:
        return self.find(rf'<audio data-clip="{clip}"[^>]* src="([^"]+)"')

    # What the listener does.
    def open(self, query: str = "") -> Walker:
        self.page = self.client.get(f"/take{query}")
        return self

    def post(self, step: str, **fields: Any) -> TestResponse:
        """Post to a step of this listener's, having taken the time for it; the reply itself, not followed."""
        clock = self.site.clock
        clock.advance(max(0.0, TAKEN.get(step, 0.0) - abs((clock.now - self.since).total_seconds())) / 60)
        self.since = clock.now
        return self.client.post(f"{self.address}/{step}", data=fields)

    def go(self, step: str, **fields: Any) -> Walker:
        reply = self.post(step, **fields)
        assert reply.status_code == 303, reply.text
        return self.reload()

    def reload(self) -> Walker:
        self.page = self.client.get(self.address)
        return self

    def consent(self, query: str = "") -> Walker:
        return self.agree() if self.open(query).step == "consent" else self

    def agree(self) -> Walker:
        """Press the button of the consent page."""
        fields = {name: self.find(rf'name="{name}" value="([^"]+)"') for name in ("entry", "lang")}
        reply = self.client.post("/take", data=fields)
        if reply.status_code == 303:
            self.address = reply.location
            return self.reload()
        self.page = reply
        return self

    def hear(self, clip: str) -> bytes:
        return self.fetch(self.sound(clip))

    def fetch(self, address: str) -> bytes:
        if address not in self.fetched:
            self.fetched.add(address)
            self.since = self.site.clock.now
        reply = self.client.get(address)
        assert reply.status_code == 200
        return reply.data

    def screen(self, right: bool = True) -> Walker:
        """Answer the prescreen to its end."""
        while self.step == "prescreen":
            self.answer_item(right)
        return self

    def answer_item(self, right: bool = True, hearing: Hearing = HEADPHONES) -> Walker:
        """Answer one item of the prescreen by its sound."""
        kind, item = self.find(r'data-kind="(\w+)"'), self.find(r'name="item" value="([^"]+)"')
        sound = self.fetch(self.find(r'<audio data-clip="\w+"[^>]* src="([^"]+)"'))
        heard = answer_by_ear(kind, sound, hearing, np.random.default_rng(1))
        field = STEPS[kind].field
        return self.go("prescreen", item=item, **{field.name: heard if right else field.other(heard)})

    def begin(self) -> Walker:
        self.consent().screen().hear("volume")
        return self.go("instructions")

    def answer_fields(self, choice: str = "A", plays: int = 1) -> dict[str, Any]:
        position = self.find(r'data-position="(\d+)"')
        heard = {f"plays_{clip}": plays for clip in "xab"}
        seconds = {f"seconds_{clip}": 0.1 * plays for clip in "xab"}
        return {"position": position, "choice": choice, "response_ms": 4321, **heard, **seconds}

    def hear_all(self) -> Walker:
        for clip in "XAB":
            self.hear(clip)
        return self

    def answer(self, choice: str = "A") -> Walker:
        self.hear_all()
        self.choices.append(choice)
        return self.go("trial", **self.answer_fields(choice))

    def listen(self, choices: str = "AB") -> Walker:
        """Answer all trials, alternating `choices`."""
        for choice in itertools.cycle(choices):
            if self.step != "trial":
                return self
            self.answer(choice)
        return self

    def finish(self) -> Walker:
        return self.go("questions", q_device="Headphones or earbuds", q_music="None", q_remarks="All well")

    def take_part(self) -> Walker:
        """Take the whole study."""
        return self.begin().listen().finish()
