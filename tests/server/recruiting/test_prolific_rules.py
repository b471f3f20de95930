"""A launch under Prolific's own rules: what a study's status allows, pauses, slow publishing, places, money."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

import pytest

from embeddings.errors import RootnoteError
from server.payments import ledger
from server.payments.fees import rounded, split, whole_cents
from server.recruiting import launch, opening, snapshot
from server.recruiting.marketplaces.base import MarketplaceError
from server.recruiting.marketplaces.prolific import ProlificMarketplace
from server.simulation.marketplaces.prolific_requests import TransitionStudy, UpdateStudy
from server.simulation.marketplaces.prolific_studies import FakeStudy, FeeSchedule
from study.config import load_study
from study.trial_plan import read_plan
from tests.server.recruiting.marketplaces.test_contract import an_order
from tests.server.recruiting.marketplaces.test_prolific import a_study
from tests.server.recruiting.prolific_study import (
    UNIT,
    MakeProlific,
    ProlificShow,
    ProlificStudy,
    make_prolific,
    on_sqlite,
)
from tests.server.recruiting.test_crashes import Breaker

__all__ = ["make_prolific"]  # a fixture


def finish(prolific: ProlificStudy, worker: str) -> str:
    """Take part to the end and come back with the code."""
    taken = prolific.accept(worker)
    assert taken is not None, f"no place for {worker}"
    ProlificShow(prolific, Breaker(), 1).listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.complete(taken.assignment_id, prolific.code("finished"))
    return taken.assignment_id


def only_study(prolific: ProlificStudy) -> FakeStudy:
    [study] = prolific.market.state.studies.values()
    return study  # type: ignore[no-any-return]


def by_hand(prolific: ProlificStudy, action: Any) -> None:
    """What somebody does on the website."""
    prolific.market.state.move(only_study(prolific), TransitionStudy(action=action))


# ------------------------------------------------------------------ the end of a launch


@on_sqlite
def test_work_is_approved_before_a_study_is_closed_and_a_refusal_keeps_nothing_waiting(
    make_prolific: MakeProlific,
) -> None:
    """B3: STOP does not exist for AWAITING REVIEW; three finished listeners were left unpaid at every sync."""
    prolific = make_prolific(listeners=3, trials=1)
    prolific.launch()
    first, *_ = [finish(prolific, f"A{number}") for number in range(3)]
    assert only_study(prolific).status == "AWAITING REVIEW"
    prolific.market.fail("TransitionSubmission", 1, "refused")
    with pytest.raises(MarketplaceError, match=first):
        prolific.sync()
    assert len(prolific.rewards()) == 2, "the other two are paid"
    prolific.sync()
    assert (len(prolific.rewards()), only_study(prolific).status) == (3, "COMPLETED")
    assert "TransitionStudy" not in [call.operation for call in prolific.market.calls if call.status >= 400]
    assert prolific.cost == prolific.paid == 3 * UNIT


@on_sqlite
def test_a_closed_launch_stops_again_when_a_place_is_returned(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    prolific.launch()
    taken = prolific.accept("AWRONG")
    assert taken is not None
    prolific.market.complete(taken.assignment_id, "NOCODE")
    finish(prolific, "AREAL")
    launch.stop(prolific.context, "test")
    prolific.sync()
    assert only_study(prolific).status == "AWAITING REVIEW"
    prolific.market.return_(taken.assignment_id)
    assert only_study(prolific).status == "ACTIVE", "the place is offered again"
    prolific.sync()
    assert only_study(prolific).status == "COMPLETED"
    prolific.sync()
    assert prolific.site.query("SELECT count(*) FROM openings WHERE settled_at IS NULL") == [(0,)]


@on_sqlite
def test_places_of_a_completed_study_are_raised(make_prolific: MakeProlific) -> None:
    """B4: an order for a completed study was written down, and every later sync died on it."""
    prolific = make_prolific(listeners=2, trials=1)
    prolific.launch()
    wrong = prolific.accept("AWRONG")
    assert wrong is not None
    prolific.market.complete(wrong.assignment_id, "NOCODE")
    finish(prolific, "A1")
    state = prolific.market.state
    for one in list(state.submissions.values()):
        state.approve(one)  # a person approves both on the website
    assert only_study(prolific).status == "COMPLETED"
    for _ in range(3):
        prolific.sync()
    assert (only_study(prolific).status, only_study(prolific).places) == ("ACTIVE", 3)
    finish(prolific, "A2")
    prolific.sync()
    assert only_study(prolific).status == "COMPLETED"
    assert prolific.cost == prolific.paid == 3 * UNIT


# ------------------------------------------------------------------ pauses and publishing


@on_sqlite
@pytest.mark.parametrize("how", ["paused", "publishing"])
def test_places_are_ordered_once_while_a_study_takes_nobody(make_prolific: MakeProlific, how: str) -> None:
    """B5: four places became sixteen in three syncs, because untaken places did not count."""
    prolific = make_prolific(listeners=4, trials=1)
    prolific.market.state.publishing_delay = timedelta(minutes=30 if how == "publishing" else 0)
    prolific.launch()
    if how == "paused":
        by_hand(prolific, "PAUSE")
    for _ in range(3):
        prolific.wait(2)
        prolific.sync()
    assert only_study(prolific).places == 4
    with prolific.context.reading() as session:
        assert ledger.committed(session) - 3 * 187 == 4 * UNIT - 1, "and three screen-outs of $1.8667"
    if how == "paused":
        assert any("paused on Prolific; press Start" in line for line in prolific.reported)
        by_hand(prolific, "START")
    prolific.wait(30)
    for number in range(4):
        finish(prolific, f"A{number}")
    prolific.sync()
    assert prolific.cost == 4 * UNIT


@on_sqlite
def test_nothing_is_ordered_or_reopened_once_somebody_stopped_the_study(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=3, trials=1)
    prolific.launch()
    finish(prolific, "A1")
    by_hand(prolific, "STOP")
    for _ in range(3):
        prolific.sync()
    assert (only_study(prolific).status, only_study(prolific).places) == ("COMPLETED", 3)
    assert any("was stopped on Prolific with 2 places left" in line for line in prolific.reported)
    assert prolific.cost == UNIT, "who finished is paid all the same"
    prolific.market.state.update(only_study(prolific), update(total_available_places=4))
    prolific.sync()
    assert only_study(prolific).places == 4, "who raises places there is not outbid here"


def update(**changes: Any) -> Any:
    return UpdateStudy(**changes)


@on_sqlite
def test_used_up_screen_outs_are_raised_as_far_as_the_budget_goes(make_prolific: MakeProlific) -> None:
    """B2: the last paid screen-out pauses the study; more are allowed and it goes on, up to the budget."""
    pay = "[pay]\nscreened_out = 0.30\nwithout_sound = 0.30\n"
    prolific = make_prolific(listeners=1, trials=1, toml=pay)
    prolific.launch(budget=UNIT + 5 * 40)
    study = only_study(prolific)
    assert (study.slots, study.screen_out_reward) == (3, Decimal("0.30"))
    show = ProlificShow(prolific, Breaker(), 1)
    for number in range(5):
        taken = prolific.accept(f"AOUT{number}")
        assert taken is not None, number
        show.listen(taken, "technical")  # type: ignore[arg-type]
        prolific.market.complete(taken.assignment_id, prolific.code("screened_out"))
        prolific.sync()
    assert (study.slots, study.status, study.places) == (5, "PAUSED", 6)
    assert any("the budget is spent" in line for line in prolific.reported)
    assert prolific.cost == prolific.paid == 5 * 40
    with prolific.context.writing() as session:
        found = ledger.launch(session)
        assert found is not None
        assert ledger.committed(session) == found.budget_cents == UNIT + 5 * 40
        found.budget_cents += 40
    prolific.sync()
    assert (study.slots, study.status) == (6, "ACTIVE")
    finish(prolific, "A1")
    prolific.sync()
    assert prolific.cost == prolific.paid == UNIT + 5 * 40
    assert study.status == "COMPLETED"


@on_sqlite
def test_a_status_that_nobody_knows_is_left_to_a_person(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=1, trials=1)
    prolific.launch()
    taken = prolific.accept("A1")
    assert taken is not None
    one = prolific.market.state.submissions[taken.assignment_id]
    one.status = "UNKNOWN"
    prolific.sync()
    assert prolific.site.query("SELECT status FROM submissions") == [("submitted",)]
    one.status = "PARTIALLY APPROVED"
    prolific.sync()
    assert prolific.site.query("SELECT status FROM submissions") == [("approved",)]


# ------------------------------------------------------------------ drafts and earlier launches


@on_sqlite
def test_a_draft_is_published_by_open_and_by_nothing_else(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    context, plan = prolific.context, read_plan(prolific.site.study)
    opening.prepare_places(context, plan, rehearsal=True)
    cost = opening.estimate_cost(context, None, context.marketplace.account())
    assert (cost.cost, cost.screen_outs, cost.maximum) == (2 * UNIT, 3, 2 * UNIT + 3 * 187)
    assert cost.screen_out_plan.sentence == "Prolific pays 1.40 USD by itself to everyone who is screened out."
    report = prolific.reported.append
    [draft] = opening.draft_places(context, plan.schedule_fingerprint, cost, live=False, report=report)
    for _ in range(2):
        prolific.sync()
    assert only_study(prolific).status == "UNPUBLISHED"
    assert any("publish it with `rootnote server open`" in line for line in prolific.reported)
    again = opening.estimate_cost(context, None, None)
    assert (again.places, again.drafted) == (0, 2)
    opening.open_places(context, plan.schedule_fingerprint, again, live=False, report=report)
    assert (only_study(prolific).id, only_study(prolific).status) == (draft, "ACTIVE")
    assert only_study(prolific).places == 2


@on_sqlite
def test_a_draft_that_was_closed_is_opened_later_with_the_same_places(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    context, plan = prolific.context, read_plan(prolific.site.study)
    opening.prepare_places(context, plan, rehearsal=True)
    cost = opening.estimate_cost(context, None, None)
    report = prolific.reported.append
    opening.draft_places(context, plan.schedule_fingerprint, cost, live=False, report=report)
    launch.stop(context, "test")
    prolific.sync()
    with context.reading() as session:
        assert ledger.committed(session) == 0
    again = opening.estimate_cost(context, None, None)
    assert again.places == 2
    opening.open_places(context, plan.schedule_fingerprint, again, live=False, report=report)
    assert (only_study(prolific).status, only_study(prolific).places) == ("ACTIVE", 2)


@on_sqlite
def test_whoever_took_part_in_an_earlier_launch_is_not_offered_the_next(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=1, trials=1)
    market, recruiter = prolific.market, prolific.context.marketplace
    for who in ("a" * 24, "b" * 24, "c" * 24):
        market.participants.add(who)
    pilot = recruiter.open(an_order())
    market.complete(market.take("a" * 24, pilot).submission_id, recruiter.code("finished"))  # type: ignore[attr-defined]
    market.return_(market.take("b" * 24, pilot).submission_id)
    market.state.move(market.state.studies[pilot], TransitionStudy(action="STOP"))
    again = recruiter.open(an_order_of("0123abcd-other"))  # the same schedule: everyone who opened it
    other = recruiter.open(an_order_of("fedcba98-1"))  # another schedule: everyone who came back with a code
    offered = {who: [study.id for study in market.state.offers(market.participants[who])] for who in market_ids(market)}
    assert offered == {"a" * 24: [], "b" * 24: [other], "c" * 24: [again, other]}


def an_order_of(launch_name: str) -> Any:
    return dataclasses.replace(an_order(), launch=launch_name)


def market_ids(market: Any) -> list[str]:
    return [one.id for one in market.participants]


# ------------------------------------------------------------------ money


@pytest.mark.parametrize(("currency", "reward"), [("USD", "1.40"), ("USD", "1.50"), ("GBP", "1.17")])
@pytest.mark.parametrize("fee", ["academic", "corporate"])
def test_the_cost_that_is_shown_is_the_ledgers_to_the_cent(currency: str, reward: str, fee: str) -> None:
    """For 1 to 200 places: what `open` shows, our ledger, Prolific's calculator, and what is charged."""
    cents = int(Decimal(reward) * 100)
    marketplace = ProlificMarketplace(a_study(currency=currency, fee=fee))
    tariff = FeeSchedule(Fraction(1, 3) if fee == "academic" else Fraction("0.428"))
    whole, rest = split(marketplace.exact_fee(cents))
    for places in range(1, 201):
        shown = rounded(places * (cents + marketplace.exact_fee(cents)))
        stored = whole_cents(places * ((cents + whole) * 1_000_000 + rest))
        charged = sum([tariff.cost(Decimal(reward))] * places, Decimal(0)) * 100
        assert shown == stored == int(charged.to_integral_value(ROUND_HALF_UP)), places


