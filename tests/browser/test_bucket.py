"""Sounds fetched from a bucket of another origin by a real browser, under the page's content security policy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from study.config import Study
from study.stimuli.storage import publish
from tests.paper_study import make_study
from tests.study.stimuli.bucket import Bucket, keep_in_bucket, serving_bucket

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with serving_bucket() as served:
        yield served


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, bucket: Bucket) -> Study:
    toml = '[prescreen]\nkind = "none"\n'
    folder = tmp_path_factory.mktemp("bucket") / "study"
    study = keep_in_bucket(make_study(folder, prompts=6, listeners=18, trials=6, seconds=0.25, toml=toml))
    publish(study)
    return study


def test_a_trial_is_heard_from_the_bucket(browser: Browser, site: str, bucket: Bucket) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(15_000)
        refused: list[str] = []
        fetched: list[str] = []
        page.on("console", lambda message: refused.append(message.text) if message.type == "error" else None)
        page.on("response", lambda reply: fetched.append(reply.url) if reply.ok else None)
        page.goto(f"{site}/take")
        page.click("button.primary")
        page.wait_for_selector("main[data-step=instructions][data-ready]")
        assert page.request.post(f"{page.url}/instructions").ok
        page.goto(page.url)
        page.wait_for_selector("main[data-step=trial][data-ready]")
        for clip in "XAB":
            page.get_by_role("button", name=f"Play {clip}").click()
            box = page.locator("[data-player]").filter(has=page.locator(f"audio[data-clip={clip}]"))
            expect(box.locator("[data-heard]")).to_have_text("Heard")
        page.check("input[name=choice][value=A]", force=True)
        page.click("button.primary")
        page.wait_for_selector("main[data-step=trial][data-position='2'][data-ready]")
        assert refused == []
        assert sum(url.startswith(bucket.endpoint) for url in fetched) >= 6
