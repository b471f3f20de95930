"""Sounds from a bucket, as listeners get them: a signed address only while a sound is due, or the bytes themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import make_url

from embeddings.errors import RootnoteError
from server.app import create_app
from server.db import database
from server.settings import Settings
from study.config import Study
from study.stimuli.storage import S3Storage, publish
from study.trial_plan import Stimulus
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.small_study import make_study
from tests.study.stimuli.bucket import BUCKET, Bucket, keep_in_bucket, serving_bucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with serving_bucket() as served:
        yield served


@pytest.fixture(scope="module")
def published(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("published") / "study"
    study = keep_in_bucket(make_study(folder, listeners=2, trials=3, catch=True))
    publish(study)
    return study


@pytest.fixture
def make_bucket_site(tmp_path: Path, clock: FakeClock, published: Study) -> Iterator[Callable[[str], Site]]:
    engines = []

    def make(delivery: str) -> Site:
        study = keep_in_bucket(published, delivery)
        url = make_url(f"sqlite:///{tmp_path / 'answers.sqlite3'}")
        engine = database.connect(url)
        database.migrate(engine)
        engines.append(engine)
        app = create_app(study, Settings(url, SECRET), clock=clock)
        engines.append(app.extensions["rootnote"].engine)
        return Site(study, app, clock, str(url))

    yield make
    for engine in engines:
        engine.dispose()


def test_a_due_sound_is_answered_with_a_signed_address(make_bucket_site: Callable[[str], Site], bucket: Bucket) -> None:
    site = make_bucket_site("redirect")
    walker = site.walker().begin()
    assert walker.page is not None
    policy = walker.page.headers["Content-Security-Policy"]
    assert f"connect-src 'self' {bucket.endpoint};" in policy
    assert f"media-src 'self' {bucket.endpoint};" in policy
    assert bucket.endpoint not in walker.client.get("/desk/sign-in").headers["Content-Security-Policy"]
    sounds = [walker.sound(clip) for clip in "XAB"]
    replies = [walker.client.get(sound) for sound in sounds]
    assert {reply.status_code for reply in replies} == {303}
    assert all(reply.headers["Cache-Control"] == "private, no-store, no-transform" for reply in replies)
    assert all(reply.headers["Referrer-Policy"] == "no-referrer" for reply in replies)
    assert len({len(reply.location) for reply in replies}) == 1
    rendered = {path.read_bytes() for path in site.study.stimuli.iterdir()}
    assert {httpx.get(reply.location).content for reply in replies} <= rendered
    # The page itself never names the bucket, and a sound that is over has no address any more.
    assert BUCKET not in walker.html
    walker.choices.append("A")
    walker.go("trial", **walker.answer_fields("A"))
    assert walker.step == "trial"
    assert walker.client.get(sounds[0]).status_code == 404
    for _ in range(2):
        for clip in "XAB":
            walker.client.get(walker.sound(clip))
        walker.go("trial", **walker.answer_fields("B"))
    assert walker.finish().step == "done"


def test_nothing_but_the_key_differs_between_the_clips_of_a_trial(
    make_bucket_site: Callable[[str], Site], bucket: Bucket
) -> None:
    """Neither the server's reply nor the bucket's has a header, but for key, signature, size and tag of the bytes."""
    site = make_bucket_site("redirect")
    walker = site.walker().begin()
    seen = []
    for clip in "XAB":
        reply = walker.client.get(walker.sound(clip))
        parts = urlsplit(reply.location)
        told = dict(reply.headers) | {"Location": parts.netloc}
        given = dict(httpx.get(reply.location).headers)
        for own in ("etag", "content-length", "x-amzn-requestid", "date", "last-modified", "x-amz-checksum-sha256"):
            given.pop(own, None)
        given.pop("x-amz-content-sha256", None)  # moto's own: it gives an upload's headers back
        seen.append((told, given))
    assert seen[0] == seen[1] == seen[2]


def test_by_proxy_listeners_never_meet_the_bucket(make_bucket_site: Callable[[str], Site], bucket: Bucket) -> None:
    site = make_bucket_site("proxy")
    walker = site.walker().take_part()
    assert walker.step == "done"
    assert walker.page is not None
    assert bucket.endpoint not in walker.page.headers["Content-Security-Policy"]
    assert site.query("SELECT count(*) FROM responses") == [(3,)]


def test_a_slow_bucket_holds_no_connection(
    make_bucket_site: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_bucket_site("proxy")
    walker = site.walker().begin()
    pool, held = site.app.extensions["rootnote"].engine.pool, []
    read = S3Storage.read

    def slowly(self: S3Storage, stimulus: Stimulus) -> bytes:
        held.append(pool.checkedout())
        return read(self, stimulus)

    monkeypatch.setattr(S3Storage, "read", slowly)
    assert walker.answer().step == "trial"
    assert held == [0, 0, 0]


def test_a_bucket_that_is_gone_is_an_error_the_player_waits_for(
    make_bucket_site: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_bucket_site("proxy")
    walker = site.walker().begin()

    def refuse(self: S3Storage, key: str) -> bytes:
        raise RootnoteError("the bucket is gone")

    with monkeypatch.context() as patch:
        patch.setattr(S3Storage, "_download", refuse)
        reply = walker.client.get(walker.sound("X"))
        assert reply.status_code == 500
        assert "bucket" not in reply.text
    assert walker.answer().step == "trial"
