"""Panels by link: every recipe of the documentation, over HTTP with the parameters of its panel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from embeddings.errors import RootnoteError
from server.identity.vault import Vault
from server.irb.context import gather
from server.irb.html import render
from server.public_release.design import published_design
from server.simulation.launch import as_recruited_by
from study.config import load_study
from study.preregistration.exclusion_rules import plan_of
from tests.server.conftest import Site
from tests.server.recruiting.panel_study import KEY, QUIET, TONES, Panelist, command, recipe

MakePanel = Callable[..., Site]
SONA = {"experiment_id": ["123"], "credit_token": ["9185d436e5f94b1581b0918162f6d7e8"]}


@pytest.fixture
def make_panel(make_site: Callable[..., Site]) -> MakePanel:
    """Make a study with a panel's settings, opened by `rootnote server open`."""

    def make(toml: str, listeners: int = 3, prescreen: str = QUIET) -> Site:
        site = make_site({"vault": Vault([KEY])}, listeners=listeners, trials=1, toml=prescreen + toml)
        command(site, "open")
        return site

    return make


def parts(address: str) -> tuple[str, str, dict[str, list[str]]]:
    """Host, path and parameters of an address, as the panel's server reads them."""
    found = urlsplit(address)
    assert found.scheme == "https"
    return found.netloc, found.path, parse_qs(found.query, keep_blank_values=True)


def test_cloudresearch_connect(make_panel: MakePanel) -> None:
    site = make_panel(recipe("CloudResearch Connect"))
    sent = {"participantId": "64F0a1", "assignmentId": "a-77", "projectId": "P 9/ü&x=1"}
    one = Panelist(site).come(**sent).complete()
    assert one.back == "https://connect.cloudresearch.com/participant/project/P%209%2F%C3%BC%26x%3D1/complete"
    assert "Back to CloudResearch Connect" in one.html and one.panel_code == "" and one.code


def test_sona_by_redirect(make_panel: MakePanel) -> None:
    one = Panelist(make_panel(recipe("Sona, by redirect"))).come(x="48213").complete()
    expected = ("school.sona-systems.com", "/webstudy_credit.aspx", SONA | {"survey_code": ["48213"]})
    assert parts(one.back) == expected


def test_an_id_in_another_spelling_is_the_same_person(make_panel: MakePanel) -> None:
    """Connect's links keep three ids; a person's own is compared in one spelling, and sent back as it came."""
    site = make_panel(recipe("CloudResearch Connect").replace("/complete", "/complete/{worker}"))
    sent = {"participantId": "64F0a1", "assignmentId": "A-77", "projectId": "P9"}
    one = Panelist(site).come(**sent).complete()
    assert one.back.endswith("/project/P9/complete/64F0a1")
    for spelled in ("64f0A1", " 64F0a1", "６4F0a1"):
        again = Panelist(site).come(**sent | {"participantId": spelled})
        assert (again.step, again.address) == ("done", one.address), spelled
        assert Panelist(site).come(**sent | {"participantId": spelled, "assignmentId": "A-78"}).step == "taken"
    assert site.query("SELECT count(*) FROM listeners") == [(1,)]


def test_positly(make_panel: MakePanel) -> None:
    toml = recipe("Positly") + '[recruiter.link.codes]\nfinished = "DONE1"\n'
    one = Panelist(make_panel(toml)).come(participantId="p1", assignmentId="a1").complete()
    assert parts(one.back) == ("app.positly.com", "/run/complete", {"assignment": ["a1"], "code": ["DONE1"]})
    assert one.panel_code == "DONE1" != one.code


def test_a_survey_panel(make_panel: MakePanel) -> None:
    site = make_panel(recipe("A survey panel"), listeners=1, prescreen=TONES)
    left = Panelist(site).come(rid="r1").agree().go("leave", confirm="yes")
    failed = Panelist(site).come(rid="r2").agree().screen(right=False)
    done = Panelist(site).come(rid="r3").complete()
    late = Panelist(site).come(rid="r4")
    people = {"terminate": left, "screenout": failed, "complete": done, "quotafull": late}
    for rid, (status, one) in enumerate(people.items(), start=1):
        assert isinstance(one, Panelist)
        assert parts(one.back) == ("panel.example.com", "/end", {"status": [status], "rid": [f"r{rid}"]}), status
    assert (late.step, "This study is complete" in late.html) == ("full", True)
    assert "Your reference code" in left.html and "completion code" not in left.html


def test_a_person_who_agrees_too_late_returns_too(make_panel: MakePanel) -> None:
    site = make_panel(recipe("A survey panel"), listeners=1)
    late = Panelist(site).come(rid="late")
    Panelist(site).come(rid="first").complete()
    assert late.agree().step == "full" and "status=quotafull&rid=late" in late.back


def test_qualtrics_in_front(make_panel: MakePanel) -> None:
    one = Panelist(make_panel(recipe("Qualtrics in front of us"))).come(response="R_3nX").complete()
    expected = {"response": ["R_3nX"], "code": [one.code]}
    assert parts(one.back) == ("school.qualtrics.com", "/jfe/form/SV_0123456789abcde", expected)


def test_prolific_by_hand(make_panel: MakePanel) -> None:
    site = make_panel(recipe("Prolific, set up by hand"), prescreen=TONES)
    ids = {"STUDY_ID": "b" * 24, "SESSION_ID": "c" * 24}
    for pid, right, code in (("1" * 24, True, "C1FINISHED"), ("2" * 24, False, "C2SCREENED")):
        one = Panelist(site).come(PROLIFIC_PID=pid, **ids).agree()
        one = one.complete() if right else one.screen(right=False)  # type: ignore[assignment]
        assert parts(one.back) == ("app.prolific.com", "/submissions/complete", {"cc": [code]})
        assert one.panel_code == code


