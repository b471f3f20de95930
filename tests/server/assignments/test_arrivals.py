"""Many arrive at once for few places, over HTTP, with several processes of the server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from tests.scale import count
from tests.server.conftest import FakeClock, Site
from tests.server.many_listeners import Browser, Reply, make_load_study, prepare, run_apart
from tests.server.real_server import real_server

SIZES = {"sqlite": (count(60, 120), count(10, 20)), "postgresql": (count(120, 500), count(20, 90))}


async def arrive(port: int, names: list[str]) -> list[Reply]:
    """All read the information while places are free, then all consent at once."""
    browsers = [Browser(port) for _ in names]
    try:
        pages = await asyncio.gather(
            *(
                browser.send("GET", f"/take?worker={name}" if name else "/take")
                for browser, name in zip(browsers, names, strict=True)
            )
        )
        assert Counter(reply.page.step for reply in pages) == {"consent": len(names)}
        forms = [reply.page.form("/take").fields for reply in pages]
        return await asyncio.gather(
            *(browser.send("POST", "/take", form) for browser, form in zip(browsers, forms, strict=True))
        )
    finally:
        for browser in browsers:
            browser.close()


@pytest.mark.both_databases
@pytest.mark.slow
def test_more_arrive_at_once_than_there_are_places(tmp_path: Path, database_url: str) -> None:
    url = make_url(database_url)
    arrivals, places = SIZES[url.get_backend_name()]
    study = make_load_study(tmp_path / "study", places, trials=1)
    prepare(database_url)
    # Every tenth comes twice, by two links at once.
    names = [f"worker-{index - index % 10 % 2}" if index % 10 < 2 else "" for index in range(arrivals)]
    with real_server(study.folder, database_url, tmp_path / "log") as server:
        replies = run_apart(arrive(server.port, names))
    seated = [reply for reply in replies if reply.status == 303]
    told = Counter((reply.status, reply.page.step) for reply in replies if reply.status != 303)
    assert len(seated) == places
    assert len({reply.headers["location"] for reply in seated}) == places
    assert set(told) <= {(200, "full"), (409, "taken")}
    assert sum(told.values()) == arrivals - places
    engine = create_engine(url)
    with engine.connect() as connection:
        held = connection.execute(text("SELECT assignment_id FROM places WHERE assignment_id IS NOT NULL")).all()
        lists = connection.execute(text("SELECT list_number FROM assignments")).scalars().all()
        twice = connection.execute(
            text("SELECT worker_hash FROM listeners WHERE worker_hash IS NOT NULL GROUP BY 1 HAVING count(*) > 1")
        ).all()
    engine.dispose()
    assert len(set(held)) == places
    assert sorted(lists) == list(range(places))
    assert twice == []


def test_one_person_is_let_in_once_whichever_way_they_come(make_site: Callable[..., Site], clock: FakeClock) -> None:
    site = make_site(listeners=5)
    first = site.walker().consent("?worker=A1B2C3")
    assert first.step == "prescreen"
    for _ in range(2):
        assert site.walker().consent("?worker=A1B2C3").step == "taken"
        assert site.walker().consent("?worker=A1B2C3&assignment=another").step == "taken"
        first.go("leave", confirm="yes")  # nor does leaving make a second time of it
    clock.advance(1e5)
    assert site.walker().consent("?worker=A1B2C3").step == "taken"
    for same in ("a1b2c3", "%EF%BC%A11b2c3", "A1B2C3%E2%80%8B", "A1B2C3%0A", "%20A1b2C3"):
        assert site.walker().consent(f"?worker={same}").step == "taken", same
    assert site.walker().consent("?worker=a1b2c4").step == "prescreen"
    assert site.query("SELECT count(*) FROM listeners")[0][0] == 2
    assert "A1B2C3" not in str(site.query("SELECT * FROM listeners"))
