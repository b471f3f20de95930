"""Ids in links: what is not filled in is refused, and a signed id or a personal link confirms."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from click.testing import CliRunner
from sqlalchemy import update
from sqlalchemy.orm import Session

import rootnote
from embeddings.errors import RootnoteError
from server.db.models import Listener
from server.export.responses import export
from server.identity.tokens import TokenSigner
from study.trial_plan import read_plan
from tests.server.conftest import SECRET, Site
from tests.server.desk.desk_client import Visit, add_researcher
from tests.server.recruiting.mturk_study import NO_PRESCREEN

UNFILLED = (
    "{{%PROLIFIC_PID%}}",
    "${e://Field/id}",
    "%SURVEY_CODE%",
    "[worker]",
    "[%id%]",
    "<id>",
    "{id}",
    "${id}",
    "$id",
)
NULL_WORDS = ("undefined", "NULL", "None", "NaN", "nil", "worker", " null ")


CASES = [
    *((f"worker={quote(text)}", "a placeholder is where your ID belongs") for text in (*UNFILLED, *NULL_WORDS)),
    ("worker=", "your ID is missing"),
    ("worker=%20%0A", "your ID is missing"),
    ("worker=%E2%80%8B", "has no letters or digits"),
    ("worker=a&worker=b", "the same ID field twice"),
    ("Worker=bob", "wrong capital letters"),
    ("LINK=abc", "wrong capital letters"),
    ("link=", "your ID is missing"),
    ("worker=bob&signature=", "your ID is missing"),
    ("worker=bob&signature=0123", "This link is incomplete"),
    ("worker=" + "x" * 200, "This link is incomplete"),
]


def test_a_link_that_was_not_filled_in_says_what_it_lacks(site: Site) -> None:
    for query, words in CASES:
        walker = site.walker().open(f"?{query}")
        assert walker.page is not None and walker.page.status_code == 400, query
        assert words in walker.html, query
    assert site.query("SELECT * FROM listeners") == []


def test_the_desk_counts_damaged_links(make_site: Callable[..., Site]) -> None:
    site = make_site(listeners=2)
    for query in ("?worker=undefined", "?worker=[worker]", "?worker=bob"):
        site.walker().open(query)
    add_researcher(site)
    page = Visit(site).signed_in().page()
    assert '<th scope="row">Damaged link</th><td class="n">2</td>' in page
    assert site.query("SELECT shown, sum(number) FROM arrivals GROUP BY shown ORDER BY shown") == [
        ("damaged_link", 2),
        ("informed", 1),
    ]


def test_who_came_by_an_open_link_counts_and_is_labelled(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(listeners=4, trials=2, toml=NO_PRESCREEN)
    signer = TokenSigner(SECRET)
    queries = ("", "?worker=bob", f"?link={signer.make_link()}", f"?worker=Eve&signature={signer.sign_id('eve')}")
    for query in queries:
        walker = site.walker().consent(query)
        walker.go("instructions")
        walker.listen().finish()
        assert walker.step == "done", query
    assert site.query("SELECT count(*) FROM places WHERE filled")[0][0] == 4
    with site.app.extensions["rootnote"].engine.connect() as connection, Session(connection) as session:
        wrote = export(session, site.study, read_plan(site.study), tmp_path / "out")
    with wrote.csv.open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["verification"] for row in rows) == ["confirmed"] * 4 + ["unverified"] * 4
    from analysis.report.exclusions_text import describe_verification
    from analysis.responses.load import read_responses

    read = read_responses(wrote.csv)
    assert len(read.frame) == 8
    assert describe_verification(read) == (
        "2 analysed runs are unverified: the listeners came by an open link, and nobody checked who they were."
    )


def test_a_signed_id_is_one_person_who_may_come_back(make_site: Callable[..., Site]) -> None:
    site = make_site(listeners=4, toml=NO_PRESCREEN)
    query = f"?worker=Bob&signature={TokenSigner(SECRET).sign_id('bob')}"
    stranger = site.walker().consent("?worker=bob")
    assert stranger.step == "instructions", "whoever comes first under a name"
    owner = site.walker().consent(query)
    assert owner.step == "instructions", "does not keep out the person whose id was signed"
    again = site.walker()
    assert again.client.get(f"/take{query}").location == owner.address, "the tab was lost"
    assert stranger.reload().step == "instructions"
    assert site.walker().consent("?worker=BOB").step == "taken"
    assert site.query("SELECT verification FROM assignments ORDER BY id") == [("unverified",), ("confirmed",)]


def test_a_name_of_an_earlier_version_is_recognised(make_site: Callable[..., Site]) -> None:
    site = make_site(listeners=4, toml=NO_PRESCREEN)
    site.walker().consent("?worker=bob")
    with site.app.extensions["rootnote"].engine.execution_options(writes=True).begin() as connection:
        former = TokenSigner(SECRET).worker_hash("Bob")
        connection.execute(update(Listener).values(worker_hash=former))
    assert site.walker().open("?worker=Bob").step == "taken"


def run(*words: object) -> str:
    ran = CliRunner().invoke(rootnote.cli, [str(word) for word in words])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_signed_links_are_printed_for_a_file_of_ids(
    make_site: Callable[..., Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(listeners=2, toml=NO_PRESCREEN)
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    ids = tmp_path / "ids.txt"
    ids.write_text("\ufeffZoë Müller\n\nB-2\n", "utf-8")
    lines = run("server", "links", site.study.folder, "--ids", ids).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert site.walker().consent(f"?{urlsplit(line).query}").step == "instructions"
    assert site.query("SELECT DISTINCT verification FROM assignments") == [("confirmed",)]
    for text, words in (
        ("bob\nBOB\n", "lines 1 and 2 name the same person"),
        ("a\n[worker]\n", r"line 2: '\[worker\]' is not a person's id"),
        ("\n", "has no ids"),
    ):
        ids.write_text(text, "utf-8")
        with pytest.raises(RootnoteError, match=words):
            run("server", "links", site.study.folder, "--ids", ids)
    with pytest.raises(RootnoteError, match="how many links"):
        run("server", "links", site.study.folder)
