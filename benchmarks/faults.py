"""Faults under load: servers are killed, databases stopped and connections cut; no acknowledged answer may be lost.

    python benchmarks/faults.py [--kills 20] [--stops 5] [--cuts 20] [--listeners 40]

Injects the faults of tests/server/faults.py at random times, in random order, while listeners answer on PostgreSQL:
kill
-9 of all processes or of one, `pg_ctl stop` (fast, or immediate like a crash) and a new start, and cuts of the
connections between listeners and server and between server and database. Afterwards the database is compared with the
acknowledged answers. A listener who gets no reply sends the request again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.server.faults import SOCKET, CutLine, Troubles, listen_through, own_postgres
from tests.server.many_listeners import Booked, compare_with_database, make_load_study, prepare
from tests.server.real_server import RealServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("kills", 20), ("stops", 5), ("cuts", 20), ("listeners", 40), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()

    async def run(server: RealServer, sockets: str) -> Booked:
        back, front = CutLine(to_path=f"{postgres.sockets}/{SOCKET}"), CutLine(to_port=server.port)
        async with back.at(f"{sockets}/{SOCKET}"), front.at():
            await asyncio.to_thread(server.start)
            moments = Random(options.seed)  # noqa: S311 (moments, no secrets)
            trouble = Troubles(server, front, postgres, back, moments)
            faults = [(trouble.kill_all, trouble.kill_worker)[index % 2] for index in range(options.kills)]
            faults += [trouble.stop_database] * options.stops
            faults += [(trouble.cut_listeners, trouble.cut_database)[index % 2] for index in range(options.cuts)]
            trouble.random.shuffle(faults)
            return await listen_through(trouble, faults, options.listeners, hearing=0.05, thinking=0.3, pause=1.0)

    with (
        own_postgres() as postgres,
        tempfile.TemporaryDirectory() as sockets,
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "log").open("w") as log,
    ):
        study = make_load_study(Path(folder) / "study", 5000, trials=10)
        url = postgres.create("faults")
        prepare(url)
        server = RealServer(study.folder, postgres.url(sockets, "faults"), log, workers=os.cpu_count() or 1)
        began = time.monotonic()
        try:
            booked = asyncio.run(run(server, sockets))
        finally:
            server.kill()
        found = compare_with_database(booked, url)
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, seed {options.seed}")
    print(
        f"{options.kills} kills -9, {options.stops} database stops, {options.cuts} cuts in "
        f"{time.monotonic() - began:.0f} s with {options.listeners} listeners at once"
    )
    print(f"{sum(booked.ends.values())} listeners: {dict(booked.ends)}; requests sent again: {booked.again}")
    print(", ".join(f"{key} {value}" for key, value in found.items()))
    sys.exit(any(value for key, value in found.items() if key != "acknowledged"))


if __name__ == "__main__":
    main()
