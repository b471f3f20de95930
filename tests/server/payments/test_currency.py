"""The currency of a study, wherever an amount is shown: pages in three languages, terminal, desk, packet."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from server.db.models import Launch
from server.irb.context import gather
from server.irb.html import render
from study.config import load_study
from tests.server.conftest import Site
from tests.server.desk.desk_client import Visit, add_researcher
from tests.server.recruiting.panel_study import TONES, command
from tests.server.small_study import make_study

WORDS = {
    "USD": {"en": "1.17 US dollars", "de": "1,17 US-Dollar", "ar": "1.17 دولار أمريكي"},
    "GBP": {"en": "1.17 British pounds", "de": "1,17 britische Pfund", "ar": "1.17 جنيه إسترليني"},
    "EUR": {"en": "1.17 euros", "de": "1,17 Euro", "ar": "1.17 يورو"},
}
SIGNS = {"USD": "$", "GBP": "£", "EUR": "€"}


@pytest.mark.parametrize("currency", list(WORDS))
def test_listeners_read_the_amount_in_their_language(
    make_site: Callable[..., Site], tmp_path: Path, currency: str
) -> None:
    (tmp_path / "study").mkdir()
    for language in ("de", "ar"):
        (tmp_path / "study" / f"consent.{language}.md").write_text("# Consent\n")
    toml = f'{TONES}[pay]\ncurrency = "{currency}"\nscreened_out = 1.17\nwithout_sound = 1.17\n'
    site = make_site(listeners=6, trials=1, languages=["en", "de", "ar"], toml=toml)
    for language, words in WORDS[currency].items():
        failed = site.walker().consent(f"?lang={language}").screen(right=False)
        assert words in failed.html, language
        assert words in site.walker().client.get(f"/accessibility?lang={language}").text


@pytest.mark.parametrize("currency", list(SIGNS))
def test_researchers_read_its_sign(make_site: Callable[..., Site], currency: str) -> None:
    sign, other = SIGNS[currency], next(one for one in "$£" if one != SIGNS[currency])
    toml = f'{TONES}[pay]\ncurrency = "{currency}"\nreward = 1.17\nfloor_per_hour = 9\nbudget = 20\n'
    site = make_site(listeners=2, trials=1, toml=toml)
    command(site, "open")
    one = site.walker().consent().screen()
    site.clock.advance(minutes=6)
    one.go("instructions").listen().finish()
    printed = [command(site, "pay", "--yes"), command(site, "status")]
    assert f"{one.code}  {sign}1.17  reward" in printed[0]
    found = json.loads(command(site, "status", "--json"))
    assert (found["money"]["paid"], found["money"]["budget"]) == (f"{sign}1.17", f"{sign}20.00")
    assert found["wage"]["floor"] == f"{sign}9.00" and found["wage"]["median_an_hour"].startswith(sign)
    assert command(site, "codes") == f"code,outcome,{currency.lower()}\n{one.code},paid,1.17\n"
    add_researcher(site)
    visit = Visit(site)
    visit.sign_in()
    desk = visit.open().text
    assert f"{sign}9.00" in desk and found["wage"]["median_an_hour"] in desk
    assert other not in "".join(printed) + json.dumps(found["money"])


def test_the_packet_shows_it(tmp_path: Path) -> None:
    make_study(tmp_path, toml='[pay]\ncurrency = "EUR"\nreward = 1.17\n')
    page = render(gather(load_study(tmp_path), {}, datetime(2026, 3, 1, tzinfo=UTC)), [])
    assert "€1.17" in page and "$" not in page


def test_a_launch_of_an_earlier_version_goes_on(make_site: Callable[..., Site]) -> None:
    """Terms were stored under the earlier names, and there was no [recruiter.link]."""
    site = make_site(listeners=1, trials=1, toml=TONES + "[pay]\nreward = 1.17\n[recruiter.link]\nopen = true\n")
    command(site, "open")
    pay = {"reward_usd": 1.17, "minutes": 4.0, "screened_out_usd": 1.5, "without_sound_usd": None}
    terms = {"pay": pay | {"withdrawn_usd": 0.0, "expired_usd": 0.0, "floor_usd_per_hour": 15.0}}
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(update(Launch).values(terms=terms | {"recruiter": {"kind": "link"}}))
    command(site, "sync")
