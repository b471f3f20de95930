"""Many listeners at once: one thread, a connection each, and all the patience of the real page.

A listener does what its browser does: fetches the clips of a trial and those of the next, sends an answer until it is
acknowledged (303), and notes each answer with the time it took. What fails on the way is sent again.
Conventions: times in seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from sqlalchemy import create_engine, make_url, text

from server.db import database
from server.simulation.page_parser import ParsedPage, read_page
from study.config import Study
from tests.server.small_study import make_study

TOML = """\
[prescreen]
kind = "none"
[[questions]]
id = "remarks"
type = "text"
text = "Anything else?"
"""
CLIP_SECONDS = 0.1
KINDS = ("first", "later", "page", "sound", "door")
Result = TypeVar("Result")
BROKEN = (OSError, EOFError, asyncio.IncompleteReadError, TimeoutError, ValueError)


def run_apart(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in a thread of its own: a test with a browser before may have left a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def page(self) -> ParsedPage:
        return read_page(self.body.decode())


class Browser:
    """One connection that is kept alive, opened again where it broke."""

    def __init__(self, port: int, timeout: float = 30.0) -> None:
        self._port, self._timeout = port, timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, fields: dict[str, str] | None = None) -> Reply:
        """Send one request.

        Raises:
            OSError, EOFError, TimeoutError, ValueError: where the line broke.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(method, path, urlencode(fields or {}).encode())
        except BaseException:
            self.close()
            raise

    async def _exchange(self, method: str, path: str, body: bytes) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        reader, writer = self._streams
        head = [f"{method} {path} HTTP/1.1", "Host: study.test"]
        if method == "POST":
            head += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        chunked = headers.get("transfer-encoding", "") == "chunked"
        data = await (_chunks(reader) if chunked else reader.readexactly(int(headers.get("content-length", 0))))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Reply(int(lines[0].split()[1]), headers, data)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    data = b""
    while size := int(await reader.readline(), 16):
        data += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return data


@dataclass
class Booked:
    """What the listeners saw: the answers that were acknowledged by token, and how long requests took.

    A listener's first answer is told apart from later ones: it falls into the time in which others still arrive.
    """

    answers: dict[str, dict[int, str]] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in KINDS})
    again: int = 0  # requests that had to be sent again
    began: float = field(default_factory=time.monotonic)

    @property
    def acknowledged(self) -> int:
        return sum(len(answers) for answers in self.answers.values())


@dataclass
class ManyListener:
    """One listener; `hearing` is how long a clip sounds, `thinking` the mean of the time before an answer."""

    port: int
    index: int
    booked: Booked
    hearing: float = 0.0
    thinking: float = 0.0
    clip_seconds: float = CLIP_SECONDS
    patience: float = 60.0
    query: str = ""

    def __post_init__(self) -> None:
        self._browser = Browser(self.port)
        self._random = random.Random(self.index)
        self._fetched: set[str] = set()

    async def take(self) -> str:
        """Take the study; the step at which it ended."""
        try:
            step = await self._take()
        finally:
            self._browser.close()
        self.booked.ends[step] += 1
        return step

    async def _take(self) -> str:
        page = (await self._ask("GET", f"/take{self.query}", kind="door")).page
        if page.step != "consent":
            return page.step
        seated = await self._ask("POST", "/take", page.form("/take").fields, kind="door")
        if seated.status != 303:
            return seated.page.step
        self._address = seated.headers["location"]
        self.booked.answers[self._address.rpartition("/")[2]] = self._answers = {}
        return await self._walk()

    async def _walk(self) -> str:
        while True:
            page = (await self._ask("GET", self._address, kind="page")).page
            if page.step == "instructions":
                await self._fetch(page.attributes["data-next"].split())
                await self._post("instructions", {})
            elif page.step == "trial":
                await self._compare(page)
            elif page.step == "questions":
                await self._post("questions", {"q_remarks": "All well"})
            else:
                return page.step

    async def _compare(self, page: ParsedPage) -> None:
        await self._fetch([page.sounds[slot] for slot in "XAB"])
        await self._fetch(page.attributes["data-next"].split())
        think = self._random.expovariate(1 / self.thinking) if self.thinking else 0.0
        await asyncio.sleep(3 * max(self.hearing, self.clip_seconds) + think)  # as long as the server measures
        choice = self._random.choice("AB")
        fields = {"position": str(page.position), "choice": choice}
        fields |= {"response_ms": str(round(1000 * (3 * self.clip_seconds + think)) + 1)}
        for clip in "xab":
            fields |= {f"plays_{clip}": "1", f"seconds_{clip}": f"{self.clip_seconds:.3f}"}
        if await self._post("trial", fields):
            self._answers[page.position] = choice

    async def _fetch(self, sounds: list[str]) -> None:
        for sound in self._random.sample(sounds, len(sounds)):
            if sound not in self._fetched:
                assert (await self._ask("GET", sound, kind="sound")).status == 200
                self._fetched.add(sound)

    async def _post(self, step: str, fields: dict[str, str]) -> bool:
        """Whether it was acknowledged; a refusal (400) leads back to the page that is due."""
        kind = ("later" if self._answers else "first") if step == "trial" else ""
        reply = await self._ask("POST", f"{self._address}/{step}", fields, kind=kind)
        assert reply.status in (303, 400), reply.status
        return reply.status == 303

    async def _ask(self, method: str, path: str, fields: dict[str, str] | None = None, kind: str = "") -> Reply:
        """Ask until it is answered by something else than an error of the server."""
        end, wait = time.monotonic() + self.patience, 0.1
        while True:
            began = time.monotonic()
            try:
                reply = await self._browser.send(method, path, fields)
                if reply.status < 500:
                    if kind:
                        self.booked.seconds[kind].append(time.monotonic() - began)
                    return reply
            except BROKEN:
                pass
            assert time.monotonic() < end, f"{method} to a listener's page was never answered"
            self.booked.again += 1
            await asyncio.sleep(wait * (0.5 + self._random.random()))
            wait = min(2 * wait, 1.0)


def make_load_study(folder: Path, listeners: int, trials: int = 10, seconds: float = CLIP_SECONDS) -> Study:
    """A study without prescreen whose clips last so long."""
    return make_study(folder, listeners=listeners, trials=trials, toml=TOML, seconds=seconds)


def prepare(database_url: str) -> None:
    """Make the tables."""
    engine = database.connect(make_url(database_url))
    database.migrate(engine)
    engine.dispose()


def compare_with_database(booked: Booked, database_url: str) -> dict[str, int]:
    """Acknowledged answers that are missing or other than sent, answers kept twice, and places given twice."""
    engine = create_engine(make_url(database_url))
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT a.token_hash, r.position, r.choice "
                "FROM responses r JOIN assignments a ON a.id = r.assignment_id"
            )
        ).all()
        holders = connection.execute(text("SELECT assignment_id FROM places WHERE assignment_id IS NOT NULL")).all()
        seated = connection.execute(text("SELECT list_number FROM assignments WHERE state <> 'expired'")).all()
    engine.dispose()
    kept = {(row[0], row[1]): row[2] for row in rows}
    sent = {
        (hashlib.sha256(token.encode()).hexdigest(), position): choice
        for token, answers in booked.answers.items()
        for position, choice in answers.items()
    }
    return {
        "acknowledged": len(sent),
        "lost": sum(key not in kept for key in sent),
        "changed": sum(key in kept and kept[key] != choice for key, choice in sent.items()),
        "doubled": len(rows) - len(kept),
        "overbooked": len(holders) - len(set(holders)) + len(seated) - len(set(seated)),
    }
