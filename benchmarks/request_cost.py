"""The cost of a request: CPU time in the server and in PostgreSQL, and the number of database round trips.

    python benchmarks/request_cost.py [--listeners 60] [--trials 5]

Listeners take a study one after another by calling the application directly (WSGI, one thread), with a separate
PostgreSQL server; the web server's own work (sockets) is not included. CPU time is measured for this thread, so other
programs on the machine have little influence, and for PostgreSQL's processes. Round trips are counted in libpq's trace,
in a second, untimed pass; they include BEGIN, COMMIT and checks that the connection is alive.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import psutil
from flask import Flask
from sqlalchemy import event, make_url
from werkzeug.test import EnvironBuilder

from server.app import create_app
from server.settings import Settings
from server.simulation.page_parser import ParsedPage, read_page
from tests.server.conftest import SECRET
from tests.server.faults import OwnPostgres, own_postgres
from tests.server.many_listeners import make_load_study, prepare

SECONDS = 3.0
KINDS = {
    "information": "the information page",
    "consent": "consenting",
    "begin": "starting to listen",
    "page": "the page of a trial",
    "sound": "a sound",
    "answer": "saving an answer",
    "questions": "the questions' answers",
}
Measure = Callable[[str], Any]


@dataclass
class ListenerClock:
    """The time, as if the listeners had listened for so many seconds more."""

    seconds: float = 0.0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.seconds)


CLOCK = ListenerClock()


@dataclass
class Caller:
    """Calls the application; `around` is a context manager for each call."""

    app: Flask
    around: Measure

    def ask(self, kind: str, path: str, fields: dict[str, str] | None = None) -> tuple[dict[str, str], bytes]:
        method = "GET" if fields is None else "POST"
        builder = EnvironBuilder(path.partition("?")[0], method=method, query_string=path.partition("?")[2])
        environ = builder.get_environ()
        if fields is not None:
            environ = EnvironBuilder(
                path, method="POST", data=urlencode(fields), content_type="application/x-www-form-urlencoded"
            ).get_environ()
        reply: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Callable[[bytes], object]:
            reply.update(status=int(status.split()[0]), headers={name.lower(): value for name, value in headers})
            return lambda data: None

        with self.around(kind):
            body = self.app(environ, start)
            data = b"".join(body)
            if hasattr(body, "close"):
                body.close()
        assert reply["status"] in (200, 303), (kind, reply)
        return reply["headers"], data

    def page(self, kind: str, path: str) -> ParsedPage:
        return read_page(self.ask(kind, path)[1].decode())

    def take(self) -> None:
        """Take the study as one listener, from the information page to the end."""
        form = self.page("information", "/take").form("/take").fields
        address = self.ask("consent", "/take", {name: str(value) for name, value in form.items()})[0]["location"]
        page, fetched = self.page("", address), set()
        self.ask("begin", f"{address}/instructions", {})
        while (page := self.page("page", address)).step == "trial":
            for sound in [*(page.sounds[slot] for slot in "XAB"), *page.attributes["data-next"].split()]:
                if sound not in fetched:
                    self.ask("sound", sound)
                    fetched.add(sound)
            fields = {"position": str(page.position), "choice": "A", "response_ms": "12000"}
            for clip in "xab":
                fields |= {f"plays_{clip}": "1", f"seconds_{clip}": f"{SECONDS:.3f}"}
            CLOCK.seconds += 12.5
            self.ask("answer", f"{address}/trial", fields)
        self.ask("questions", f"{address}/questions", {"q_remarks": "All well"})


@dataclass
class Timed:
    """CPU milliseconds by kind of request: of this thread, and of PostgreSQL's processes."""

    postgres: psutil.Process
    here: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        began = time.thread_time()
        yield
        self.here.setdefault(kind, []).append(1000 * (time.thread_time() - began))

    def database_seconds(self) -> float:
        own = [self.postgres, *self.postgres.children()]
        return float(sum(sum(process.cpu_times()[:2]) for process in own))


@dataclass
class Counted:
    """Round trips to PostgreSQL by kind of request, counted in libpq's trace of each connection."""

    trace: Path
    exchanges: dict[str, list[int]] = field(default_factory=dict)

    def watch(self, app: Flask) -> None:
        self._file = self.trace.open("wb")

        def connected(connection: Any, record: object) -> None:
            connection.pgconn.trace(self._file.fileno())

        event.listen(app.extensions["rootnote"].engine, "connect", connected)

    @contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        before = self.trace.stat().st_size
        yield
        # libpq buffers its trace until it flushes, which it does at the end of a round trip.
        traced = self.trace.read_bytes()[before:]
        self.exchanges.setdefault(kind, []).append(traced.count(b"ReadyForQuery"))


def make(folder: Path, postgres: OwnPostgres, name: str, listeners: int, trials: int) -> Flask:
    study = make_load_study(folder / name, listeners, trials, SECONDS)
    url = postgres.create(name)
    prepare(url)
    app = create_app(study, Settings(make_url(url), SECRET, requests_per_second=0), clock=CLOCK)
    app.extensions["rootnote"].engine.dispose()
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listeners", type=int, default=60)
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load before {os.getloadavg()[0]:.1f}", flush=True)
    with own_postgres() as postgres, tempfile.TemporaryDirectory() as name:
        app = make(Path(name), postgres, "timed", options.listeners + 5, options.trials)
        pid = int((Path(postgres.sockets) / "postmaster.pid").read_text().split()[0])
        timed = Timed(psutil.Process(pid))
        warm = Caller(app, Timed(timed.postgres))
        for _ in range(5):  # warm-up: compile statements, load templates, open connections
            warm.take()
        before = timed.database_seconds()
        caller = Caller(app, timed)
        for _ in range(options.listeners):
            caller.take()
        database = 1000 * (timed.database_seconds() - before)
        app.extensions["rootnote"].engine.dispose()

        app = make(Path(name), postgres, "counted", 10, options.trials)
        counted = Counted(Path(name) / "trace")
        counted.watch(app)
        caller = Caller(app, counted)
        caller.take()
        counted.exchanges.clear()
        for _ in range(5):
            caller.take()
        app.extensions["rootnote"].engine.dispose()
    for kind, what in KINDS.items():
        took, trips = timed.here[kind], np.mean(counted.exchanges[kind])
        print(f"  {what}: n = {len(took):,}, {np.mean(took):.2f} ms of CPU time, {trips:.1f} round trips")
    number, spent = sum(map(len, timed.here.values())), sum(map(sum, timed.here.values()))
    print(f"  PostgreSQL: {database / number:.2f} ms of CPU time per request")
    print(f"  a listener: {spent / options.listeners:.0f} ms, and {database / options.listeners:.0f} of PostgreSQL's")


if __name__ == "__main__":
    main()
