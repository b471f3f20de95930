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
import multiprocessing
import os
import ssl
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
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
OPENING = 6.0  # within which the slow connections are opened


@dataclass(frozen=True)
class Target:
    """A port to attack; with a certificate, over https."""

    port: int
    certificate: str = ""


def attack(targets: list[Target], number: int, ended: Synchronized[int]) -> None:
    """Hold half-sent requests open, in a process of its own; `ended` counts those that the other side has ended."""

    async def hold(index: int, target: Target, context: ssl.SSLContext | None) -> None:
        await asyncio.sleep(OPENING * index / number)
        while True:
            with contextlib.suppress(OSError):
                name = "localhost" if context else None
                streams = asyncio.open_connection("127.0.0.1", target.port, ssl=context, server_hostname=name)
                reader, writer = await streams
                with contextlib.suppress(OSError):
                    writer.write(HALVES[index % len(HALVES)])
                    while await reader.read(4096):
                        pass
                writer.close()
            ended.value += 1
            await asyncio.sleep(0.1)

    async def hold_all() -> None:
        contexts = [ssl.create_default_context(cafile=one.certificate) if one.certificate else None for one in targets]
        both = list(zip(targets, contexts, strict=True))
        await asyncio.gather(*(hold(index, *both[index % len(both)]) for index in range(number)))

    asyncio.run(hold_all())


async def ask_health(port: int, seconds: list[float]) -> None:
    browser = Browser(port)
    while True:
        began = time.monotonic()
        reply = await browser.send("GET", "/healthz")
        assert reply.status == 200
        seconds.append(time.monotonic() - began)
        await asyncio.sleep(HEALTH_INTERVAL)


async def run(options: argparse.Namespace, targets: list[Target], port: int) -> None:
    booked, health = Booked(), list[float]()
    spawning = multiprocessing.get_context("spawn")
    ended = spawning.Value("i", 0)
    attacker = spawning.Process(target=attack, args=(targets, options.slow, ended), daemon=True)
    attacker.start()
    await asyncio.sleep(OPENING + 2)
    watch = asyncio.create_task(ask_health(port, health))

    async def one(index: int) -> None:
        await asyncio.sleep(ARRIVING * index / options.listeners)
        await ManyListener(port, index, booked, HEARING, THINKING, 0.1).take()

    await asyncio.gather(*(one(index) for index in range(options.listeners)))
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    attacker.terminate()
    found = await asyncio.to_thread(compare_with_database, booked, options.url)
    print(f"{options.slow} half-sent requests at all times, {ended.value} ended by the server and replaced")
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
            targets = [Target(server.port)]
            if options.proxy != "none":
                proxy = stack.enter_context(PROXIES[options.proxy](server.port, Path(name)))
                wait_for(proxy.port, proxy.process)
                targets.append(Target(proxy.port, str(proxy.certificate)))
            asyncio.run(run(options, targets, server.port))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
