"""Compensation: the pay for each outcome, and the hourly wage as planned and as measured."""

from __future__ import annotations

from embeddings.wording import counted
from server.irb.blocks import Block, BlockTable, Section, Text
from server.irb.context import PacketContext
from server.irb.formatting import minutes, money, pay
from server.irb.timings import Measured
from server.recruiting.marketplaces.registry import marketplace_class
from study.config import StudyConfig
from study.config_sections import PayConfig
from study.prescreen.steps import graded_steps

SOURCES = {
    "people": "Participants",
    "rehearsal": "Rehearsal (people who tried the study)",
    "simulation": "Rehearsal with simulated listeners",
}


def outcomes(config: StudyConfig) -> list[tuple[str, float]]:
    """The pay for each way in which a run can end."""
    paid: PayConfig = config.pay
    checks = [("Listening check not passed", paid.screened_out)] if graded_steps(config) else []
    return [
        ("Finished", paid.reward),
        *checks,
        ("No sound on the device", paid.unheard),
        ("Left before the end", paid.withdrawn),
        ("Away for too long (place expired)", paid.expired),
    ]


def compensation(facts: PacketContext) -> Section:
    """Pay by outcome, the planned hour, the measured hour."""
    config, check = facts.config, facts.check
    rows = [[how, pay(usd, config)] for how, usd in outcomes(config)]
    floor = config.pay.floor_per_hour
    blocks: list[Block] = [
        BlockTable("Pay by outcome", ("Outcome", "Pay"), rows),
        Text(f"{marketplace_class(config).payment_note} The software never rejects anyone's work."),
        Text(
            f"Planned: {money(check.reward_usd, config)} for {minutes(check.minutes)}, which is "
            f"{money(check.hourly_usd, config)} per hour, {_versus_minimum(check.hourly_usd, floor)} the study's own "
            f"minimum of {money(floor, config)} per hour."
        ),
        *_measured(facts),
        Text(
            f"Total: {money(check.rewards_usd, config)} for {counted(check.listeners, 'participant')} who finish, and "
            f"about {money(check.screened_out_usd, config)} for others, before marketplace fees."
        ),
    ]
    return Section("Compensation and time", blocks)


def _versus_minimum(hourly: float, floor: float) -> str:
    return "at or above" if hourly >= floor else "BELOW"


def _measured(facts: PacketContext) -> list[Block]:
    timed = [one for one in facts.measured if one.source != "simulation"]
    simulated = sum(one.n for one in facts.measured if one.source == "simulation")
    blocks: list[Block] = []
    if timed:
        head = ("Source", "Runs", "Median time", "90th percentile", "Median hourly wage", "10th percentile of wages")
        blocks.append(BlockTable("Measured time and hourly wage", head, [_row(one, facts) for one in timed]))
    else:
        blocks.append(Text("The time with people has not been measured yet."))
    if simulated:
        blocks.append(
            Text(
                f"A rehearsal with {counted(simulated, 'simulated listener')} went through every page. Simulated "
                "listeners do not wait for sounds to end, so it does not measure time."
            )
        )
    return blocks


def _row(one: Measured, facts: PacketContext) -> list[str]:
    config, floor = facts.config, facts.config.pay.floor_per_hour
    wages = [
        f"{money(usd, config)} ({_versus_minimum(usd, floor)} the minimum)"
        for usd in (one.usd_at_median, one.usd_at_slow)
    ]
    return [SOURCES[one.source], f"{one.n:,}", f"{one.median:.1f} minutes", f"{one.slow:.1f} minutes", *wages]
