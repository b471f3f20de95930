"""A launch on the local Prolific that breaks off everywhere: bonuses there bear no token, show late, and pay twice.

The points where a program may die are those of test_crashes; what is different is what must hold at Prolific.
`make soak` breaks a launch of the paper's size.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from embeddings.errors import RootnoteError
from server.db.enums import PaymentKind
from server.db.models import Launch
from server.payments import ledger as payments
from server.recruiting import direct_payments, sync
from server.recruiting import due as due_payments
from server.recruiting.marketplaces.base import MarketplaceError
from server.simulation.marketplaces.money import total
from tests.server.recruiting.prolific_study import (
    UNIT,
    MakeProlific,
    ProlificShow,
    a_show,
    begin_again,
    make_prolific,
    on_sqlite,
)
from tests.server.recruiting.test_crashes import EVERY, LISTENERS, Breaker, Crash

__all__ = ["make_prolific"]  # a fixture


@pytest.mark.both_databases
def test_a_launch_that_breaks_nowhere(make_prolific: MakeProlific) -> None:
    show = a_show(make_prolific, Breaker(at=0))
    show.run()
    show.check()


@pytest.mark.slow
@on_sqlite
def test_a_launch_that_breaks_off_at_each_point_once(make_prolific: MakeProlific) -> None:
    breaker = Breaker()
    show = a_show(make_prolific, breaker)
    show.run()
    show.check()
    assert breaker.crashes == len(set(breaker.points)) >= 12 * LISTENERS
    print(f"{LISTENERS} listeners, {breaker.crashes} crashes")


@pytest.mark.slow
@on_sqlite
def test_a_launch_that_breaks_off_at_one_point_alone(make_prolific: MakeProlific) -> None:
    show = a_show(make_prolific, Breaker(at=0), 2)
    show.run()
    points = len(show.breaker.points)
    assert points > 40, "every point is known beforehand"
    for at in range(1, points + 1, EVERY):
        begin_again(show, Breaker(at=at))
        show.run()
        assert show.breaker.crashes == 1, at
        show.check()


@on_sqlite
def test_who_could_not_submit_is_paid_once_though_the_program_dies_after_each_sending(
    make_prolific: MakeProlific,
) -> None:
    """The payment shows three minutes later; asking sooner would find nothing, and pay again."""
    prolific = make_prolific(listeners=1, trials=1)
    show = ProlificShow(prolific, Breaker(), 1)
    prolific.launch()
    taken = prolific.accept("ALAST")
    assert taken is not None
    show.listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.abandon(taken.assignment_id)
    prolific.sync()
    market = prolific.market
    market.fail("PayBonuses", 1, "fail")  # not paid; but who knows
    with pytest.raises(MarketplaceError):
        prolific.pay()
    prolific.wait(16)
    marketplace: Any = prolific.context.marketplace
    sent = marketplace.bonus

    def die_after(grant: Any) -> None:
        sent(grant)
        raise Crash

    marketplace.bonus = die_after
    with pytest.raises(Crash):
        prolific.sync()
    marketplace.bonus = sent
    marketplace._submissions.paid.clear()
    prolific.wait(1)
    prolific.sync()
    prolific.pay()
    assert total(market.ledger(), "bonus") == 0, "it is on its way"
    prolific.wait(20)
    prolific.sync()
    assert total(market.ledger(), "bonus") == Decimal("1.50")
    assert prolific.cost == prolific.paid == UNIT


@on_sqlite
@pytest.mark.parametrize("way", ["auto", "approve", "return_and_bonus"])
def test_who_is_screened_out_is_paid_once_in_every_way(make_prolific: MakeProlific, way: str) -> None:
    pay = "[pay]\nscreened_out = 0.50\nwithout_sound = 0.50\n"
    prolific = make_prolific(listeners=1, trials=1, toml=f'[recruiter.prolific]\nscreen_out = "{way}"\n{pay}')
    show = ProlificShow(prolific, Breaker(), 1)
    prolific.launch()
    taken = prolific.accept("AMUTE")
    assert taken is not None
    show.listen(taken, "technical")  # type: ignore[arg-type]
    prolific.wait(5)
    prolific.sync()
    assert prolific.pay() == [], "while the place is held there is time"
    prolific.market.complete(taken.assignment_id, prolific.code("screened_out"))
    prolific.sync()
    [held] = prolific.market.state.submissions.values()
    if way == "return_and_bonus":
        assert held.status == "AWAITING REVIEW" and held.return_requested is not None
        prolific.market.return_(held.id)
        prolific.sync()
    for _ in range(2):
        prolific.pay()
        prolific.wait(20)
        prolific.sync()
    expected = {"auto": ("SCREENED OUT", 67), "approve": ("APPROVED", 200), "return_and_bonus": ("RETURNED", 67)}
    assert (held.status, prolific.cost) == expected[way]
    assert prolific.paid == prolific.cost
    with prolific.context.reading() as session:
        assert payments.pending(session) == []
        assert due_payments.all_due(session, prolific.context) == []
        assert payments.committed(session) <= payments.launch(session).budget_cents  # type: ignore[union-attr]


@on_sqlite
def test_a_payment_of_the_old_screening_is_made_after_the_place_is_returned(make_prolific: MakeProlific) -> None:
    """A database of an earlier version has a screen-out that Prolific refused, for a submission under review."""
    pay = "[pay]\nscreened_out = 1.50\nwithout_sound = 1.40\n"
    prolific = make_prolific(listeners=1, trials=1, toml=pay)
    show = ProlificShow(prolific, Breaker(), 1)
    prolific.launch()
    taken = prolific.accept("AMUTE")
    assert taken is not None
    show.listen(taken, "technical")  # type: ignore[arg-type]
    prolific.market.complete(taken.assignment_id, "ANY")
    sync.synchronize(prolific.context, approve=False, report=prolific.reported.append)
    [(assignment, submission)] = prolific.site.query("SELECT assignment_id, id FROM submissions")
    with pytest.raises(RootnoteError, match="paid once it is returned"):
        direct_payments.pay_directly(prolific.context, assignment, PaymentKind.SCREEN_OUT, 140, "", submission)
    prolific.wait(16)
    prolific.sync()
    assert any("A payment recorded earlier was not made" in line for line in prolific.reported)
    prolific.market.return_(taken.assignment_id)
    prolific.wait(20)
    prolific.sync()
    prolific.wait(20)
    prolific.sync()
    assert prolific.cost == prolific.paid == 187
    with prolific.context.reading() as session:
        assert payments.pending(session) == []
        assert due_payments.all_due(session, prolific.context) == []


@on_sqlite
def test_who_leaves_is_asked_to_return_and_who_finishes_to_come_back(
    make_prolific: MakeProlific,
) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    prolific.launch()
    left = prolific.worker("ALEFT").agree()
    left.go("leave", confirm="yes")
    assert left.step == "withdrawn" and "return your place" in left.html and "One more step" not in left.html
    assert left.find(r'href="([^"]+)" data-back').endswith("/studies")
    done = prolific.worker("ADONE").agree()
    done.go("instructions")
    done.listen().finish()
    assert done.step == "done" and "One more step" in done.html
    assert done.find(r'href="([^"]+)" data-back').endswith(f"/submissions/complete?cc={prolific.code('finished')}")


@on_sqlite
def test_codes_are_known_to_one_launch_only(make_prolific: MakeProlific) -> None:
    """Whoever has study.toml cannot compute the codes; a launch of an earlier version keeps its own."""
    prolific = make_prolific(listeners=2, trials=1)
    prolific.launch()
    [study] = prolific.market.state.studies.values()
    known = {one.code for one in study.given.completion_codes}
    guesses = {prolific.context.marketplace.code(outcome) for outcome in ("finished", "screened_out")}
    assert known == {prolific.code("finished"), prolific.code("screened_out")} and not known & guesses
    begin_again(ProlificShow(prolific, Breaker(), 2))
    prolific.launch()
    [other] = prolific.market.state.studies.values()
    assert not known & {one.code for one in other.given.completion_codes}
    with prolific.context.writing() as session:
        session.get_one(Launch, 1).code_key = None
    one = prolific.worker("AONE").agree()
    one.go("instructions")
    assert one.listen().finish().html.count("?cc=") == 1
    assert one.find(r"\?cc=(\w+)") == prolific.context.marketplace.code("finished") in guesses
