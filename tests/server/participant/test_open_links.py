"""Open links and personal ones: who is admitted, and how many runs with the same outcome are paid."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from server.identity.link_check import MISSING
from server.identity.tokens import TokenSigner
from server.identity.vault import Vault
from tests.commands import run
from tests.server.conftest import SECRET, Site, Walker
from tests.server.recruiting.panel_study import KEY, QUIET, Panelist, command

OPEN, PERSONAL = "[recruiter.link]\nopen = true\n", "[recruiter.link]\nopen = false\n"
REFUSED = "This study uses personal links; please open the link that you received."


def personal_link() -> str:
    return f"?link={TokenSigner(SECRET).make_link()}"


def test_a_paid_study_can_admit_by_personal_links_only(make_site: Callable[..., Site]) -> None:
    site = make_site(listeners=3, trials=1, toml=QUIET + PERSONAL)
    for query, words in (("", REFUSED), ("?worker=bob", REFUSED), ("?link=", MISSING)):
        page = site.walker().open(query).page
        assert page is not None and page.status_code == 400 and words in page.text, query
    link = personal_link()
    one = site.walker().consent(link)
    one.go("instructions")
    elsewhere = site.walker().client.get(f"/take{link}")
    assert elsewhere.location == one.address, "the same link, the same run"
    assert one.listen().finish().code


def test_a_rehearsal_uses_the_open_link(make_site: Callable[..., Site]) -> None:
    site = make_site({"rehearsal": True}, listeners=1, trials=1, toml=QUIET + PERSONAL)
    assert site.walker().consent().step == "instructions"


@pytest.mark.both_databases
@pytest.mark.parametrize("section", ["", OPEN, OPEN + "paid_at_most = 4\n"])
def test_paid_codes_of_an_open_link_are_bounded(make_site: Callable[..., Site], section: str) -> None:
    """Somebody opens the link and presses "No sound?" as often as they can: each of these runs is paid."""
    site = make_site(listeners=3, trials=1, toml=QUIET + section)
    limit, ended, other = 4 if "most" in section else 13, 0, site.walker().consent()  # 3 places, and 10 more
    assert other.step == "instructions"
    for number in range(2 * limit):
        walker = site.walker().consent(f"?worker=invented{number}")
        if walker.step == "full":
            break
        ended += walker.go("technical").step == "technical"
    assert ended == limit - 1, "the listener under way may end so, too"
    page = site.walker().open().html
    assert 'data-step="full"' in page and "All places are taken right now" in page
    assert other.go("technical").step == "technical", "whoever has started is paid as promised"
    paid = site.query("SELECT count(*) FROM assignments WHERE state = 'technical'")
    assert paid == [(limit,)]
    assert site.walker().consent(personal_link()).step == "instructions", "personal links still work"


def test_a_panels_invented_ids_are_bounded_too(make_site: Callable[..., Site]) -> None:
    toml = QUIET + '[recruiter.link]\nid_param = "rid"\npaid_at_most = 3\n'
    site = make_site({"vault": Vault([KEY])}, listeners=2, trials=1, toml=toml)
    command(site, "open")
    steps = [Panelist(site).come(rid=f"r{number}").agree().go("technical").step for number in range(3)]
    assert (steps, Panelist(site).come(rid="r9").step) == (["technical"] * 3, "full")


def test_an_unpaid_study_is_not_limited(make_site: Callable[..., Site]) -> None:
    toml = QUIET + "[pay]\nreward = 0\nscreened_out = 0\n[recruiter.link]\nopen = true\npaid_at_most = 1\n"
    site = make_site(listeners=2, trials=1, toml=toml)
    assert [site.walker().consent().go("technical").step for _ in range(4)] == ["technical"] * 4


def test_a_lost_tab_is_found_again_by_the_copied_link(site: Site) -> None:
    walker = site.walker().begin()
    assert f'href="{walker.address}/later"' in walker.html
    page = walker.client.get(f"{walker.address}/later").text
    found = re.search(r"<code data-link[^>]*>http://localhost(/a/[\w-]+)</code>", page)
    assert found, page
    other = Walker(site, address=found[1])
    assert (other.reload().step, other.html) == ("trial", walker.reload().html)
    walker.listen().finish()
    assert walker.client.get(f"{walker.address}/later").status_code == 303, "nothing to continue"


def test_who_leaves_has_a_reference_and_no_completion_code(site: Site) -> None:
    left, done = site.walker().begin().go("leave", confirm="yes"), site.walker().take_part()
    assert "Your reference code" in left.html and "completion code" not in left.html
    assert "Your completion code" in done.html and "reference code" not in done.html
    asked = left.client.post("/withdraw", data={"code": left.code})
    assert "Yes, erase my answers" in asked.text, "the reference is enough to have the answers erased"


def test_check_warns_of_a_paid_study_that_says_nothing(make_site: Callable[..., Site]) -> None:
    words = "anyone who has the address may take part again and again"
    for section, warned in (("", True), (OPEN, False), (PERSONAL, False), ('[recruiter.link]\nkeep = ["a"]\n', False)):
        site = make_site({"vault": Vault([KEY])}, listeners=1, trials=1, toml=QUIET + section)
        assert (words in run("study", "check", site.study.folder).stdout) == warned, section
