"""Our client and the local Prolific against Prolific's own description of its API (ROOTNOTE_PROLIFIC_OPENAPI)."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from server.recruiting import launch, opening
from server.recruiting.marketplaces.base import MarketplaceError
from server.recruiting.marketplaces.prolific import ProlificMarketplace
from server.simulation.bots import ResponseModel
from server.simulation.fake_prolific import FakeProlific
from server.simulation.launch import LaunchRehearsal, RehearsedLaunch, rehearse_launch
from server.simulation.marketplaces.http_messages import HttpReply, HttpRequest
from server.simulation.marketplaces.prolific_requests import REFUSED_FIELD
from study.config_sections import RehearsalConfig
from study.trial_plan import read_plan
from tests.paper_study import make_study
from tests.server.recruiting.openapi import EXCEPTIONS, MARKETS, ApiDescription, RecordedMessage, RecordingProlific
from tests.server.recruiting.prolific_study import (
    MakeProlific,
    ProlificShow,
    ProlificStudy,
    make_prolific,
    on_sqlite,
    participant,
)
from tests.server.recruiting.test_crashes import Breaker

__all__ = ["make_prolific"]  # a fixture
VARIABLE = "ROOTNOTE_PROLIFIC_OPENAPI"
ROOT = Path(__file__).parents[3]
FILE = os.environ.get(VARIABLE, "")
WORKERS = ("RETURNS", "TIMESOUT", "WRONG", "LATE", *(f"V{number}" for number in range(1, 10)))
needs_file = pytest.mark.skipif(not FILE, reason=f"{VARIABLE} names no file")


@pytest.fixture(scope="module")
def description() -> ApiDescription:
    path = Path(FILE)
    if not path.is_file():
        pytest.fail(f"{VARIABLE} names {path}, which does not exist")
    return ApiDescription.read(path)


def wrong(description: ApiDescription, messages: list[RecordedMessage]) -> list[str]:
    assert messages
    return sorted({problem for message in messages for problem in description.problems(message)})


@needs_file
@on_sqlite
def test_a_launch_keeps_to_the_openapi_description(
    make_prolific: MakeProlific, description: ApiDescription, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draft, preview, publish, screen-outs until the study pauses, returns, time-outs, bonuses, and its end."""
    toml = "[pay]\nscreened_out = 0.50\nwithout_sound = 0.50\nreward = 1.40\n"
    filters = '[[recruiter.prolific.filters]]\nid = "handedness"\nvalues = ["1"]\n'
    prolific = make_prolific(listeners=4, trials=1, toml=filters + toml, market=RecordingProlific)
    market: RecordingProlific = prolific.market
    recruiter: Any = prolific.context.marketplace
    monkeypatch.setattr(recruiter._api, "_sleep", lambda seconds: None)
    market.state.publishing_delay = timedelta(minutes=2)
    people(market)
    draft = go_live(prolific)
    show = ProlificShow(prolific, Breaker(at=0), 4)
    use_everything_else(recruiter, draft)
    prolific.sync()
    assert market.state.studies[draft].status == "PUBLISHING"
    prolific.wait(3)
    visits = iter(range(1, 30))
    for ends in ("technical", "technical", "technical"):  # all paid screen-outs
        visit(show, f"V{next(visits)}", ends)
    assert market.state.studies[draft].status == "PAUSED"
    prolific.sync()
    assert market.state.studies[draft].status == "ACTIVE", "more screen-outs are allowed, and the study goes on"
    market.return_(take(prolific, "RETURNS").assignment_id)
    market.abandon(take(prolific, "TIMESOUT").assignment_id)
    visit(show, "WRONG", "technical", code="NOCODE")
    late = take(prolific, "LATE")
    show.listen(late, "finish")  # type: ignore[arg-type]
    market.abandon(late.assignment_id)
    for _ in range(2):
        visit(show, f"V{next(visits)}", "finish")
    market.fail("TransitionSubmission", 1, "throttle")
    market.fail("GetStudy", 1, "fail")
    prolific.wait(20)
    prolific.sync()
    prolific.pay()
    show.bonus()
    prolific.wait(20)
    visit(show, f"V{next(visits)}", "finish")
    prolific.sync()
    launch.stop(prolific.context, "test")
    prolific.sync()
    kinds = {entry.kind for entry in market.ledger()}
    assert {"reward", "bonus", "screen-out"} <= kinds
    assert prolific.paid == round(sum((entry.amount for entry in market.ledger()), Decimal()) * 100)
    assert market.state.studies[draft].status == "COMPLETED"
    assert not (found := wrong(description, market.messages)), "\n".join(found)
    called = {name for _, name in description.seen}
    for path in ("/studies/{id}/transition/", "/participant-groups/", "/bulk-bonus-payments/{id}/pay/"):
        assert f"/api/v1{path}" in called, "the launch uses it"


