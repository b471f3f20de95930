"""Risks, benefits, withdrawal and the rights of participants."""

from __future__ import annotations

from server.irb.blocks import BlockTable, Heading, Points, Section, Text
from server.irb.context import PacketContext
from server.irb.formatting import minutes, pay
from study.config import StudyConfig
from study.prescreen.steps import graded_steps


def risks(facts: PacketContext) -> Section:
    """The foreseeable risks with their safeguards, and the benefits."""
    config = facts.config
    rows = [
        [
            "Sound that is too loud",
            f"All clips have the same loudness ({config.stimuli.loudness_lufs:g} LUFS) and no peak above "
            f"{config.stimuli.true_peak_dbtp:g} dBTP. Participants set the volume before the first clip.",
        ],
        [
            "Fatigue or annoyance",
            f"The study takes about {minutes(facts.check.minutes)}. Participants can pause at any point for up to "
            f"{minutes(config.recruiter.reservation_minutes)} without losing their place, and can leave on every page.",
        ],
        [
            "Identification of a participant from the data",
            "Responses are stored under random pseudonyms, without name, IP address or full browser description; see "
            "“Stored data”. Free text can still identify the person who wrote it.",
        ],
        ["Pressure to take part or to continue", _pressure(config)],
    ]
    if graded_steps(config):
        rows.append(
            [
                "Learning that one did not pass the listening check",
                "The page explains that this is often due to the room or the device, and says nothing about hearing.",
            ]
        )
    return Section(
        "Risks and benefits",
        [
            BlockTable("Foreseeable risks and safeguards", ("Risk", "Safeguard"), rows),
            Text(
                "Participants have no direct benefit other than payment. The consent text explains the use of the "
                "results. The board decides whether the risk is minimal."
            ),
        ],
    )


def _pressure(config: StudyConfig) -> str:
    left = pay(config.pay.withdrawn, config)
    return (
        "Participants can leave on every page with two clicks and without giving a reason. Those who leave early are "
        f"paid {left}, which the consent text should say."
    )


def withdrawal(facts: PacketContext) -> Section:
    """How a participant leaves, what happens to the responses, and which requests are possible afterwards."""
    return Section(
        "Withdrawal and participants' rights",
        [
            Heading("During the study"),
            Points(_leaving(facts.config)),
            Heading("Afterwards"),
            Points(_afterwards(facts)),
        ],
    )


def _leaving(config: StudyConfig) -> list[str]:
    return [
        "Every page between consent and the end has the link “Leave the study”. No reason is needed.",
        "Participants then choose whether the answers given so far are erased, or kept under the pseudonym and marked "
        "as incomplete" + ("" if "incomplete" not in config.exclusions.rules else ", excluded from the results") + ".",
        "Participants can also close the window: they can continue where they stopped for "
        f"{minutes(config.recruiter.reservation_minutes)}, and then lose their place.",
        f"Participants who leave early are paid {pay(config.pay.withdrawn, config)}. Those who cannot use sound, "
        "or whose device cannot play it, can end the study with the link “No sound?” and are paid "
        f"{pay(config.pay.unheard, config)}.",
    ]


def _afterwards(facts: PacketContext) -> list[str]:
    contact = facts.config.study.contact
    reach = f"Participants can write to {contact}, shown on every page." if contact else "No contact is set yet."
    number = facts.config.privacy.identity_days
    days = f"{number:g} {'day' if number == 1 else 'days'} after the last payment"
    return [
        "At any time after the end, participants can erase all their answers themselves: with the link on the last "
        "page, or at /withdraw with their completion code. This does not affect payment.",
        "The erasure deletes choices, times, telemetry, the listening check and the answers to the questions. The "
        "following stays under the pseudonym, because payments must be accounted for: the version and time of consent, "
        "and how the run ended. Erasures are also recorded outside the database and repeated when a backup is "
        "restored.",
        reach
        + " On request, the researchers can list all stored data of a person (rootnote server disclose) or erase them "
        "(rootnote server erase). Both are logged.",
        f"Identities are deleted automatically {days}. The completion code can still be used for erasure.",
        "Anonymous data that were already published cannot be withdrawn; the page says so.",
    ]
