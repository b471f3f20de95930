"""Half-sent requests: how long saving an answer takes meanwhile, without and behind a proxy.

    python benchmarks/slow_connections.py [--slow 1000] [--listeners 40] [--trials 10] [--proxy none|nginx|caddy]

Opens connections that send a part of a request, or nothing, and keeps their number constant: one that the server ends
is replaced at once. Meanwhile listeners take the study on PostgreSQL, and /healthz is asked ten times a second. With a
proxy, half of the slow connections go to the proxy (https) and half to the server behind it; the listeners, who speak
plain http, go to the server. `--slow 0` shows the times without an attack.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import ssl
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.load import show, show_all
from tests.deploy.proxies import PROXIES, wait_for
from tests.server.faults import own_postgres
from tests.server.many_listeners import (
    Booked,
    Browser,
    ManyListener,
    compare_with_database,
    make_load_study,
    prepare,
)
from tests.server.real_server import RealServer
from tests.server.web.test_slow_connections import HALVES

HEARING, THINKING, ARRIVING = 0.3, 1.0, 3.0  # seconds
HEALTH_INTERVAL = 0.1


class Attack:
    """A constant number of half-sent requests; `ended` counts those that the other side has ended."""

    def __init__(self) -> None:
        self.ended = 0

    async def hold(self, index: int, port: int, context: ssl.SSLContext | None) -> None:
        while True:
            with contextlib.suppress(OSError):
                name = "localhost" if context else None
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=context, server_hostname=name, ssl_handshake_timeout=120 if context else None
                )
                with contextlib.suppress(OSError):
                    writer.write(HALVES[index % len(HALVES)])
                    while await reader.read(4096):
                        pass
                writer.close()
            self.ended += 1
            await asyncio.sleep(0.1)


async def ask_health(port: int, seconds: list[float]) -> None:
    browser = Browser(port)
    while True:
        began = time.monotonic()
        reply = await browser.send("GET", "/healthz")
        assert reply.status == 200
        seconds.append(time.monotonic() - began)
        await asyncio.sleep(HEALTH_INTERVAL)


async def run(options: argparse.Namespace, targets: list[tuple[int, ssl.SSLContext | None]], port: int) -> None:
    booked, health, attack = Booked(), list[float](), Attack()
    holders = [asyncio.create_task(attack.hold(index, *targets[index % len(targets)])) for index in range(options.slow)]
    await asyncio.sleep(min(5.0, options.slow / 100))
    watch = asyncio.create_task(ask_health(port, health))

    async def one(index: int) -> None:
        await asyncio.sleep(ARRIVING * index / options.listeners)
        await ManyListener(port, index, booked, HEARING, THINKING, 0.1).take()

    await asyncio.gather(*(one(index) for index in range(options.listeners)))
    for task in (watch, *holders):
        task.cancel()
    await asyncio.gather(watch, *holders, return_exceptions=True)
    found = await asyncio.to_thread(compare_with_database, booked, options.url)
    print(f"{options.slow} half-sent requests at all times, {attack.ended} ended by the server and replaced")
    print(", ".join(f"{key} {value}" for key, value in found.items()) + f", sent again {booked.again}")
    show_all(booked)
    print("  " + show("/healthz", health))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("slow", 1000), ("listeners", 40), ("trials", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--proxy", choices=("none", *PROXIES), default="none")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, proxy: {options.proxy}", flush=True)
    with (
        own_postgres() as postgres,
        tempfile.TemporaryDirectory() as name,
        (Path(name) / "log").open("w") as log,
        contextlib.ExitStack() as stack,
    ):
        study = make_load_study(Path(name) / "study", options.listeners, options.trials)
        options.url = postgres.create("slow")
        prepare(options.url)
        server = RealServer(study.folder, options.url, log, workers=os.cpu_count() or 1)
        try:
            server.start()
            targets: list[tuple[int, ssl.SSLContext | None]] = [(server.port, None)]
            if options.proxy != "none":
                proxy = stack.enter_context(PROXIES[options.proxy](server.port, Path(name)))
                wait_for(proxy.port, proxy.process)
                targets.append((proxy.port, ssl.create_default_context(cafile=str(proxy.certificate))))
            asyncio.run(run(options, targets, server.port))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
