"""A study launched at a local Mechanical Turk: arrivals, records and costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from sqlalchemy import text

from embeddings.errors import RootnoteError
from server.db.models import Payment
from server.payments import ledger
from server.payments.ledger import OverBudgetError
from server.privacy.erasure import delete_erased_identities
from server.recruiting import direct_payments, launch, sync
from server.recruiting import due as due_payments
from server.recruiting.exclusive import exclusive
from server.recruiting.marketplaces.base import UnknownWorkerError
from server.simulation.fake_mturk import AcceptedHit
from tests.server.conftest import Site
from tests.server.recruiting.mturk_study import NO_PRESCREEN, MTurkStudy, MTurkWalker, make_mturk

__all__ = ["make_mturk"]
MakeMTurk = Callable[..., MTurkStudy]
UNIT = 180  # a reward of $1.50 with its fee
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


# ------------------------------------------------------------------ a whole launch


@pytest.mark.both_databases
def test_a_launch_from_the_first_place_to_the_last_cent(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=11, trials=1, toml=NO_PRESCREEN)
    assert mturk.launch().ordered == 11
    assert sorted(len(hit.places) for hit in mturk.market.state.hits.values()) == [2, 9]
    assert mturk.launch().ordered == 0, "launching again opens nothing"
    for number in range(11):
        mturk.worker(f"A{number}").take_part().hand_in()
    done = mturk.sync()
    assert (done.approved, done.ordered) == (11, 0)
    assert mturk.states() == ["paid"] * 11
    assert mturk.rewards() == sorted(f"A{number}" for number in range(11))
    assert mturk.cost == mturk.paid == 11 * UNIT
    with mturk.context.reading() as session:
        assert ledger.committed(session) == 11 * UNIT
    mturk.sync()
    with mturk.context.reading() as session:
        assert sync.is_over(session)
    assert mturk.cost == 11 * UNIT
    assert mturk.market.on_hold == 0


@on_sqlite
def test_half_the_fee_of_one_large_hit(make_mturk: MakeMTurk) -> None:
    marketplace = make_mturk(listeners=1).context.marketplace
    assert 90 * marketplace.fee(150, 9) * 2 == 90 * marketplace.fee(150, 90)


@on_sqlite
def test_no_worker_takes_part_twice_and_an_unused_place_is_offered_again(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=3, trials=1, toml="[prescreen]\nitems = 1\nattempts = 1\n")
    mturk.launch()
    failed = mturk.worker("A1").agree().screen(right=False)
    assert failed.step == "screened_out"
    mturk.worker("A2").agree().screen()
    failed.hand_in()
    done = mturk.sync()
    assert (done.approved, done.ordered) == (1, 1), "a failed prescreen is paid, and the place is opened again"
    assert mturk.accept("A1") is None, "whoever took part is offered no other place"
    assert mturk.states() == ["screened_out", "screened"]
    [payment] = mturk.site.query("SELECT kind, cents, fee_cents, state FROM payments")
    assert tuple(payment) == ("screen_out", 150, 30, "paid")
    assert mturk.cost == mturk.paid == UNIT


def test_a_worker_who_gives_back_and_accepts_again_goes_on(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=1, trials=2, toml=NO_PRESCREEN)
    mturk.launch()
    walker = mturk.worker("A1").agree()
    walker.go("instructions")
    walker.answer("B")
    mturk.market.return_(walker.accepted.assignment_id)
    mturk.wait(5)
    assert mturk.sync().ordered == 0, "the place is offered again by itself"
    assert mturk.states() == ["returned"]
    mturk.market.workers["A1"].qualifications.clear()  # a researcher lets them in once more
    back = mturk.worker("A1")
    assert back.accepted.assignment_id == walker.accepted.assignment_id, "the same id comes again"
    assert "Your answers so far are saved" in back.html
    back.agree()
    assert back.find(r'data-position="(\d+)"') == "2"
    back.listen().finish()
    back.hand_in()
    mturk.sync()
    assert mturk.states() == ["paid"]
    assert mturk.cost == mturk.paid == UNIT


@on_sqlite
def test_an_assignment_reissued_to_another_worker(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=1, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    first = mturk.worker("A1").agree()
    mturk.market.return_(first.accepted.assignment_id)
    mturk.wait(5)
    mturk.sync()
    second = mturk.worker("A2")
    assert second.accepted.assignment_id == first.accepted.assignment_id
    second.take_part().hand_in()
    mturk.sync()
    assert mturk.states() == ["returned", "paid"]
    assert mturk.rewards() == ["A2"]


@on_sqlite
def test_who_could_not_submit_is_paid_by_a_place_of_their_own(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=1, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    walker = mturk.worker("A1").take_part()
    assert walker.may_hand_in
    mturk.market.abandon(walker.accepted.assignment_id)
    mturk.wait(5)
    assert mturk.sync().ordered == 0
    [due] = mturk.pay()
    assert (due.method, due.kind, due.cents) == ("place", "reward", 150)
    assert mturk.pay() == [], "asked for twice, made once"
    mturk.sync()
    assert mturk.accept("A2") is None, "no one else is offered it"
    paid = mturk.worker("A1")
    assert paid.step == "owed"
    paid.hand_in()
    mturk.sync()
    assert mturk.states() == ["paid"]
    assert (mturk.rewards(), mturk.cost, mturk.paid) == (["A1"], UNIT, UNIT)


@on_sqlite
def test_who_finishes_on_a_page_left_open_after_the_hit_is_over_is_owed_the_reward(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=1, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    walker = mturk.worker("A1")
    mturk.wait(8 * 24 * 60)  # the HIT's lifetime, and the worker's time
    mturk.sync()
    walker.arrive().take_part()
    mturk.wait(5)
    mturk.sync()
    [due] = mturk.pay()
    assert (due.method, due.cents) == ("place", 150)
    mturk.sync()
    mturk.worker("A1").hand_in()
    mturk.sync()
    assert (mturk.rewards(), mturk.cost, mturk.paid) == (["A1"], UNIT, UNIT)


@on_sqlite
def test_an_incomplete_submission_needs_a_decision(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=2, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    walker = mturk.worker("A1").agree()
    mturk.market.submit(walker.accepted.assignment_id, code="GUESSED")
    never = mturk.accept("A2")
    assert never is not None
    mturk.market.submit(never.assignment_id)
    mturk.wait(5)
    assert mturk.sync().approved == 0
    with mturk.context.reading() as session:
        found = [
            (row.status, assignment is not None)
            for row, assignment in due_payments.needs_manual_review(session, mturk.context)
        ]
        assert sorted(found) == [("submitted", False), ("submitted", True)]
        [due] = due_payments.approvable_by_override(session, mturk.context)
        assert (due.cents, due.method) == (150, "approve"), "a person may approve it all the same"
    mturk.wait(4 * 24 * 60)  # no one decided, so Mechanical Turk approved automatically
    mturk.sync()
    assert mturk.cost == mturk.paid == 2 * UNIT
    assert [call for call in mturk.market.calls if call.operation in ("RejectAssignment", "CreateWorkerBlock")] == []


@on_sqlite
def test_a_rejection_by_a_person_is_taken_note_of(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=1, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    walker = mturk.worker("A1").take_part().hand_in()
    mturk.market.fail("ApproveAssignment", 1, "fail")
    with pytest.raises(RootnoteError):
        mturk.sync()
    mturk.market.state.reject(mturk.market.state.places[walker.accepted.assignment_id], "by hand")
    assert mturk.sync().approved == 0
    assert mturk.site.query("SELECT state FROM payments") == [("void",)]
    assert mturk.cost == mturk.paid == 0


# ------------------------------------------------------------------ money


@on_sqlite
def test_the_budget_is_hard(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=3, trials=1, toml=NO_PRESCREEN + "[pay]\nwithdrawn = 0.50\n")
    assert mturk.launch(budget=2 * UNIT + 59).ordered == 2
    assert "1 more place is needed" in mturk.reported[-1]
    walker = mturk.worker("A1").agree()
    walker.post("leave", confirm="yes")
    mturk.market.return_(walker.accepted.assignment_id)
    mturk.wait(5)
    mturk.sync()
    with pytest.raises(OverBudgetError, match=r"the budget of \$4\.19 is \$0\.01 too low"):
        mturk.pay()
    assert mturk.launch(budget=2 * UNIT + 60).ordered == 0
    [due] = mturk.pay()
    assert (due.method, due.kind, due.cost) == ("place", "partial", 60)
    with mturk.context.reading() as session:
        assert ledger.committed(session) == ledger.launch(session).budget_cents  # type: ignore[union-attr]


def test_a_bonus_is_paid_once_whatever_happens(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=1, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    mturk.worker("A1").take_part().hand_in()
    mturk.sync()
    for how in ("fail", "fail_after", "timeout_before", "timeout_after"):
        mturk.market.fail("SendBonus", 1, how)
        with contextlib.suppress(RootnoteError):
            _bonus(mturk)
        mturk.sync()
    assert mturk.cost == mturk.paid == UNIT + 30
    assert sum(entry.kind == "bonus" for entry in mturk.market.ledger()) == 1


def _bonus(mturk: MTurkStudy) -> None:
    with mturk.context.reading() as session:
        assignment = session.get_one(Payment, 1).assignment_id
        submission = session.get_one(Payment, 1).submission_id
    assert assignment is not None
    direct_payments.pay_directly(mturk.context, assignment, "bonus", 25, "Thank you.", submission)


@on_sqlite
def test_a_study_changed_after_its_launch_is_refused(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=1)
    mturk.launch()
    pay = mturk.context.config.pay.model_copy(update={"reward": 2.0})
    with mturk.context.reading() as session, pytest.raises(RootnoteError, match=r"pay\.reward .*1\.5.*2\.0"):
        found = ledger.launch(session)
        assert found is not None
        launch.require_unchanged(found, mturk.context.config.model_copy(update={"pay": pay}))


@pytest.mark.both_databases
def test_two_programs_never_keep_the_books_at_once(make_mturk: MakeMTurk) -> None:
    engine = make_mturk(listeners=1).context.engine
    with exclusive(engine), pytest.raises(RootnoteError, match="another"), exclusive(engine):
        pass
    with exclusive(engine):
        pass


# ------------------------------------------------------------------ at the door


@on_sqlite
def test_the_door_of_a_marketplace(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=2, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    client = MTurkWalker(mturk.site).client
    hit = next(iter(mturk.market.state.hits))
    preview = client.get(f"/take?assignmentId=ASSIGNMENT_ID_NOT_AVAILABLE&hitId={hit}")
    assert preview.status_code == 200 and "data-preview" in preview.text and "<form" not in preview.text
    real = f"/take?workerId=A1&assignmentId=3X&hitId={hit}&turkSubmitTo=https%3A%2F%2Fwww.mturk.com"
    assert client.get(real).status_code == 200
    for query in (
        "/take",
        "/take?worker=A1",
        real.replace("www.mturk.com", "www.mturk.com.example.org"),
        real.replace(hit, "3FOREIGN"),
        real.replace("A1", "%27%20OR%201"),
        real.replace("A1", "A" * 65),
    ):
        reply = client.get(query)
        assert reply.status_code == 400, query
        assert "Set-Cookie" not in reply.headers
    assert mturk.site.query("SELECT * FROM assignments") == [], "looking makes nothing"
    policy = client.get(real).headers["Content-Security-Policy"]
    assert f"form-action 'self' http://127.0.0.1:{mturk.market.port}" in policy
    assert f"frame-ancestors http://127.0.0.1:{mturk.market.port}" in policy


@on_sqlite
def test_a_form_cannot_be_sent_for_somebody_else(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=2, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    one, other = mturk.worker("A1"), mturk.worker("A2")
    fields = {
        "entry": one.find(r'name="entry" value="([^"]+)"'),
        "arrival": other.find(r'name="arrival" value="([^"]+)"'),
    }
    assert one.client.post("/take", data=fields).status_code == 400
    assert one.client.post("/take", data={"entry": fields["entry"]}).status_code == 400
    assert one.client.post("/take", data={"entry": fields["entry"], "arrival": "forged"}).status_code == 400


@on_sqlite
def test_the_same_worker_again(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=12, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    walker = mturk.worker("A1").agree()
    assert mturk.arrive(walker.accepted).address == walker.address, "a reloaded frame"
    second = mturk.worker("A1")
    assert second.accepted.hit_id != walker.accepted.hit_id
    assert second.step == "consent", "another HIT is another's until Mechanical Turk lists it, which is at its end"
    second.take_part()
    assert second.address != walker.address
    assert second.find(r'name="assignmentId" value="([^"]+)"') == second.accepted.assignment_id
    second.hand_in()
    mturk.wait(5)
    mturk.sync()
    assert mturk.states() == ["screened", "paid"]
    late = mturk.arrive(walker.accepted)
    assert late.step == "taken" and not late.may_hand_in
    assert mturk.rewards() == ["A1"]


@on_sqlite
def test_who_is_owed_less_than_the_reward_is_asked_to_return_the_place(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=1, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    walker = mturk.worker("A1").agree()
    assert walker.post("leave", confirm="yes").status_code == 303
    walker.reload()
    assert walker.step == "withdrawn" and not walker.may_hand_in and "return your place" in walker.html


@on_sqlite
def test_identities_lie_in_the_vault_alone(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=1, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    walker = mturk.worker("AVERYODDWORKER").take_part().hand_in()
    mturk.sync()
    everything = _dump(mturk.site)
    assert "AVERYODDWORKER" not in everything
    assert walker.accepted.assignment_id not in everything
    assert len(mturk.site.query("SELECT * FROM vault")) == 1


def _dump(site: Site) -> str:
    tables = ("listeners", "assignments", "submissions", "payments", "openings", "vault", "launch", "log", "answers")
    return "".join(str(site.query(f"SELECT * FROM {table}")) for table in tables)


@on_sqlite
def test_a_forged_worker_id_is_never_paid_and_stops_nothing(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=2, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    accepted = mturk.accept("A1")
    assert accepted is not None
    forged = AcceptedHit("3FORGED", accepted.hit_id, "AFORGED", accepted.external_url.replace("A1", "AFORGED"))
    mturk.arrive(forged).take_part()
    mturk.arrive(accepted).take_part().hand_in()
    mturk.wait(24 * 60)
    assert mturk.sync().approved == 1
    assert mturk.pay(confirms=False) == [], "nothing is owed before a person has looked"
    with pytest.raises(UnknownWorkerError, match="knows no worker"):
        mturk.pay()
    mturk.sync()
    assert mturk.pay() == []
    assert (mturk.rewards(), mturk.cost, mturk.paid) == (["A1"], UNIT, UNIT)


def test_who_could_not_hear_and_was_paid_by_an_earlier_version_is_not_paid_again(make_mturk: MakeMTurk) -> None:
    """They were recorded as screened out then; the reward that they are due now is the same money."""
    mturk = make_mturk(listeners=1, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    walker = mturk.worker("AMUTE").agree()
    walker.go("technical").hand_in()
    mturk.sync()
    assert mturk.rewards() == ["AMUTE"]
    with mturk.context.writing() as session:
        session.execute(text("UPDATE payments SET kind = 'screen_out'"))
    for _ in range(2):
        mturk.sync()
        assert mturk.pay() == []
    assert mturk.rewards() == ["AMUTE"]
    assert mturk.cost == mturk.paid


@on_sqlite
def test_a_consent_page_sent_again_after_erasing_stores_no_identity_again(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=1, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    walker = mturk.worker("A1")
    page = walker.page
    walker.agree()
    walker.client.post(f"{walker.address}/withdraw", data={"confirm": "yes"})
    mturk.market.return_(walker.accepted.assignment_id)
    mturk.wait(5)
    mturk.sync()
    with mturk.context.writing() as session:
        assert delete_erased_identities(session, mturk.context.config) == 1
    walker.page = page
    walker.agree()  # the same form once more, from a second tab
    assert mturk.site.query("SELECT * FROM vault") == []
    assert mturk.site.query("SELECT status FROM submissions") == [("returned",)]
