"""The section with a picture of every screen, by language, with its state and address."""

from __future__ import annotations

from collections.abc import Sequence

from server.error_pages import ERRORS
from server.irb.blocks import Block, BlockTable, Heading, Plate, Section, Text
from server.irb.screen_list import Picture
from server.irb.screenshots import WINDOWS
from study.languages import LANGUAGES


def screens(pictures: Sequence[Picture]) -> Section:
    """Every picture, numbered, and the texts of error pages without a picture."""
    (laptop, _), (phone, _) = WINDOWS["laptop"], WINDOWS["phone"]
    blocks: list[Block] = [
        Text(
            "Screenshots of every page in every state, taken from the running study: on the left on a laptop (a window "
            f"{laptop} pixels wide, without its empty margins), on the right on a phone ({phone} pixels). Listening "
            "checks and codes are random and differ between participants. “/a/…” is the participant's secret address."
        )
    ]
    number = 0
    for language in dict.fromkeys(picture.language for picture in pictures):
        blocks.append(Heading(f"In {LANGUAGES[language].english}"))
        own = [picture for picture in pictures if picture.language == language]
        for screen in dict.fromkeys(picture.screen for picture in own):
            number += 1
            both = [picture for picture in own if picture.screen == screen]
            blocks.append(Plate(number, screen.title, f"Shown {screen.shown}. Address: {screen.route}", both))
    rows = [[str(code), title, text] for code, (title, text) in ERRORS.items()]
    blocks.append(BlockTable("Texts of all error pages in English", ("Code", "Heading", "Text"), rows))
    return Section("Pages that participants see", blocks)
