"""500 listeners at once: Rootnote (gunicorn and PostgreSQL) compared with oTree on the same machine.

    python benchmarks/load.py [--listeners 500] [--trials 10] [--otree PYTHON]

Listeners, server and database share the machine's cores. Every listener fetches 3-second FLAC clips like a browser
(three per trial, those of the next trial in advance), plays each once in real time, thinks for 3 s on average, and
answers. All arrive within the first seconds, so the first answer of each is reported separately. Then the database is
compared with the acknowledged answers.
`--otree` is the Python of an environment with oTree 5 or 6 and psycopg2. Its server gets the same number of
participants, who submit a page for each trial at the same pace, on the same PostgreSQL. It serves no audio, so it has
less to do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from tests.server.assignments.test_arrivals import arrive
from tests.server.faults import OwnPostgres, own_postgres
from tests.server.many_listeners import (
    Booked,
    Browser,
    ManyListener,
    Reply,
    compare_with_database,
    make_load_study,
    prepare,
)
from tests.server.real_server import RealServer

ARRIVING = 10.0  # seconds within which listeners arrive
SECONDS, THINKING = 3.0, 3.0
OTREE_APP = """\
from otree.api import *
class C(BaseConstants):
    NAME_IN_URL = 'abx'
    PLAYERS_PER_GROUP = None
    NUM_ROUNDS = {trials}
class Subsession(BaseSubsession): pass
class Group(BaseGroup): pass
class Player(BasePlayer):
    choice = models.StringField(choices=['A', 'B'])
    response_ms = models.IntegerField()
class Trial(Page):
    form_model = 'player'
    form_fields = ['choice', 'response_ms']
