"""Can an attacker infer the more similar side from the bytes that 200 listeners receive, apart from the audio?

    python benchmarks/blinding.py [--listeners 200]

Runs the attacker of tests/server/participant/attacker.py on a study in which more similar clips also have more similar
file sizes. It is tested on what the server sends, on the same with a planted leak, and on stimuli that are not padded
to one size. The attacker learns from half of the listeners and guesses the trials of the others; the p-value against
chance is exact (binomial, two-sided). The number of listeners must be a multiple of 20.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from sqlalchemy import make_url

from server.app import create_app
from server.db import database
from server.settings import Settings
from study.trial_plan import read_plan
from tests.paper_study import make_study
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.participant.attacker import Evidence, attack, collect, plant
from tests.server.participant.test_blinding import write_stimuli

LEAKS = (
    "one byte more",
    "a header",
    "an address",
    "a date as X has",
    "four times as slow",
    "a word in the page",
)


def collect_all(folder: Path, listeners: int, *, filled_up: bool) -> list[Evidence]:
    """Let listeners take a study of three trials, and record everything that they receive in them."""
    study = make_study(folder / "s", prompts=10, listeners=listeners, trials=3, toml='[prescreen]\nkind = "none"\n')
    write_stimuli(study, filled_up=filled_up)
    url = make_url(f"sqlite:///{folder / 'answers.sqlite3'}")
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    settings = Settings(url, SECRET, requests_per_second=0)
    clock = FakeClock()
    site = Site(study, create_app(study, settings, clock=clock), clock, str(url))
    plan, seen = read_plan(study), []
    for listener in range(listeners):
        walker = site.walker().consent().go("instructions")
        number = site.query("SELECT list_number FROM assignments ORDER BY id DESC LIMIT 1")[0][0]
        for trial in plan.lists[number]:
            seen.append(collect(walker, listener, trial.high_side))
            walker.go("trial", **walker.answer_fields())
    site.app.extensions["rootnote"].engine.dispose()
    return seen


def print_verdict(what: str, seen: list[Evidence]) -> None:
    verdict = attack(seen)
    print(f"{what}: {verdict.right} of {verdict.trials} right, p = {verdict.chance:.2g}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listeners", type=int, default=200)
    listeners = parser.parse_args().listeners
    with tempfile.TemporaryDirectory() as folder:
        seen = collect_all(Path(folder), listeners, filled_up=True)
    print_verdict("as it is sent", seen)
    for leak in LEAKS:
        print_verdict(f"with a leak planted, {leak}", [plant(one, leak) for one in seen])
    with tempfile.TemporaryDirectory() as folder:
        print_verdict("stimuli without padding", collect_all(Path(folder), 60, filled_up=False))


if __name__ == "__main__":
    main()
