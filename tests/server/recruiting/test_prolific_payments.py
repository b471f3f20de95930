"""Payments at the local Prolific: events out of order, false ids, approvals that a person makes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from server.db.models import Assignment
from server.payments import ledger as payments
from server.payments.ledger import OverBudgetError
from server.privacy.erasure import is_settled
from server.recruiting import direct_payments, sync
from server.recruiting import due as due_payments
from server.recruiting.marketplaces.base import MarketplaceError
from server.recruiting.marketplaces.prolific_api import ProlificApiError
from server.simulation.marketplaces.money import total
from tests.server.recruiting.prolific_study import (
    UNIT,
    MakeProlific,
    ProlificShow,
    ProlificStudy,
    Taken,
    make_prolific,
    on_sqlite,
    participant,
)
from tests.server.recruiting.test_crashes import Breaker

__all__ = ["make_prolific"]  # a fixture


def settled(prolific: ProlificStudy) -> bool:
    """Whether nothing is in unknown state or due, and our ledger agrees with the marketplace's to the cent."""
    with prolific.context.reading() as session:
        open_ = [*payments.pending(session), *due_payments.all_due(session, prolific.context)]
    return not open_ and prolific.cost == prolific.paid


def until_it_shows(prolific: ProlificStudy) -> None:
    for _ in range(2):
        prolific.pay()
        prolific.wait(20)
        prolific.sync()


@on_sqlite
def test_one_submission_under_many_names_is_paid_once(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=4, trials=1)
    show = ProlificShow(prolific, Breaker(), 4)
    prolific.launch()
    taken = prolific.accept("AREAL")
    assert taken is not None
    own = participant("AREAL")
    for digit, ends in (("1", "finish"), ("2", "finish"), ("3", "technical")):
        forged = Taken(taken.assignment_id, taken.external_url.replace(own, 24 * digit))
        assert forged != taken
        show.listen(forged, ends)  # type: ignore[arg-type]
        prolific.pay()  # while the place is held, too
    show.listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.complete(taken.assignment_id, "ANY")
    prolific.wait(5)
    prolific.sync()
    until_it_shows(prolific)
    assert [entry.kind for entry in prolific.market.ledger() if entry.kind not in ("fee", "tax")] == ["reward"]
    assert prolific.cost == UNIT and settled(prolific)


@on_sqlite
def test_a_submission_that_prolific_does_not_know_is_not_paid(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=1, trials=1)
    prolific.launch()
    taken = prolific.accept("AREAL")
    assert taken is not None
    address = taken.external_url.replace(participant("AREAL"), "e" * 24)
    forged = Taken("f" * 24, address.replace(taken.assignment_id, "f" * 24))
    ProlificShow(prolific, Breaker(), 1).listen(forged, "finish")  # type: ignore[arg-type]
    prolific.market.return_(taken.assignment_id)
    prolific.wait(5)
    prolific.sync()
    until_it_shows(prolific)
    assert prolific.cost == 0 and settled(prolific)


@on_sqlite
def test_who_was_approved_midway_and_finishes_is_paid_once(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=1, trials=1)
    prolific.launch()
    walker = prolific.worker("AMIDWAY").agree()
    walker.go("instructions")
    prolific.market.complete(walker.accepted.assignment_id, "ANY")
    prolific.market.state.approve(prolific.market.state.submission(walker.accepted.assignment_id))
    prolific.sync()
    walker.reload().listen().finish()
    assert walker.step == "done"
    prolific.sync()
    until_it_shows(prolific)
    assert prolific.cost == UNIT and settled(prolific)


@on_sqlite
def test_who_was_paid_for_leaving_does_not_go_on(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=1, trials=1, toml="[pay]\nwithdrawn = 0.50\nwithout_sound = 1.40\n")
    prolific.launch()
    walker = prolific.worker("ALEFT").agree()
    prolific.market.return_(walker.accepted.assignment_id)
    prolific.wait(5)
    prolific.sync()
    prolific.pay()
    assert prolific.states() == ["returned"]
    again = prolific.arrive(walker.accepted)
    if again.step == "consent":
        again.agree()
    assert again.step not in ("instructions", "trial")
    until_it_shows(prolific)
    assert prolific.cost == 50 + 17 and settled(prolific)


def finish_and_return_after_a_failed_approval(prolific: ProlificStudy, listeners: int) -> None:
    taken = prolific.accept("AREAL")
    assert taken is not None
    ProlificShow(prolific, Breaker(), listeners).listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.complete(taken.assignment_id, "ANY")
    marketplace: Any = prolific.context.marketplace
    approve = marketplace.approve

    def fails(submission: object) -> None:
        raise MarketplaceError("no answer")

    marketplace.approve = fails
    with pytest.raises(MarketplaceError):
        prolific.sync()
    marketplace.approve = approve
    prolific.market.return_(taken.assignment_id)
    prolific.wait(5)
    prolific.sync()


