"""Plates: the pictures of every screen, by language, with the address and the state of each."""

from __future__ import annotations

from collections.abc import Sequence

from server.error_pages import ERRORS
from server.irb.blocks import Block, BlockTable, Heading, Plate, Section, Text
from server.irb.screen_list import Picture
from server.irb.screenshots import WINDOWS
from study.languages import LANGUAGES


def screens(pictures: Sequence[Picture]) -> Section:
    """Every picture, numbered, and the words of the errors that have no picture."""
    (laptop, _), (phone, _) = WINDOWS["laptop"], WINDOWS["phone"]
    blocks: list[Block] = [
        Text(
            "Every page in every state, pictured from the running study: no drawing, no draft. At the left as on a "
            f"laptop (a window {laptop} pixels wide, its empty margins cut off), at the right as on a telephone "
            f"({phone} pixels). Listening checks and codes are drawn anew for everybody, so yours will have others. "
            "“/a/…” is the participant's own secret address."
        )
    ]
    number = 0
    for language in dict.fromkeys(picture.language for picture in pictures):
        blocks.append(Heading(f"In {LANGUAGES[language].english}"))
        own = [picture for picture in pictures if picture.language == language]
        for screen in dict.fromkeys(picture.screen for picture in own):
            number += 1
            both = [picture for picture in own if picture.screen == screen]
            blocks.append(Plate(number, screen.title, f"Seen {screen.seen}. Address: {screen.route}", both))
    rows = [[str(code), title, text] for code, (title, text) in ERRORS.items()]
    blocks.append(BlockTable("The words of all error pages, in English", ("Code", "Heading", "Text"), rows))
    return Section("What participants see", blocks)
