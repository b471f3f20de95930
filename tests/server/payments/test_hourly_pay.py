"""Hourly pay: working time, pay per hour, and top-ups to the hourly minimum, once."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.db import database
from server.payments.hourly_pay import PaidWork, hourly_pay, minutes_at_work, paid_work
from server.recruiting import snapshot
from tests.server.commands.test_recruiting import Ask, ask, on_sqlite
from tests.server.recruiting.mturk_study import NO_PRESCREEN, MTurkStudy, make_mturk

__all__ = ["ask", "make_mturk"]
MakeMTurk = Callable[..., MTurkStudy]
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@given(st.lists(st.floats(0, 10_000), min_size=1, max_size=30))
def test_minutes_are_those_between_first_and_last_less_what_of_a_pause_is_above_five(seconds: list[float]) -> None:
    moments = [NOON + timedelta(seconds=second) for second in seconds]
    gaps = np.minimum(np.diff(np.sort([moment.timestamp() for moment in moments])), 300)
    assert minutes_at_work(moments) == pytest.approx(gaps.sum() / 60, abs=1e-6)


@given(st.floats(0.01, 600), st.integers(0, 5000), st.integers(0, 60))
def test_what_is_missing_lifts_to_the_floor_and_not_a_cent_more(minutes: float, cents: int, floor: int) -> None:
    work = PaidWork(1, "someone", minutes, cents)
    short = work.short(floor)
    lifted = PaidWork(1, "someone", minutes, cents + short)
    assert lifted.hourly >= floor - 1e-6
    assert short == 0 or PaidWork(1, "someone", minutes, cents + short - 1).hourly < floor


@pytest.mark.both_databases
def test_wages_and_the_lift(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=3, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    for name, minutes in (("ASLOW", 12), ("AQUICK", 2), ("AAWAY", 90)):
        walker = mturk.worker(name).agree()
        walker.go("instructions").hear_all()
        mturk.wait(min(minutes, 4) if name != "AAWAY" else 50)  # away, but within the hour that a place is held
        walker.answer()
        for _ in range(max(minutes // 4 - 1, 0) if name == "ASLOW" else 0):
            mturk.wait(4)
        walker.finish().hand_in()
    snapshot.record_snapshot(mturk.context)  # runs count once they are listed
    with database.reading(mturk.context.engine) as session:
        found = {round(work.minutes, 6) for work in paid_work(session, mturk.context.config.pay)}
        pay = hourly_pay(session, mturk.context.config.pay)
    assert found == {2.0, 5.0, 4.0 + 5.0}  # of a pause five minutes count at most
    assert pay is not None
    hourly = [1.5 / (minutes / 60) for minutes in (2, 5, 9)]
    assert pay.median == pytest.approx(np.median(hourly))
    assert pay.tenth == pytest.approx(np.quantile(hourly, 0.1))
    assert (pay.n, pay.below, pay.missing) == (3, 1, 75)  # nine minutes at $15 are $2.25


@on_sqlite
def test_one_command_tops_up_everyone_once(make_mturk: MakeMTurk, ask: Ask) -> None:
    mturk = make_mturk(listeners=2, trials=1, toml=NO_PRESCREEN + "[pay]\nfloor_per_hour = 30.0\n")
    assert ask(mturk, "open", "--yes", "--budget", "100")[0] == 0
    for name, minutes in (("ASLOW", 4.5), ("AQUICK", 1)):
        walker = mturk.worker(name).agree()
        walker.go("instructions").hear_all()
        mturk.wait(minutes)
        walker.answer().finish().hand_in()
    assert ask(mturk, "sync", "--no-approve")[0] == 0, "runs count once they are listed"
    found = json.loads(ask(mturk, "status", "--json")[1])["wage"]
    assert found["floor"] == "$30.00"
    assert found["below_the_floor"].startswith("1 person, by $0.75")
    assert "`rootnote server pay --to-floor`" in found["below_the_floor"]
    assert ask(mturk, "sync")[0] == 0
    before = mturk.cost
    shown = ask(mturk, "pay", "--to-floor", "--dry-run")[1]
    assert "4.5 min  $20.00 an hour  $0.75" in shown
    assert mturk.cost == before
    assert "1 person to $30.00 an hour" in ask(mturk, "pay", "--to-floor", "--yes")[1]
    assert mturk.cost - before == 90  # 75 cents and the fifth that the market takes
    assert ask(mturk, "pay", "--to-floor", "--yes") == (
        0,
        "Everyone who finished earned at least the hourly minimum of $30.00.\n",
    )
    assert "below_the_floor" not in json.loads(ask(mturk, "status", "--json")[1])["wage"]
    assert mturk.paid == mturk.cost
    assert "topped up to the hourly minimum" in ask(mturk, "audit")[1]
