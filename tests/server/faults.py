"""Faults on purpose: servers killed, databases stopped, lines cut, while listeners go on.

The lines of `CutLine` run through this process: from the listeners to the server by TCP, from the server to
PostgreSQL by a socket file. What is cut is cut at once, whatever was under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import psutil
from sqlalchemy import URL, create_engine, make_url, text

from tests.server import postgres_child
from tests.server.many_listeners import Booked, ManyListener
from tests.server.postgres_child import PostgresChild
from tests.server.real_server import RealServer

SOCKET = ".s.PGSQL.5432"
Fault = Callable[[], Awaitable[None]]


@dataclass
class CutLine:
    """A line between two ends that can be cut; `deaf` lets requests through and drops what is answered."""

    to_port: int | None = None
    to_path: str | None = None
    port: int = 0
    deaf: bool = False
    cuts: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def at(self, path: str | None = None) -> AsyncIterator[CutLine]:
        """Open at a socket file, or at any free port."""
        make = asyncio.start_unix_server(self._join, path) if path else asyncio.start_server(self._join, "127.0.0.1", 0)
        server = await make
        self.port = 0 if path else server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._tasks)

    def cut(self) -> None:
        self.cuts += 1
        for writer in self._open:
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            if self.to_path:
                back, there = await asyncio.open_unix_connection(self.to_path)
            else:
                back, there = await asyncio.open_connection("127.0.0.1", self.to_port)
            self._open.add(there)
            pumps = [
                asyncio.ensure_future(pump) for pump in (self._pump(reader, there), self._pump(back, writer, True))
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in filter(None, (writer, there)):
                self._open.discard(end)
                end.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: bool = False) -> None:
        while data := await reader.read(2**16):
            if back and self.deaf:
                return
            writer.write(data)
            await writer.drain()


@dataclass
class OwnPostgres:
    """A PostgreSQL of one's own, to be stopped and started."""

    server: PostgresChild
    sockets: str = ""

    def __post_init__(self) -> None:
        self.sockets = str(make_url(self.server.url).query["host"])

    def url(self, sockets: str | None = None, name: str = "postgres") -> str:
        query = {"host": sockets or self.sockets}
        url = URL.create("postgresql+psycopg", "postgres", database=name, query=query)
        return url.render_as_string(hide_password=False)

    def create(self, name: str) -> str:
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name=name)

    def stop(self, how: str) -> None:
        """How: "fast" ends what is under way, "immediate" is as if it had crashed."""
        self.server.stop(how)

    def start(self) -> None:
        self.server.start()


@contextlib.contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    with postgres_child.running() as child:
        yield OwnPostgres(child)


# ------------------------------------------------------------------ the faults


@dataclass
class Troubles:
    """The faults, by name, with a generator of moments."""

    server: RealServer
    front: CutLine
    postgres: OwnPostgres | None = None
    back: CutLine | None = None
    random: random.Random = field(default_factory=lambda: random.Random(1))

    async def kill_all(self) -> None:
        """kill -9 of every process at once, and a new start."""
        await asyncio.to_thread(self.server.kill)
        await asyncio.to_thread(self.server.start)

    async def kill_worker(self) -> None:
        """kill -9 of one process; gunicorn replaces it."""
        assert self.server.process is not None
        workers = psutil.Process(self.server.process.pid).children()
        os.kill(self.random.choice(workers).pid, signal.SIGKILL)

    async def stop_database(self) -> None:
        assert self.postgres is not None
        await asyncio.to_thread(self.postgres.stop, self.random.choice(["fast", "immediate"]))
        await asyncio.sleep(self.random.uniform(0.1, 1.0))
        await asyncio.to_thread(self.postgres.start)

    async def cut_listeners(self) -> None:
        """Requests are still taken but nothing comes back, then every connection breaks."""
        self.front.deaf = True
        await asyncio.sleep(self.random.uniform(0.02, 0.3))
        self.front.cut()
        self.front.deaf = False

    async def cut_database(self) -> None:
        """As `cut_listeners`, between the server and its database."""
        assert self.back is not None
        self.back.deaf = True
        await asyncio.sleep(self.random.uniform(0.02, 0.3))
        self.back.cut()
        self.back.deaf = False


async def listen_through(
    troubles: Troubles, faults: list[Fault], at_once: int, *, hearing: float, thinking: float, pause: float
) -> Booked:
    """Have so many listeners at once, one after the other, until every fault has happened; all then finish."""
    booked, over = Booked(), False
    numbers = iter(range(1_000_000))

    async def seat() -> None:
        while not over:
            listener = ManyListener(troubles.front.port, next(numbers), booked, hearing=hearing, thinking=thinking)
            await listener.take()

    seats = [asyncio.ensure_future(seat()) for _ in range(at_once)]
    try:
        for fault in faults:
            await asyncio.sleep(troubles.random.uniform(0.2, 1.8) * pause)
            await fault()
        await asyncio.sleep(pause)
        over = True
        await asyncio.gather(*seats)
    finally:
        for task in seats:
            task.cancel()
    return booked
