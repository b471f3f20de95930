"""Risks and rights: what may harm a participant and what stands against it; leaving, and what becomes of the data."""

from __future__ import annotations

from server.irb.blocks import BlockTable, Heading, Points, Section, Text
from server.irb.context import PacketContext
from server.irb.formatting import minutes, pay
from study.config import StudyConfig
from study.prescreen.steps import graded_steps


def risks(facts: PacketContext) -> Section:
    """What may go wrong for a participant, and what the software does about it; and the benefits."""
    config = facts.config
    rows = [
        [
            "Sound that is too loud",
            f"All clips have one loudness ({config.stimuli.loudness_lufs:g} LUFS) and no peak above "
            f"{config.stimuli.true_peak_dbtp:g} dBTP; the volume is set by the participant before the first clip.",
        ],
        [
            "Tiredness, annoyance",
            f"{minutes(facts.check.minutes).capitalize()} as planned; breaks are possible at any point, for up to "
            f"{minutes(config.recruiter.reservation_minutes)} without losing the place; the study can be left on "
            "every page.",
        ],
        [
            "That somebody is recognised by their data",
            "Answers are kept under random pseudonyms, without name, network address or full description of the "
            "browser; see “What is stored”. Words typed freely may still say who somebody is.",
        ],
        ["Pressure to take part or to stay", _pressure(config)],
    ]
    if graded_steps(config):
        rows.append(
            [
                "Being told that one did not pass",
                "The page says that this often has to do with the room or the device, and says nothing about hearing.",
            ]
        )
    return Section(
        "Risks and benefits",
        [
            BlockTable("Foreseeable risks, and what is done about each", ("Risk", "What is done"), rows),
            Text(
                "Participants have no direct benefit beyond payment. What the result is good for is said in the "
                "consent text. Whether the risk is minimal is for the board to say."
            ),
        ],
    )


def _pressure(config: StudyConfig) -> str:
    left = pay(config.pay.withdrawn_usd, config)
    return (
        "Leaving asks for no reason and takes two clicks, on every page. Who leaves early is paid "
        f"{left}, which the consent text should say."
    )


def withdrawal(facts: PacketContext) -> Section:
    """How a participant stops, what becomes of the answers, and what a request can still do."""
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
        "Every page between consent and the end has “Leave the study”. It wants no reason, and ends the run.",
        "Participants choose then whether the answers given until there are erased, or kept under the pseudonym, "
        "marked as incomplete" + ("" if "incomplete" not in config.exclusions.rules else ", outside the result") + ".",
        "Closing the window leaves too: the place is given back after "
        f"{minutes(config.recruiter.reservation_minutes)}, and until then the participant can go on where they were.",
        f"Who leaves early is paid {pay(config.pay.withdrawn_usd, config)}. Who cannot use sound at all, or whose "
        f"device cannot play it, may end there by “No sound?” and is paid {pay(config.pay.unheard_usd, config)}.",
    ]


def _afterwards(facts: PacketContext) -> list[str]:
    contact = facts.config.study.contact
    reach = f"Participants can write to {contact}, which every page shows." if contact else "No contact is set yet."
    days = f"{facts.config.privacy.identity_days:g} days after the last payment"
    return [
        "At any time after the end, participants erase everything that they answered by themselves, without writing to "
        "anybody: by the link on the last page, or at /withdraw with the completion code that the last page shows. "
        "Payment does not hang on it.",
        "Erased are choices, times, telemetry, the listening check and the answers to the questions. What stays, under "
        "the pseudonym, is that somebody consented to which text and when, and how the run ended, because payments "
        "must be accounted for. An erasure is written down outside the database, so that a backup that is restored "
        "brings nothing back.",
        reach + " The researchers can then tell everything that is kept (rootnote server disclose) or erase it "
        "(rootnote server erase); both are logged.",
        f"Who participants are is deleted {days}, by itself; their completion code keeps working for erasure.",
        "What was published without anything that points to a person cannot be called back; the page says so.",
    ]