@needs_file
@on_sqlite
def test_a_workspace_without_features_keeps_to_the_openapi_description(
    make_prolific: MakeProlific, description: ApiDescription
) -> None:
    """No payment of screen-outs, signed addresses or groups: they are asked to return, and paid a bonus."""
    toml = "[pay]\nscreened_out = 0.50\nwithout_sound = 0.50\n"
    prolific = make_prolific(listeners=1, trials=1, toml=toml, market=RecordingProlific)
    market: RecordingProlific = prolific.market
    market.state.features = set()
    prolific.launch()
    show = ProlificShow(prolific, Breaker(at=0), 1)
    visit(show, "V1", "technical", code="NOCODE")
    for _ in range(2):
        prolific.wait(5)
        prolific.sync()
    [held] = market.state.submissions.values()
    assert held.return_requested is not None
    market.return_(held.id)
    for _ in range(2):
        prolific.wait(20)
        prolific.sync()
        prolific.pay()
    assert [entry.amount for entry in market.ledger() if entry.kind == "bonus"] == [Decimal("0.50")]
    assert not (found := wrong(description, market.messages)), "\n".join(found)
    asked = [one for one in market.messages if one.request.path.endswith("/request-return/")]
    assert len(asked) == 1, "nobody is asked twice"


def people(market: FakeProlific) -> None:
    """Those who pass the study's own filter, and one who does not."""
    for worker in WORKERS:
        market.participants.add(participant(worker), answers={"handedness": "1"})
    market.participants.add(participant("OTHER"), answers={"handedness": "0"})


def go_live(prolific: ProlificStudy) -> str:
    """What `open --draft` and `open` do; returns the study's id."""
    context, plan = prolific.context, read_plan(prolific.site.study)
    opening.require_openable(context)
    opening.prepare_places(context, plan, rehearsal=True)
    cost = opening.estimate_cost(context, None, context.marketplace.account())
    [draft] = opening.draft_places(
        context, plan.schedule_fingerprint, cost, live=False, report=prolific.reported.append
    )
    cost = opening.estimate_cost(context, 50_00, context.marketplace.account())
    opening.open_places(context, plan.schedule_fingerprint, cost, live=False, report=prolific.reported.append)
    return draft


def use_everything_else(recruiter: ProlificMarketplace, draft: str) -> None:
    """What the client can ask for besides."""
    assert recruiter.audience() == len(WORKERS)
    assert round(recruiter.cost(140, 3)) == 140 * 4
    recruiter.create_test_participant("tester@example.org")
    with pytest.raises(MarketplaceError):
        recruiter.create_test_study(draft)  # it is published already
    recruiter.webhook_secret()
    made = recruiter.subscribe("submission.status.change", "http://127.0.0.1:9/hooks")
    recruiter.confirm_subscription(made.id, made.secret)
    assert [one.enabled for one in recruiter.subscriptions()] == [True]
    recruiter.unsubscribe(made.id)


def take(prolific: ProlificStudy, worker: str) -> Any:
    taken = prolific.accept(worker)
    assert taken is not None, f"no place for {worker}"
    return taken


def visit(show: ProlificShow, worker: str, ends: str, code: str = "") -> None:
    """Take part and come back with a code."""
    taken = take(show.mturk, worker)
    show.listen(taken, ends)
    outcome = "screened_out" if ends == "technical" else "finished"
    show.mturk.market.complete(taken.assignment_id, code or show.mturk.code(outcome))