@on_sqlite
def test_an_approval_that_came_to_nothing_is_paid_as_a_bonus_when_the_place_was_given_back(
    make_prolific: MakeProlific,
) -> None:
    prolific = make_prolific(listeners=1, trials=1)
    prolific.launch()
    finish_and_return_after_a_failed_approval(prolific, 1)
    until_it_shows(prolific)
    assert total(prolific.market.ledger(), "bonus") == Decimal("1.50")
    assert prolific.cost == UNIT and settled(prolific)


@on_sqlite
def test_who_was_paid_a_bonus_and_is_approved_afterwards_stops_nothing(
    make_prolific: MakeProlific,
) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    show = ProlificShow(prolific, Breaker(), 2)
    prolific.launch()
    taken = prolific.accept("ALATE")
    assert taken is not None
    show.listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.abandon(taken.assignment_id)
    prolific.wait(5)
    prolific.sync()
    until_it_shows(prolific)
    prolific.market.complete(taken.assignment_id, "ANY")
    prolific.market.state.approve(prolific.market.state.submission(taken.assignment_id))
    other = prolific.accept("AOTHER")
    assert other is not None
    show.listen(other, "finish")  # type: ignore[arg-type]
    prolific.market.complete(other.assignment_id, "ANY")
    prolific.sync()
    until_it_shows(prolific)
    kinds = [row[0] for row in prolific.site.query("SELECT kind FROM payments ORDER BY id")]
    assert kinds == ["reward", "paid_again", "reward"]
    assert prolific.cost == 3 * UNIT and settled(prolific)
    # A bonus that is in doubt comes on top of all that.
    [(assignment, submission)] = prolific.site.query("SELECT assignment_id, submission_id FROM payments WHERE id = 1")
    prolific.market.fail("PayBonuses", 1, "fail")
    with pytest.raises(MarketplaceError):
        direct_payments.pay_directly(prolific.context, assignment, "bonus", 25, "Thank you.", submission)
    prolific.wait(20)
    prolific.sync()
    until_it_shows(prolific)
    assert total(prolific.market.ledger(), "bonus") == Decimal("1.75")
    assert settled(prolific)


@on_sqlite
def test_what_a_person_rejected_is_not_paid(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=1, trials=1)
    prolific.launch()
    taken = prolific.accept("AREAL")
    assert taken is not None
    ProlificShow(prolific, Breaker(), 1).listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.complete(taken.assignment_id, "ANY")
    sync.synchronize(prolific.context, approve=False)
    prolific.market.state.reject(prolific.market.state.submission(taken.assignment_id))
    prolific.sync()
    until_it_shows(prolific)
    assert prolific.cost == 0 and settled(prolific)
    with prolific.context.reading() as session:
        [who] = session.scalars(select(Assignment))
        assert is_settled(session, who, prolific.context.config.pay), "who they are may go"


@on_sqlite
def test_who_is_approved_while_a_bonus_is_in_doubt_is_paid_once(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    prolific.launch()
    taken = prolific.accept("ALATE")
    assert taken is not None
    ProlificShow(prolific, Breaker(), 2).listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.abandon(taken.assignment_id)
    prolific.wait(5)
    prolific.sync()
    prolific.market.fail("PayBonuses", 1, "fail")
    with pytest.raises(MarketplaceError):
        prolific.pay()
    prolific.market.complete(taken.assignment_id, "ANY")
    prolific.market.state.approve(prolific.market.state.submission(taken.assignment_id))
    prolific.sync()
    prolific.wait(20)
    prolific.sync()
    until_it_shows(prolific)
    assert prolific.site.query("SELECT kind, state FROM payments") == [("reward", "paid")]
    assert prolific.states() == ["paid"]
    assert prolific.cost == UNIT and settled(prolific)


@on_sqlite
def test_where_prolific_does_not_know_us_nothing_is_decided(make_prolific: MakeProlific) -> None:
    """A token of another workspace finds no submission, and no study either."""
    prolific = make_prolific(listeners=1, trials=1)
    prolific.launch()
    taken = prolific.accept("ALATE")
    assert taken is not None
    ProlificShow(prolific, Breaker(), 1).listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.abandon(taken.assignment_id)
    prolific.wait(5)
    prolific.sync()
    with prolific.context.reading() as session:
        [due] = due_payments.all_due(session, prolific.context)
    marketplace: Any = prolific.context.marketplace
    submissions = marketplace._submissions
    api, submissions._api = submissions._api, Stranger()
    with pytest.raises(ProlificApiError):
        direct_payments.pay_directly(prolific.context, due.assignment, due.kind, due.cents, "", due.submission)
    submissions._api = api
    prolific.wait(20)
    prolific.sync()
    until_it_shows(prolific)
    assert prolific.cost == UNIT and settled(prolific)


class Stranger:
    """An API that does not know us."""

    def get(self, path: str, **_: Any) -> Any:
        raise ProlificApiError("Prolific: not found", 404)


@on_sqlite
def test_an_approval_that_came_to_nothing_is_not_paid_beyond_the_budget(
    make_prolific: MakeProlific,
) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    prolific.launch(budget=2 * UNIT)
    finish_and_return_after_a_failed_approval(prolific, 2)
    with pytest.raises(OverBudgetError):
        prolific.pay()
    with prolific.context.reading() as session:
        assert payments.committed(session) <= 2 * UNIT
    assert prolific.cost == 0
