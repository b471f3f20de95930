"""A marketplace that is one file and one registry line goes through the whole product: here the toy marketplace."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

import rootnote
from embeddings.errors import RootnoteError
from server.identity.vault import Vault, new_key
from server.irb.context import gather
from server.irb.html import render
from server.privacy.storage_locations import storage_locations
from server.public_release.design import published_design
from study.config import load_study
from study.marketplaces import MARKETPLACES
from study.preregistration.exclusion_rules import plan_of
from tests.extensions.toy_marketplace import TOY
from tests.server.conftest import SECRET, Site, Walker, clock, database_url, make_site, postgres
from tests.server.desk.desk_client import Visit, add_researcher
from tests.server.small_study import make_study

__all__ = ["clock", "database_url", "make_site", "postgres"]  # fixtures
KEY = new_key()
TOML = '[recruiter]\nkind = "toy"\n[prescreen]\nkind = "none"\n'
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def site(make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setitem(MARKETPLACES.built_in, "toy", TOY)
    return make_site(listeners=2, trials=1, toml=TOML, settings={"vault": Vault([KEY])})


@pytest.fixture
def run(site: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run `rootnote …` on the site's study and database; the output."""
    given = {"ROOTNOTE_SECRET": SECRET, "ROOTNOTE_VAULT_KEY": KEY, "ROOTNOTE_DATABASE_URL": site.database_url}
    for name, value in (given | {"ROOTNOTE_PUBLIC_URL": "https://study.example.org"}).items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> str:
        result = CliRunner().invoke(rootnote.cli, [*words[:2], str(site.study.folder), *words[2:]])
        if isinstance(result.exception, RootnoteError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return run


def arrive(site: Site, person: int) -> Walker:
    walker = Walker(site)
    walker.open(f"?participant=p{person}&session=s{person}")
    return walker


def take_part(site: Site, person: int) -> Walker:
    walker = arrive(site, person)
    fields = {name: walker.find(rf'name="{name}" value="([^"]+)"') for name in ("entry", "arrival")}
    walker.address = walker.client.post("/take", data=fields).location
    walker.reload().go("instructions")
    return walker.listen().finish()


def test_from_open_to_the_last_payment(site: Site, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    early = arrive(site, 1)
    assert early.page.status_code == 400, "nothing is posted yet"
    assert "does not recognise the place" in early.html
    run("server", "open", "--dry-run")
    assert site.query("SELECT * FROM launch") == []
    opened = run("server", "open")
    assert "Toy Panel" in opened and "https://study.example.org/take" in opened
    counted = json.loads(run("server", "status", "--json"))
    assert counted["money"]["budget"] == "no limit"
    first = take_part(site, 1)
    assert arrive(site, 1).page.status_code == 303, "the same participant finds the same run"  # type: ignore[union-attr]
    run("server", "sync")
    assert site.query("SELECT state FROM assignments") == [("finished",)], "nothing is given back behind their back"
    paid = run("server", "pay", "--yes")
    assert first.code in paid and "€1.50" in paid
    assert site.query("SELECT kind, cents, state FROM payments") == [("reward", 150, "paid")]
    assert site.query("SELECT state FROM assignments") == [("paid",)]
    assert site.query("SELECT status FROM submissions") == [("approved",)]
    assert "Nothing is due" in run("server", "pay", "--yes")
    run("server", "sync")
    take_part(site, 2)
    run("server", "pay", "--yes")
    run("server", "close", "--yes")
    assert site.query("SELECT count(*) FROM openings WHERE settled_at IS NULL") == [(0,)]
    assert site.query("SELECT sum(cents) FROM payments") == [(300,)]
    add_researcher(site)
    overview = Visit(site).signed_in().page()
    assert "finished" in overview.lower()


def test_the_packet_the_inventory_and_the_release_know_it(tmp_path: Path, site: Site) -> None:
    study = make_study(tmp_path / "toy", toml=TOML + '[recruiter.toy]\nproject = "p7"\n')
    packet = render(gather(study, {}, datetime(2026, 3, 1, tzinfo=UTC)), [])
    assert "Toy Panel" in packet and "€1.50" in packet
    assert "Toy Panel" in {place.name for place in storage_locations(study.config)}
    text, withheld = published_design(study, plan_of(study.config), seed=True)
    assert "recruiter.toy.project" in withheld and "p7" not in text


def test_pages_may_be_framed_by_it(site: Site) -> None:
    policy = Walker(site).client.get("/healthz").headers["Content-Security-Policy"]
    assert "frame-ancestors https://toy.example.org" in policy


def test_its_section_is_checked_by_its_own_model(tmp_path: Path, site: Site) -> None:
    for line, words in (
        ('projct = "p7"', r"unknown key 'recruiter\.toy\.projct'; did you mean 'project'"),
        (f'project = "{"p" * 21}"', r"'recruiter\.toy\.project'"),
    ):
        with pytest.raises(RootnoteError, match=rf"study\.toml: .*{words}"):
            make_study(tmp_path / "toy", toml=f"{TOML}[recruiter.toy]\n{line}\n")


def test_it_is_rehearsed_by_a_plain_link(site: Site, run: Callable[..., str]) -> None:
    rehearsed = run("server", "rehearse", "--listeners", "2", "--json")
    assert json.loads(rehearsed.splitlines()[-1])["outcomes"]["finished"] == 2
    assert load_study(site.study.folder).config.recruiter.kind == "toy"