def test_an_address_never_leaves_the_panel(make_panel: MakePanel) -> None:
    """Whatever a stranger writes into an address, the button leads to the configured host and path."""
    site = make_panel(recipe("CloudResearch Connect"), listeners=9)
    path = "/participant/project/"
    strange = ("//evil.example", "@evil.example/", "..%2f..", "javascript:alert(1)", '"><script>', "a?b#c", "\\\\evil")
    for number, value in enumerate(strange):
        one = Panelist(site).come(participantId=f"p{number}", assignmentId="a", projectId=value).complete()
        host, found, query = parts(one.back)
        assert (host, query) == ("connect.cloudresearch.com", {}) and "#" not in one.back
        assert found.startswith(path) and found.endswith("/complete") and found.count("/") == 4
        policy = one.page.headers["Content-Security-Policy"]  # type: ignore[union-attr]
        assert "form-action 'self';" in policy and "frame-ancestors 'none'" in policy
    ids = {"participantId": "p", "assignmentId": "a", "projectId": "p"}
    for name in ids:
        for value in ("", " ", "..", "a\nb", "x" * 300):
            refused = Panelist(site).come(**ids | {name: value})
            assert refused.page is not None and refused.page.status_code == 400, (name, value)
            missing = "your ID is missing in it" if not value.strip() else "This link is incomplete"
            assert missing in refused.html, (name, value)


def test_nobody_reads_a_code_without_taking_part(make_panel: MakePanel) -> None:
    """Pages for marketplaces that pay by a place of its own must not hand out a panel's code or address."""
    site = make_panel(recipe("Prolific, set up by hand"))
    ids = {"PROLIFIC_PID": "1" * 24, "STUDY_ID": "b" * 24, "SESSION_ID": "c" * 24}
    for more in ({}, {"owed": "1"}):
        one = Panelist(site).come(**ids, **more)
        assert (one.step, one.back) == ("consent", "") and "C1FINISHED" not in one.html, more
    assert "C1FINISHED" not in one.agree().html + one.client.get(f"{one.address}/later").text


def test_the_same_link_leads_to_the_same_run(make_panel: MakePanel) -> None:
    site = make_panel(recipe("CloudResearch Connect"))
    sent = {"participantId": "p1", "assignmentId": "a1", "projectId": "j1"}
    first = Panelist(site).come(**sent).agree()
    first.go("instructions")
    second = Panelist(site).come(**sent)
    assert (second.address, second.step) == (first.address, "trial")
    later = second.client.get(f"{second.address}/later").text
    assert f">http://localhost{first.address}</code>" in later


def test_a_rehearsal_sends_its_own_listeners(make_panel: MakePanel) -> None:
    """Simulated listeners come by a plain link, because no panel sends them."""
    site = make_panel(recipe("Prolific, set up by hand") + "[player]\nconfidence = true\n")
    assert site.study.config.recruiter.has_arrivals
    with as_recruited_by(site.study, "link") as rehearsed:
        assert not rehearsed.config.recruiter.has_arrivals and rehearsed.config.player.confidence


def test_the_packet_and_the_release_name_the_panel_only_where_they_should(make_panel: MakePanel) -> None:
    site = make_panel(recipe("Prolific, set up by hand"))
    packet = render(gather(site.study, {}, site.clock()), [])
    assert "Prolific" in packet and "PROLIFIC_PID=…" in packet
    released = json.dumps(published_design(site.study, plan_of(site.study.config), seed=True)[0])
    assert "C1FINISHED" not in released and "app.prolific.com" not in released


def test_personal_links_are_refused_where_they_would_not_work(make_panel: MakePanel) -> None:
    site = make_panel(recipe("CloudResearch Connect"))
    with pytest.raises(AssertionError, match="people come from CloudResearch Connect with ids of its own"):
        command(site, "links", "2")


def test_open_tells_the_address_for_the_panel(make_panel: MakePanel) -> None:
    site = make_panel(recipe("CloudResearch Connect"))
    printed = command(site, "open")
    assert "https://study.example.org/take?participantId=…&assignmentId=…&projectId=…" in printed
    assert "CloudResearch Connect" in printed


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('finished_url = "http://panel.example.com/"', "finished_url: the address must start with https://"),
        ('finished_url = "https://{worker}.example.com/"', "a host without placeholders"),
        ('finished_url = "https://u@panel.example.com/"', "a host without placeholders"),
        ('left_url = "https://panel.example.com/{id}"', "left_url: {id} is not known; use {worker}, {code}"),
        ('full_url = "https://panel.example.com/{code}"', "full_url: {code} is not known"),
        ('callback_url = "https://panel.example.com/{"', "callback_url: a brace belongs to no placeholder"),
        ('screened_out_url = "https://panel.example.com/a b"', "without spaces"),
        ('id_param = "lang"', "'lang' has a meaning of its own"),
        ('keep = ["code"]', "a placeholder of its own"),
        ('keep = ["worker"]', "a placeholder of its own"),
        ('id_param = "a b"', "recruiter.link.id_param"),
        ('finshed_url = ""', "did you mean 'finished_url'"),
        ('[recruiter.link.codes]\nfinished = "a b"', "recruiter.link.codes.finished"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, toml: str, words: str) -> None:
    head = '[study]\nname = "T"\n[corpus]\naudio = "music"\n[recruiter.link]\n'
    (tmp_path / "study.toml").write_text(head + toml + "\n")
    with pytest.raises(RootnoteError) as caught:
        load_study(tmp_path)
    assert words in str(caught.value) and "\n" not in str(caught.value)
