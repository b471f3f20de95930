"""The data-flow diagram: who sends what to whom, as SVG from the study's settings.

It can be printed in grey: each box says in words what its colour means. Units are pixels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from server.irb.templating import environment
from study.config import StudyConfig

Kind = Literal["personal", "pseudonymous", "plain"]
FILLS: dict[Kind, str] = {"personal": "#fbeecb", "pseudonymous": "#e3f0ee", "plain": "#ffffff"}
LABELS: dict[Kind, str] = {
    "personal": "identifies persons",
    "pseudonymous": "pseudonyms only",
    "plain": "no personal data",
}
WIDTH, HEIGHT = 900, 500
TITLE = "Flow of participant data"


@dataclass(frozen=True)
class Box:
    """A place with data: its top left corner, size, name and content."""

    x: int
    y: int
    name: str
    lines: tuple[str, ...]
    kind: Kind
    width: int = 214
    height: int = 96

    @property
    def middle(self) -> int:
        return self.x + self.width // 2


@dataclass(frozen=True)
class Arrow:
    """A flow from one point to another, labelled around the point (x, y); `both`: in both directions."""

    start: tuple[int, int]
    end: tuple[int, int]
    x: int
    y: int
    words: tuple[str, ...]
    both: bool = False

    @property
    def label_width(self) -> int:
        """Width of the white rectangle behind the label, so that the line does not cross the words."""
        return round(6.9 * max(map(len, self.words))) + 8

    @property
    def label_height(self) -> int:
        return 17 * len(self.words) + 2


def boxes(config: StudyConfig) -> dict[str, Box]:
    """The places with data in this study, by name."""
    bucket = "a private bucket" if config.storage.stimuli else "a folder of the server"
    holds = ("holds the secret keys;", "stores nothing itself")
    found = {
        "browser": Box(20, 30, "Participant's browser", ("no cookie; an unsent answer", "until it is saved"), "plain"),
        "server": Box(345, 180, "Web server", holds, "plain"),
        "clips": Box(345, 20, "Clips of music", (bucket, "under random names"), "plain"),
        "answers": Box(666, 40, "Database: answers", ("choices, times, questions,", "hashes"), "pseudonymous"),
        "backups": Box(666, 384, "Backups, on the host", ("copies of the database",), "pseudonymous"),
        "researchers": Box(345, 384, "Researchers", ("desk and exports,", "by pseudonym"), "pseudonymous"),
    }
    if config.recruiter.has_arrivals:
        found["backups"] = dataclasses.replace(found["backups"], kind="personal")  # the vault among what they copy
        name = config.recruiter.shown_name
        found["market"] = Box(20, 384, name, ("knows its workers,", "pays them"), "personal")
        found["vault"] = Box(
            666, 180, "Database: vault", ("worker ids, encrypted;", "the key is elsewhere"), "personal"
        )
    return found


def arrows(config: StudyConfig) -> list[Arrow]:
    """The flows of this study."""
    found = [
        Arrow((234, 96), (345, 205), 262, 158, ("pages ⇄ answers, times,", "kind of browser"), both=True),
        Arrow((559, 205), (666, 110), 606, 142, ("answers,", "by pseudonym"), both=True),
        Arrow((452, 276), (452, 384), 452, 322, ("progress, exports",)),
    ]
    if config.storage.stimuli and config.storage.delivery == "redirect":
        found.append(Arrow((345, 60), (234, 60), 290, 44, ("clips",)))
    else:
        found.append(Arrow((452, 116), (452, 180), 452, 150, ("clips",)))
    if not config.recruiter.has_arrivals:
        found.append(Arrow((127, 126), (345, 430), 190, 290, ("completion code,", "by the participant")))
        found.append(Arrow((773, 136), (773, 384), 773, 330, ("copies",)))
        return found
    return [
        *found,
        Arrow((127, 384), (127, 126), 110, 290, ("worker's id,", "in the address")),
        Arrow((559, 240), (666, 232), 612, 262, ("worker's id,", "encrypted")),
        Arrow((345, 262), (234, 400), 268, 352, ("whom to pay",)),
        Arrow((773, 276), (773, 384), 773, 330, ("copies, ids", "still encrypted")),
    ]


def in_words(config: StudyConfig) -> list[str]:
    """The diagram in sentences, for people who cannot see it."""
    market = config.recruiter.shown_name if config.recruiter.has_arrivals else ""
    straight = config.storage.stimuli and config.storage.delivery == "redirect"
    sentences = [
        "The participant's browser loads pages from the web server and sends answers, times and the kind of browser.",
        "The browser loads the clips from a private bucket, under random names and from addresses that soon expire."
        if straight
        else "The web server sends the clips under random names.",
        "The web server stores answers and times in the database under a random pseudonym.",
        "Researchers see progress at the desk and export data, both by pseudonym.",
        "Backups are copies of the database on the host.",
    ]
    if market:
        sentences += [
            f"{market} sends the participant to the study, with the worker's id in the address.",
            "The web server stores that id in the vault, encrypted with a key that is not in the database.",
        ]
        sentences.append(
            f"The participant returns to {market} with a completion code, by which the researchers or {market} pay."
            if config.recruiter.kind == "link"
            else f"To pay, the researchers' commands open the vault and send {market} the ids of the workers to pay."
        )
        if getattr(config.recruiter.settings, "callback_url", ""):
            sentences.append(
                f"Once for each participant who finished, a command opens the vault and calls {market}'s server with "
                "the ids that it sent."
            )
    else:
        sentences.append("The participant sends the completion code to the researchers, who pay manually.")
    return sentences


def draw(config: StudyConfig) -> Markup:
    """The diagram as SVG."""
    svg = (
        environment()
        .get_template("data_flow.svg")
        .render(
            width=WIDTH,
            height=HEIGHT,
            title=TITLE,
            description=" ".join(in_words(config)),
            boxes=boxes(config).values(),
            arrows=arrows(config),
            fills=FILLS,
            labels=LABELS,
        )
    )
    return Markup(svg)