@on_sqlite
def test_a_launch_at_an_odd_reward_costs_what_was_shown(make_prolific: MakeProlific) -> None:
    pay = "[pay]\nreward = 1.40\nscreened_out = 1.40\n"
    prolific = make_prolific(listeners=5, trials=1, toml=pay)
    context, plan = prolific.context, read_plan(prolific.site.study)
    opening.prepare_places(context, plan, rehearsal=True)
    cost = opening.estimate_cost(context, None, None)
    assert (cost.cost, cost.fee_text) == (933, "$0.4667")
    opening.open_places(context, plan.schedule_fingerprint, cost, live=False, report=prolific.reported.append)
    for number in range(5):
        finish(prolific, f"A{number}")
    prolific.sync()
    assert prolific.cost == prolific.paid == 933


# ------------------------------------------------------------------ earlier versions, and an empty account


@on_sqlite
def test_too_small_a_wallet_and_an_earlier_versions_launch(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    context, plan = prolific.context, read_plan(prolific.site.study)
    opening.prepare_places(context, plan, rehearsal=True)
    prolific.market.state.deposit = Decimal("3.00")
    cost = opening.estimate_cost(context, None, context.marketplace.account())
    with pytest.raises(RootnoteError, match=r"the account has \$3.00 and \$9.61 are needed"):
        opening.require_affordable(cost)
    prolific.market.state.deposit = Decimal("100.00")
    prolific.launch()
    with context.writing() as session:  # as a version without these settings recorded it
        found = ledger.launch(session)
        assert found is not None
        section = {key: value for key, value in found.terms["recruiter"]["prolific"].items() if key != "screen_out"}
        section |= {"project": "", "workspace": ""}
        section.pop("filters")
        found.terms = found.terms | {"recruiter": {"kind": "prolific", "prolific": section}}
    with context.reading() as session:
        found = launch.require_launched(session, context)
        with pytest.raises(RootnoteError, match=r"recruiter.prolific in study.toml was changed"):
            launch.require_unchanged(found, changed(prolific))


def changed(prolific: ProlificStudy) -> Any:
    path = prolific.site.study.folder / "study.toml"
    path.write_text(path.read_text() + '[recruiter.prolific]\ntitle = "Another"\n')
    return load_study(prolific.site.study.folder).config


@on_sqlite
def test_the_snapshot_records_what_the_study_allows(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    prolific.launch()
    snapshot.record_snapshot(prolific.context)
    assert prolific.site.query("SELECT screen_outs, secure FROM openings") == [(3, 1)]
