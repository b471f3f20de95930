"""`rootnote server open --draft` on the local Prolific: made once, changed, looked at, then published."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.commands.test_recruiting import Ask, ask
from tests.server.recruiting.mturk_study import NO_PRESCREEN, MTurkStudy, make_mturk
from tests.server.recruiting.prolific_study import MakeProlific, ProlificStudy, Taken, make_prolific

__all__ = ["ask", "make_mturk", "make_prolific"]
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def studies(prolific: ProlificStudy) -> list[Any]:
    return [
        (one.status, one.places, one.given.name, one.given.reward) for one in prolific.market.state.studies.values()
    ]


def edit(prolific: ProlificStudy, old: str, new: str) -> None:
    path = prolific.site.study.folder / "study.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@on_sqlite
def test_a_draft_is_made_once_follows_study_toml_and_is_published_by_open(
    make_prolific: MakeProlific, ask: Ask
) -> None:
    prolific = make_prolific(listeners=3, trials=1, toml='[recruiter.prolific]\ntitle = "First"\n')
    status, output = ask(prolific, "open", "--draft")
    assert status == 0, output
    assert "A draft with 3 places is on Prolific. Nobody sees it, and it costs nothing." in output
    [study] = prolific.market.state.studies
    assert f"/researcher/studies/{study}\n" in output
    assert ask(prolific, "open", "--draft")[0] == 0
    for command in ("sync", "status"):
        assert ask(prolific, command)[0] == 0
    assert studies(prolific) == [("UNPUBLISHED", 3, "First", 150)]
    edit(prolific, "First", "Second")
    edit(prolific, "without_sound = 1.40", "reward = 1.80\nwithout_sound = 1.40")
    status, output = ask(prolific, "open", "--yes")
    assert (status, "was changed after the draft was made" in output) == (1, True), output
    assert studies(prolific) == [("UNPUBLISHED", 3, "First", 150)]
    assert ask(prolific, "open", "--draft")[0] == 0
    assert studies(prolific) == [("UNPUBLISHED", 3, "Second", 180)]
    status, output = ask(prolific, "open", "--yes")
    assert status == 0, output
    assert "Prolific (no real money): 3 places in a draft" in output
    assert "3 x ($1.80 + $0.60 fee) = $7.20" in output
    assert "Opened 3 places." in output
    assert studies(prolific) == [("ACTIVE", 3, "Second", 180)]
    status, output = ask(prolific, "open", "--draft")
    assert (status, "is open on Prolific already" in output) == (1, True)
    edit(prolific, "Second", "Third")
    assert "was changed after the launch" in ask(prolific, "open", "--yes")[1]
    prolific.worker("A1").agree()


@on_sqlite
@pytest.mark.parametrize(
    ("operation", "nth", "fault"),
    [("CreateStudy", 2, "timeout_after"), ("UpdateStudy", 1, "fail"), ("TransitionStudy", 1, "timeout_after")],
)
def test_a_draft_that_broke_off_is_found_again(
    make_prolific: MakeProlific, ask: Ask, operation: str, nth: int, fault: str
) -> None:
    """The first study that is created is the probe."""
    prolific = make_prolific(listeners=2, trials=1)
    prolific.market.fail(operation, nth, fault)
    steps = [("open", "--draft"), ("open", "--draft"), ("open", "--yes")]
    for step in steps:
        for _ in range(3):
            if ask(prolific, *step)[0] == 0:
                break
        else:
            raise AssertionError(f"{step} never succeeds")
    assert [one[:2] for one in studies(prolific)] == [("ACTIVE", 2)]
    assert prolific.site.query("SELECT count(*) FROM openings WHERE market_id NOT LIKE 'none-%'") == [(1,)]


@on_sqlite
def test_a_marketplace_without_drafts_says_so(make_mturk: Callable[..., MTurkStudy], ask: Ask) -> None:
    mturk = make_mturk(listeners=1, toml=NO_PRESCREEN)
    status, output = ask(mturk, "open", "--draft")
    assert (status, "Mechanical Turk has no drafts; leave out --draft" in output) == (1, True)
    assert mturk.market.state.hits == {}


@on_sqlite
def test_whoever_tries_the_preview_fixes_no_terms_and_keeps_nobody_out(make_prolific: MakeProlific, ask: Ask) -> None:
    """Prolific's preview opens the study with ids that belong to no submission, and a researcher may go to the end."""
    prolific = make_prolific(listeners=1, trials=1, toml='[recruiter.prolific]\ntitle = "First"\n')
    assert ask(prolific, "open", "--draft")[0] == 0
    [study] = prolific.market.state.studies.values()
    ids = {"PROLIFIC_PID": "f" * 24, "STUDY_ID": study.id, "SESSION_ID": "e" * 24}
    address = re.sub(r"\{\{%(\w+)%\}\}", lambda match: ids[match[1]], study.given.external_study_url)
    tried = prolific.arrive(Taken("", address)).agree()  # type: ignore[arg-type]
    tried.go("instructions")
    assert tried.listen().finish().step == "done"
    edit(prolific, "First", "Second")
    edit(prolific, "without_sound = 1.40", "reward = 1.80\nwithout_sound = 1.40")
    assert ask(prolific, "open", "--draft")[0] == 0, "nobody was promised anything"
    assert ask(prolific, "open", "--yes")[0] == 0
    assert studies(prolific) == [("ACTIVE", 1, "Second", 180)]
    assert prolific.worker("A1").agree().step == "instructions", "the run of the preview holds no place against them"
