"""Compensation: what is paid for which outcome, and what an hour comes to, as planned and as measured."""

from __future__ import annotations

from server.irb.blocks import Block, BlockTable, Section, Text
from server.irb.context import PacketContext
from server.irb.formatting import count, minutes, money, pay
from server.irb.timings import Measured
from server.recruiting.marketplaces.registry import marketplace_class
from study.config import StudyConfig
from study.config_sections import PayConfig
from study.prescreen.steps import graded_steps

OF = {
    "people": "Participants",
    "rehearsal": "Rehearsal (people who tried the study)",
    "simulation": "Rehearsal with simulated listeners",
}


def outcomes(config: StudyConfig) -> list[tuple[str, float]]:
    """What is paid, by how a run ends."""
    paid: PayConfig = config.pay
    checks = [("The listening check was not passed", paid.screened_out_usd)] if graded_steps(config) else []
    return [
        ("Finished", paid.reward_usd),
        *checks,
        ("Sound could not be used or played", paid.unheard_usd),
        ("Left before the end", paid.withdrawn_usd),
        ("Away for so long that the place was lost", paid.expired_usd),
    ]


def compensation(facts: PacketContext) -> Section:
    """Pay by outcome, the planned hour, the measured hour."""
    config, check = facts.config, facts.check
    rows = [[how, pay(usd, config)] for how, usd in outcomes(config)]
    floor = config.pay.floor_usd_per_hour
    blocks: list[Block] = [
        BlockTable("What is paid", ("How a run ends", "Pay"), rows),
        Text(f"{marketplace_class(config).payment_note} Nobody's work is rejected by the software."),
        Text(
            f"Planned: {money(check.reward_usd, config)} for {minutes(check.minutes)}, which is "
            f"{money(check.hourly_usd, config)} an hour, {_beside(check.hourly_usd, floor)} the floor of "
            f"{money(floor, config)} an hour that the study sets itself."
        ),
        *_measured(facts),
        Text(
            f"In all: {money(check.rewards_usd, config)} for {count(check.listeners, 'participant')} who finish, and "
            f"about {money(check.screened_out_usd, config)} for others, before a marketplace's fees."
        ),
    ]
    return Section("Compensation and time", blocks)


def _beside(hourly: float, floor: float) -> str:
    return "at or above" if hourly >= floor else "BELOW"


def _measured(facts: PacketContext) -> list[Block]:
    timed = [one for one in facts.measured if one.source != "simulation"]
    simulated = sum(one.n for one in facts.measured if one.source == "simulation")
    blocks: list[Block] = []
    if timed:
        head = ("Who", "Runs", "Median time", "90th percentile", "An hour at the median", "10th percentile of wages")
        blocks.append(
            BlockTable("Measured time and what an hour of it pays", head, [_row(one, facts) for one in timed])
        )
    else:
        blocks.append(Text("Time with people: not measured yet."))
    if simulated:
        blocks.append(
            Text(
                f"A rehearsal with {count(simulated, 'simulated listener')} went through every page; programs do not "
                "wait for sounds to end, so it is no measure of time."
            )
        )
    return blocks


def _row(one: Measured, facts: PacketContext) -> list[str]:
    config, floor = facts.config, facts.config.pay.floor_usd_per_hour
    wages = [f"{money(usd, config)} ({_beside(usd, floor)} the floor)" for usd in (one.usd_at_median, one.usd_at_slow)]
    return [OF[one.source], f"{one.n:,}", f"{one.median:.1f} minutes", f"{one.slow:.1f} minutes", *wages]