page_sequence = [Trial]
"""
OTREE_PAGE = """{{ block title }}Which is more similar to X?{{ endblock }}
{{ block content }}{{ formfields }}{{ next_button }}{{ endblock }}
"""
OTREE_SETTINGS = """\
SESSION_CONFIGS = [dict(name='abx', app_sequence=['abx'], num_demo_participants=1)]
ROOMS = [dict(name='load', display_name='load')]
SESSION_CONFIG_DEFAULTS = dict(real_world_currency_per_point=1, participation_fee=0)
LANGUAGE_CODE = 'en'
REAL_WORLD_CURRENCY_CODE = 'USD'
USE_POINTS = False
ADMIN_USERNAME = 'admin'
SECRET_KEY = 'for a benchmark only'
"""


def show(name: str, seconds: list[float]) -> str:
    if not seconds:
        return f"{name}: none"
    p50, p95, p99, most = (1000 * float(np.percentile(seconds, q)) for q in (50, 95, 99, 100))
    return f"{name}: n = {len(seconds):,}, median {p50:.0f} ms, p95 {p95:.0f}, p99 {p99:.0f}, max {most:.0f}"


def show_all(booked: Booked) -> None:
    seconds = booked.seconds
    print("  " + show("saving an answer", seconds["first"] + seconds["later"]))
    print("  - " + show("each listener's first, while others arrive", seconds["first"]))
    print("  - " + show("the later ones", seconds["later"]))
    for kind, what in (("page", "a page"), ("sound", "a sound"), ("door", "information or consent")):
        print("  " + show(what, seconds[kind]), flush=True)


async def listen(port: int, number: int, hearing: float) -> Booked:
    """Run all listeners, who arrive within the first seconds."""
    booked = Booked()

    async def one(index: int) -> None:
        await asyncio.sleep(ARRIVING * index / number)
        await ManyListener(port, index, booked, hearing, THINKING, SECONDS).take()

    await asyncio.gather(*(one(index) for index in range(number)))
    return booked


def rootnote(postgres: OwnPostgres, number: int, trials: int, pace: float) -> None:
    with tempfile.TemporaryDirectory() as name, (Path(name) / "log").open("w") as log:
        study = make_load_study(Path(name) / "study", number, trials, SECONDS)
        url = postgres.create("load")
        prepare(url)
        server = RealServer(study.folder, url, log, workers=os.cpu_count() or 1)
        try:
            server.start()
            began = time.monotonic()
            booked = asyncio.run(listen(server.port, number, SECONDS * pace))
            took = time.monotonic() - began
        finally:
            server.kill()
        found = compare_with_database(booked, url)
    print(f"Rootnote: {number} listeners, {trials} trials each, in {took:.0f} s; ends {dict(booked.ends)}")
    print(f"  {found['acknowledged']} answers, {found['acknowledged'] / took:.0f} a second; sent again: {booked.again}")
    print("  " + ", ".join(f"{key} {found[key]}" for key in ("lost", "changed", "doubled", "overbooked")))
    show_all(booked)


def arrivals(postgres: OwnPostgres, number: int, places: int) -> None:
    with tempfile.TemporaryDirectory() as name, (Path(name) / "log").open("w") as log:
        study = make_load_study(Path(name) / "study", places, 1)
        url = postgres.create("arrivals")
        prepare(url)
        server = RealServer(study.folder, url, log, workers=os.cpu_count() or 1)
        try:
            server.start()
            began = time.monotonic()
            replies = asyncio.run(arrive(server.port, [""] * number))
            took = time.monotonic() - began
        finally:
            server.kill()
    seated = sum(reply.status == 303 for reply in replies)
    full = sum(reply.status == 200 and reply.page.step == "full" for reply in replies)
    print(f"Rootnote: {number} arrive at once for {places} places: {seated} admitted, {full} refused, in {took:.1f} s")


# ------------------------------------------------------------------ oTree


def otree(python: str, postgres: OwnPostgres, number: int, trials: int, pace: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("abx", "_static", "_templates"):
            (folder / part).mkdir()
        (folder / "abx" / "__init__.py").write_text(OTREE_APP.format(trials=trials))
        (folder / "abx" / "Trial.html").write_text(OTREE_PAGE)
        (folder / "settings.py").write_text(OTREE_SETTINGS)
        name = postgres.create("otree").partition("?")[0].rpartition("/")[2]
        environment = {**os.environ, "OTREE_PRODUCTION": "1", "OTREE_REST_KEY": "key"}
        environment["PATH"] = f"{Path(python).parent}:{os.environ['PATH']}"  # it starts itself again through PATH
        environment.pop("PYTHONPATH", None)
        environment["DATABASE_URL"] = f"postgresql://postgres@/{name}?host={postgres.sockets}"
        program = [python, str(Path(python).parent / "otree")]
        subprocess.run([*program, "resetdb", "--noinput"], cwd=folder, env=environment, check=True, capture_output=True)
        port = free_port()
        with (folder / "log").open("w") as log:
            command = [*program, "prodserver", f"127.0.0.1:{port}"]
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            try:
                booked, took = asyncio.run(_participate(port, number, trials, pace))
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    print(f"oTree: {number} participants, {trials} trials each, in {took:.0f} s; ends {dict(booked.ends)}")
    print(f"  {booked.acknowledged} answers, {booked.acknowledged / took:.0f} a second; sent again: {booked.again}")
    show_all(booked)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def _participate(port: int, number: int, trials: int, pace: float) -> tuple[Booked, float]:
    links = await _otree_links(port, number)
    booked = Booked()
    began = time.monotonic()
    await asyncio.gather(*(_one(port, link, index, number, pace, booked) for index, link in enumerate(links)))
    return booked, time.monotonic() - began


async def _otree_links(port: int, number: int) -> list[str]:
    """Create an oTree session for `number` participants through the REST interface; returns their links."""
    url, headers = f"http://127.0.0.1:{port}", {"otree-rest-key": "key"}

    def ask(path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        reply = httpx.request(
            "GET" if body is None else "POST", f"{url}{path}", json=body, headers=headers, timeout=300
        )
        reply.raise_for_status()
        return dict(reply.json())

    for _ in range(100):
        try:
            made = await asyncio.to_thread(
                ask, "/api/sessions", {"session_config_name": "abx", "num_participants": number}
            )
            break
        except httpx.TransportError:
            await asyncio.sleep(0.5)
    session = await asyncio.to_thread(ask, f"/api/sessions/{made['code']}")
    return [f"/InitializeParticipant/{each['code']}" for each in session["participants"]]  # type: ignore[union-attr, attr-defined]


async def _one(port: int, link: str, index: int, number: int, pace: float, booked: Booked) -> None:
    rng, browser = np.random.default_rng(index), Browser(port)
    await asyncio.sleep(ARRIVING * index / number)
    answers = booked.answers[link] = {}

    async def ask(method: str, path: str, kind: str, fields: dict[str, str] | None = None) -> Reply:
        while True:
            began = time.monotonic()
            try:
                reply = await browser.send(method, path, fields)
                if reply.status < 500:
                    booked.seconds[kind].append(time.monotonic() - began)
                    return reply
            except (OSError, EOFError, ValueError):
                pass
            booked.again += 1
            await asyncio.sleep(0.5)

    def local(address: str) -> str:
        return re.sub(r"^https?://[^/]+", "", address)

    path = local((await ask("GET", link, "page")).headers["location"])
    while "/Trial/" in path:
        await ask("GET", path, "page")
        await asyncio.sleep(3 * SECONDS * pace + rng.exponential(THINKING))
        choice = str(rng.choice(["A", "B"]))
        kind = "later" if answers else "first"
        reply = await ask("POST", path, kind, {"choice": choice, "response_ms": "9500"})
        if reply.status not in (302, 303):
            booked.ends[f"status {reply.status}"] += 1
            break
        answers[len(answers) + 1] = choice
        path = local(reply.headers["location"])
    else:
        booked.ends["done"] += 1
    browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--pace", type=float, default=1.0, help="duration of playback: 1 is real time")
    parser.add_argument("--otree", metavar="PYTHON", help="Python of an environment that has oTree")
    parser.add_argument("--only-otree", action="store_true")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load before {os.getloadavg()[0]:.1f}", flush=True)
    with own_postgres() as postgres:
        if not options.only_otree:
            arrivals(postgres, options.listeners, 90)
            rootnote(postgres, options.listeners, options.trials, options.pace)
        if options.otree:
            otree(options.otree, postgres, options.listeners, options.trials, options.pace)


if __name__ == "__main__":
    main()
