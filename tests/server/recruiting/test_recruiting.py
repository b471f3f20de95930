"""A study launched at a local Mechanical Turk: at the door, in the books, and what it costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from sqlalchemy import text

from embeddings.errors import RootnoteError
from server.db.models import Payment
from server.payments import ledger
from server.payments.ledger import OverBudgetError
from server.privacy.erasure import forget_the_erased
from server.recruiting import due as recruiting_due
from server.recruiting import grants, launch, sync
from server.recruiting.marketplaces.base import UnknownWorkerError
from server.simulation.fake_mturk import AcceptedHit
from tests.server.conftest import Site
from tests.server.recruiting.mturk_study import NO_PRESCREEN, Turk, TurkWalker, make_turk

__all__ = ["make_turk"]
MakeTurk = Callable[..., Turk]
UNIT = 180  # a reward of $1.50 with its fee
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


# ------------------------------------------------------------------ a whole launch


@pytest.mark.both_databases
def test_a_launch_from_the_first_place_to_the_last_cent(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=11, trials=1, toml=NO_PRESCREEN)
    assert turk.launch().ordered == 11
    assert sorted(len(hit.places) for hit in turk.market.state.hits.values()) == [2, 9]
    assert turk.launch().ordered == 0, "launching again opens nothing"
    for number in range(11):
        turk.worker(f"A{number}").take_part().hand_in()
    done = turk.sync()
    assert (done.approved, done.ordered) == (11, 0)
    assert turk.states() == ["paid"] * 11
    assert turk.rewards() == sorted(f"A{number}" for number in range(11))
    assert turk.cost == turk.paid == 11 * UNIT
    with turk.office.reading() as session:
        assert ledger.committed(session) == 11 * UNIT
    turk.sync()
    with turk.office.reading() as session:
        assert sync.is_over(session)
    assert turk.cost == 11 * UNIT
    assert turk.market.on_hold == 0


@on_sqlite
def test_half_the_fee_of_one_large_hit(make_turk: MakeTurk) -> None:
    recruiter = make_turk(listeners=1).office.recruiter
    assert 90 * recruiter.fee(150, 9) * 2 == 90 * recruiter.fee(150, 90)


@on_sqlite
def test_no_worker_takes_part_twice_and_a_place_taken_in_vain_is_given_anew(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=3, trials=1, toml="[prescreen]\nitems = 1\nattempts = 1\n")
    turk.launch()
    failed = turk.worker("A1").agree().screen(right=False)
    assert failed.step == "screened_out"
    turk.worker("A2").agree().screen()
    failed.hand_in()
    done = turk.sync()
    assert (done.approved, done.ordered) == (1, 1), "who fails the prescreen is paid, and their place opened anew"
    assert turk.accept("A1") is None, "whoever took part is offered no other place"
    assert turk.accept("A2") is None
    assert turk.states() == ["screened_out", "screened"]
    [payment] = turk.site.query("SELECT kind, cents, fee_cents, state FROM payments")
    assert tuple(payment) == ("screen_out", 150, 30, "paid")
    assert turk.cost == turk.paid == UNIT


def test_a_worker_who_gives_back_and_accepts_again_goes_on(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=1, trials=2, toml=NO_PRESCREEN)
    turk.launch()
    walker = turk.worker("A1").agree()
    walker.go("instructions")
    walker.answer("B")
    turk.market.return_(walker.accepted.assignment_id)
    turk.wait(5)
    assert turk.sync().ordered == 0, "the place is offered again by itself"
    assert turk.states() == ["returned"]
    turk.market.workers["A1"].qualifications.clear()  # a researcher lets them in once more
    back = turk.worker("A1")
    assert back.accepted.assignment_id == walker.accepted.assignment_id, "the same id comes again"
    assert "Your answers so far are saved" in back.html
    back.agree()
    assert back.find(r'data-position="(\d+)"') == "2"
    back.listen().finish()
    back.hand_in()
    turk.sync()
    assert turk.states() == ["paid"]
    assert turk.cost == turk.paid == UNIT


@on_sqlite
def test_an_assignment_reissued_to_another_worker(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=1, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    first = turk.worker("A1").agree()
    turk.market.return_(first.accepted.assignment_id)
    turk.wait(5)
    turk.sync()
    second = turk.worker("A2")
    assert second.accepted.assignment_id == first.accepted.assignment_id
    second.take_part().hand_in()
    turk.sync()
    assert turk.states() == ["returned", "paid"]
    assert turk.rewards() == ["A2"]


@on_sqlite
def test_who_could_not_submit_is_paid_by_a_place_of_their_own(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=1, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    walker = turk.worker("A1").take_part()
    assert walker.may_hand_in
    turk.market.abandon(walker.accepted.assignment_id)
    turk.wait(5)
    assert turk.sync().ordered == 0
    [due] = turk.pay()
    assert (due.how, due.kind, due.cents) == ("place", "reward", 150)
    assert turk.pay() == [], "asked for twice, made once"
    assert turk.accept("A2") is None, "nobody else is offered it"
    paid = turk.worker("A1")
    assert paid.step == "owed"
    paid.hand_in()
    turk.sync()
    assert turk.states() == ["paid"]
    assert (turk.rewards(), turk.cost, turk.paid) == (["A1"], UNIT, UNIT)


@on_sqlite
def test_who_finishes_on_a_page_left_open_after_the_hit_is_over_is_owed_the_reward(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=1, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    walker = turk.worker("A1")
    turk.wait(8 * 24 * 60)  # the HIT's lifetime, and the worker's time
    turk.sync()
    walker.arrive().take_part()
    turk.wait(5)
    turk.sync()
    [due] = turk.pay()
    assert (due.how, due.cents) == ("place", 150)
    turk.worker("A1").hand_in()
    turk.sync()
    assert (turk.rewards(), turk.cost, turk.paid) == (["A1"], UNIT, UNIT)


@on_sqlite
def test_work_handed_in_without_finishing_is_left_to_a_person(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=2, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    walker = turk.worker("A1").agree()
    turk.market.submit(walker.accepted.assignment_id, code="GUESSED")
    never = turk.accept("A2")
    assert never is not None
    turk.market.submit(never.assignment_id)
    turk.wait(5)
    assert turk.sync().approved == 0
    with turk.office.reading() as session:
        found = [
            (row.status, assignment is not None)
            for row, assignment in recruiting_due.needs_manual_review(session, turk.office)
        ]
        assert sorted(found) == [("submitted", False), ("submitted", True)]
        [due] = recruiting_due.approvable_by_override(session, turk.office)
        assert (due.cents, due.how) == (150, "approve"), "a person may approve it all the same"
    turk.wait(4 * 24 * 60)  # nobody decided, so Mechanical Turk approved by itself
    turk.sync()
    assert turk.cost == turk.paid == 2 * UNIT
    assert [call for call in turk.market.calls if call.operation in ("RejectAssignment", "CreateWorkerBlock")] == []


@on_sqlite
def test_a_rejection_by_a_person_is_taken_note_of(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=1, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    walker = turk.worker("A1").take_part().hand_in()
    turk.market.fail("ApproveAssignment", 1, "fail")
    with pytest.raises(RootnoteError):
        turk.sync()
    turk.market.state.reject(turk.market.state.places[walker.accepted.assignment_id], "by hand")
    assert turk.sync().approved == 0
    assert turk.site.query("SELECT state FROM payments") == [("void",)]
    assert turk.cost == turk.paid == 0


# ------------------------------------------------------------------ money


@on_sqlite
def test_the_budget_is_hard(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=3, trials=1, toml=NO_PRESCREEN + "[pay]\nwithdrawn_usd = 0.50\n")
    assert turk.launch(budget=2 * UNIT + 59).ordered == 2
    assert "1 more places are needed" in turk.told[-1]
    walker = turk.worker("A1").agree()
    walker.post("leave", confirm="yes")
    turk.market.return_(walker.accepted.assignment_id)
    turk.wait(5)
    turk.sync()
    with pytest.raises(OverBudgetError, match=r"the budget of \$4\.19 is \$0\.01 short"):
        turk.pay()
    assert turk.launch(budget=2 * UNIT + 60).ordered == 0
    [due] = turk.pay()
    assert (due.how, due.kind, due.cost) == ("place", "partial", 60)
    with turk.office.reading() as session:
        assert ledger.committed(session) == ledger.launch(session).budget_cents  # type: ignore[union-attr]


def test_a_bonus_is_paid_once_whatever_happens(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=1, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    turk.worker("A1").take_part().hand_in()
    turk.sync()
    for how in ("fail", "fail_after", "timeout_before", "timeout_after"):
        turk.market.fail("SendBonus", 1, how)
        with contextlib.suppress(RootnoteError):
            _bonus(turk)
        turk.sync()
    assert turk.cost == turk.paid == UNIT + 30
    assert sum(entry.kind == "bonus" for entry in turk.market.ledger()) == 1


def _bonus(turk: Turk) -> None:
    with turk.office.reading() as session:
        assignment = session.get_one(Payment, 1).assignment_id
        submission = session.get_one(Payment, 1).submission_id
    assert assignment is not None
    grants.pay_directly(turk.office, assignment, "bonus", 25, "Thank you.", submission)


@on_sqlite
def test_a_study_changed_after_its_launch_is_refused(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=1)
    turk.launch()
    pay = turk.office.config.pay.model_copy(update={"reward_usd": 2.0})
    with turk.office.reading() as session, pytest.raises(RootnoteError, match=r"pay\.reward_usd .*1\.5.*2\.0"):
        found = ledger.launch(session)
        assert found is not None
        launch.require_unchanged(found, turk.office.config.model_copy(update={"pay": pay}))


@pytest.mark.both_databases
def test_two_programs_never_keep_the_books_at_once(make_turk: MakeTurk) -> None:
    engine = make_turk(listeners=1).office.engine
    with launch.exclusive(engine), pytest.raises(RootnoteError, match="another"), launch.exclusive(engine):
        pass
    with launch.exclusive(engine):
        pass


# ------------------------------------------------------------------ at the door


@on_sqlite
def test_the_door_of_a_marketplace(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=2, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    client = TurkWalker(turk.site).client
    hit = next(iter(turk.market.state.hits))
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
    assert turk.site.query("SELECT * FROM assignments") == [], "looking makes nothing"
    policy = client.get(real).headers["Content-Security-Policy"]
    assert f"form-action 'self' http://127.0.0.1:{turk.market.port}" in policy
    assert f"frame-ancestors http://127.0.0.1:{turk.market.port}" in policy


@on_sqlite
def test_a_form_cannot_be_sent_for_somebody_else(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=2, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    one, other = turk.worker("A1"), turk.worker("A2")
    fields = {
        "entry": one.find(r'name="entry" value="([^"]+)"'),
        "arrival": other.find(r'name="arrival" value="([^"]+)"'),
    }
    assert one.client.post("/take", data=fields).status_code == 400
    assert one.client.post("/take", data={"entry": fields["entry"]}).status_code == 400
    assert one.client.post("/take", data={"entry": fields["entry"], "arrival": "forged"}).status_code == 400


@on_sqlite
def test_the_same_worker_again(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=12, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    walker = turk.worker("A1").agree()
    assert turk.arrive(walker.accepted).address == walker.address, "a reloaded frame"
    second = turk.worker("A1")
    assert second.accepted.hit_id != walker.accepted.hit_id
    assert second.address == walker.address, "another HIT leads to the same run"
    second.go("instructions")
    second.listen().finish()
    assert second.find(r'name="assignmentId" value="([^"]+)"') == second.accepted.assignment_id
    second.hand_in()
    turk.wait(5)
    turk.sync()
    assert turk.states() == ["paid"]
    late = turk.arrive(walker.accepted)
    assert late.step == "taken" and not late.may_hand_in
    assert turk.rewards() == ["A1"]


@on_sqlite
def test_who_is_owed_less_than_the_reward_is_asked_to_return_the_place(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=1, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    walker = turk.worker("A1").agree()
    assert walker.post("leave", confirm="yes").status_code == 303
    walker.reload()
    assert walker.step == "withdrawn" and not walker.may_hand_in and "return your place" in walker.html


@on_sqlite
def test_identities_lie_in_the_vault_alone(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=1, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    walker = turk.worker("AVERYODDWORKER").take_part().hand_in()
    turk.sync()
    everything = _dump(turk.site)
    assert "AVERYODDWORKER" not in everything
    assert walker.accepted.assignment_id not in everything
    assert len(turk.site.query("SELECT * FROM vault")) == 1


def _dump(site: Site) -> str:
    tables = ("listeners", "assignments", "submissions", "payments", "openings", "vault", "launch", "log", "answers")
    return "".join(str(site.query(f"SELECT * FROM {table}")) for table in tables)


@on_sqlite
def test_a_forged_worker_id_is_never_paid_and_stops_nothing(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=2, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    accepted = turk.accept("A1")
    assert accepted is not None
    forged = AcceptedHit("3FORGED", accepted.hit_id, "AFORGED", accepted.external_url.replace("A1", "AFORGED"))
    turk.arrive(forged).take_part()
    turk.arrive(accepted).take_part().hand_in()
    turk.wait(24 * 60)
    assert turk.sync().approved == 1
    with pytest.raises(UnknownWorkerError, match="knows no worker"):
        turk.pay()
    turk.sync()
    assert turk.pay() == []
    assert (turk.rewards(), turk.cost, turk.paid) == (["A1"], UNIT, UNIT)


def test_who_could_not_hear_and_was_paid_by_an_earlier_version_is_not_paid_again(make_turk: MakeTurk) -> None:
    """They were booked as screened out then; the reward that they are due now is the same money."""
    turk = make_turk(listeners=1, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    walker = turk.worker("AMUTE").agree()
    walker.go("technical").hand_in()
    turk.sync()
    assert turk.rewards() == ["AMUTE"]
    with turk.office.writing() as session:
        session.execute(text("UPDATE payments SET kind = 'screen_out'"))
    for _ in range(2):
        turk.sync()
        assert turk.pay() == []
    assert turk.rewards() == ["AMUTE"]
    assert turk.cost == turk.paid


@on_sqlite
def test_a_consent_page_sent_again_after_erasing_seals_nobody_again(make_turk: MakeTurk) -> None:
    turk = make_turk(listeners=1, trials=1, toml=NO_PRESCREEN)
    turk.launch()
    walker = turk.worker("A1")
    page = walker.page
    walker.agree()
    walker.client.post(f"{walker.address}/withdraw", data={"confirm": "yes"})
    turk.market.return_(walker.accepted.assignment_id)
    turk.wait(5)
    turk.sync()
    with turk.office.writing() as session:
        assert forget_the_erased(session, turk.office.config.pay) == 1
    walker.page = page
    walker.agree()  # the same form once more, from a second tab
    assert turk.site.query("SELECT * FROM vault") == []
    assert turk.site.query("SELECT status FROM submissions") == [("returned",)]
