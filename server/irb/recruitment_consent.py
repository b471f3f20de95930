"""Recruitment and consent: what people read before they decide to take part."""

from __future__ import annotations

import re

from markupsafe import Markup

from server.irb.blocks import Block, BlockTable, Prose, Section, Text
from server.irb.context import PacketContext
from server.irb.formatting import LANGUAGE_NAMES
from study.consent_check import ELEMENTS, missing_elements
from study.languages import LANGUAGES

POSTS = {
    "mturk": "This is what Mechanical Turk shows in its list of tasks and above the task, word for word. A worker may "
    "look at a preview (the consent text, without a button to begin) before accepting.",
    "prolific": "This is what Prolific shows to those whom its filters let see the study, word for word.",
    "link": "Rootnote posts nothing: the researchers send an address. The invitation's words are theirs, so attach "
    "every e-mail, post and poster to this packet. The first page that the address opens is the consent below.",
}


def recruitment(facts: PacketContext) -> Section:
    """The advertisement as the marketplace shows it."""
    rows = [[what, words] for what, words in facts.advert.shown]
    title = f"As shown by {facts.advert.where}"
    if facts.config.recruiter.kind == "link":
        title = "What participants are sent"
    return Section(
        "Recruitment", [Text(POSTS[facts.config.recruiter.kind]), BlockTable(title, ("Part", "Words"), rows)]
    )


def consent(facts: PacketContext) -> Section:
    """The consent text in each language, with its version's hash."""
    blocks: list[Block] = [
        Text(
            "People consent by pressing a button below the text. The time and the version of the text (its SHA-256) "
            "are stored. If the text changes while a person has the page open, they see the new text before they can "
            "consent. No signature or name is collected."
        )
    ]
    for code, pages in facts.pages.items():
        language = LANGUAGES[code]
        blocks.append(
            Prose(
                f"Consent text in {LANGUAGE_NAMES[code]}",
                _lowered(pages.consent),
                code,
                language.direction,
                f"Version (SHA-256): {pages.consent_version}",
            )
        )
    blocks.append(_elements(facts))
    return Section("Consent", blocks)


def _lowered(markup: Markup) -> Markup:
    """A text with its headings moved below those of the packet."""
    # These texts cannot contain raw HTML, so every tag comes from the Markdown renderer.
    return Markup(re.sub(r"(</?h)([123])>", lambda found: f"{found[1]}{int(found[2]) + 3}>", markup))


def _elements(facts: PacketContext) -> BlockTable:
    """Which required elements of consent were found in each text."""
    unsaid = {code: missing_elements(text) for code, text in facts.texts.items()}
    rows = [[name, *("not found" if name in unsaid[code] else "found" for code in unsaid)] for name in ELEMENTS]
    head = ("Element", *(LANGUAGE_NAMES[code] for code in unsaid))
    return BlockTable("Required elements of consent (45 CFR 46.116), searched by keywords", head, rows)