@needs_file
@pytest.mark.slow
def test_a_rehearsed_launch_keeps_to_the_openapi_description(
    tmp_path: Path, description: ApiDescription, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands themselves, a server, and workers who fail, leave, come too late and forget to submit."""
    pay = "[pay]\nreward = 1.40\nscreened_out = 0.50\nwithout_sound = 0.50\n"
    study = make_study(tmp_path / "study", prompts=6, listeners=6, trials=6, toml=pay)
    monkeypatch.setenv("ROOTNOTE_SECRET", "a secret for tests only, 32 characters and more")
    monkeypatch.setattr(ProlificMarketplace, "simulator", "tests.server.recruiting.openapi:local_recording")
    monkeypatch.setattr(LaunchRehearsal, "report", lambda self: None)
    model = ResponseModel(RehearsalConfig(fail_prescreen=0.2))
    outcome = rehearse_launch(study.folder, "prolific", RehearsedLaunch(1, model, 4, 60.0), quiet=True)
    assert outcome.total == outcome.ledger > 6 * 140
    assert not (found := wrong(description, MARKETS.pop().messages)), "\n".join(found)


@needs_file
@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (("POST", "/api/v1/studies/{id}/screen" + "-out-submissions/", {}), "no such path"),
        (("GET", "/api/v1/submissions/", {"study": "a", "limit": "9"}), "limit is not documented"),
        (("GET", "/api/v1/submissions/", {}), "study is missing"),
    ],
)
def test_the_openapi_check_finds_what_is_not_documented(
    description: ApiDescription, asked: tuple[str, str, dict[str, str]], problem: str
) -> None:
    method, path, query = asked
    message = RecordedMessage(HttpRequest(method, path, query, {}, b""), HttpReply(200, b'{"results": []}'))
    assert any(problem in one for one in wrong(description, [message]))


@needs_file
def test_the_openapi_check_finds_a_property_that_is_not_named(description: ApiDescription) -> None:
    with RecordingProlific() as market:
        recruiter = make_recruiter(market)
        recruiter._places.draft(an_order())
        recruiter.disconnect()
        made = next(one for one in market.messages if one.request.method == "POST" and "/studies/" in one.request.path)
    assert wrong(description, [made]) == []
    more = made.request.body[:-1] + f', "{REFUSED_FIELD}": true}}'.encode()
    forged = HttpRequest("POST", made.request.path, {}, {}, more)
    assert any(REFUSED_FIELD in one for one in wrong(description, [RecordedMessage(forged, made.reply)]))


def an_order() -> Any:
    from tests.server.recruiting.marketplaces.test_contract import an_order

    return an_order()


def make_recruiter(market: FakeProlific) -> Any:
    from tests.server.recruiting.marketplaces.test_contract import a_study

    return ProlificMarketplace(a_study(kind="prolific"), endpoint=market.url)


@needs_file
def test_the_emulator_has_only_operations_of_the_openapi_description(description: ApiDescription) -> None:
    from server.simulation.marketplaces.prolific_wire import names

    documented = {
        (method.upper(), path_of(path).rstrip("/")) for path, methods in description.paths.items() for method in methods
    }
    assert {(method, path.rstrip("/")) for method, path in names().values()} <= documented


def path_of(template: str) -> str:
    return re.sub(r"\{[^}]+\}", "{id}", template)


def test_nothing_outside_the_emulator_speaks_of_what_is_not_in_the_openapi_description() -> None:
    gone = (REFUSED_FIELD, "screen" + "-out-submissions")
    folders = ("server", "study", "analysis", "embeddings", "docs", "tests")
    files = [path for name in folders for path in (ROOT / name).rglob("*.[pm][yd]")]
    emulator = ROOT / "server" / "simulation"
    found = {
        str(path)
        for path in files
        if not path.is_relative_to(emulator) and any(word in path.read_text(encoding="utf-8") for word in gone)
    }
    assert len(files) > 300 and found == set()


def test_every_openapi_exception_has_a_source() -> None:
    assert all(len(source) > 40 for source in EXCEPTIONS.values())
