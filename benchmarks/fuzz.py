"""Fuzzing: many malformed requests to every route of a server with listeners.

    python benchmarks/fuzz.py [--requests 10000]

Hypothesis generates the requests of tests/server/web/fuzzing.py; the database is SQLite. The run stops at the first
request that makes the server fail, reveal internals, or reach an impossible state.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from server.app import create_app
from server.db import database
from server.settings import Settings
from server.web import rate_limits
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.small_study import make_study
from tests.server.web.fuzzing import Sent, Target, requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    wanted = parser.parse_args().requests
    rate_limits.TOKEN_BURST = 1e9  # otherwise most requests would be rejected by the rate limit
    with tempfile.TemporaryDirectory() as folder:
        study, clock = make_study(Path(folder) / "study", listeners=12), FakeClock()
        url = make_url(f"sqlite:///{folder}/answers.sqlite3")
        engine = database.connect(url)
        database.migrate(engine)
        engine.dispose()
        app = create_app(study, Settings(url, SECRET, requests_per_second=0), clock=clock)
        target = Target(Site(study, app, clock, str(url)))
        statuses: Counter[int] = Counter()

        @settings(max_examples=wanted // 20 + 1, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(requests, min_size=20, max_size=20))
        def send_all(many: list[Sent]) -> None:
            for sent in many:
                reply = target.send(sent)
                target.check(reply, sent)
                statuses[reply.status_code] += 1
            target.check_state()

        while target.answered < wanted:
            send_all()
        app.extensions["rootnote"].engine.dispose()
    print(f"{target.answered} requests to {len(target.routes)} routes: none failed; statuses {dict(statuses)}")


if __name__ == "__main__":
    main()
