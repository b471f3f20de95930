"""Recruitment and consent: what people read before they decide to take part."""

from __future__ import annotations

import re

from markupsafe import Markup

from server.irb.blocks import Block, BlockTable, Prose, Section, Text
from server.irb.context import PacketContext
from server.recruiting.marketplaces.registry import marketplace_class
from study.consent_check import ELEMENTS, missing_elements, words_of
from study.languages import LANGUAGES


def recruitment(facts: PacketContext) -> Section:
    """The advertisement as the marketplace shows it."""
    rows = [[what, words] for what, words in facts.advert.shown]
    marketplace = marketplace_class(facts.config)
    title = marketplace.listing_title or f"As shown by {facts.advert.where}"
    return Section("Recruitment", [Text(marketplace.listing_note), BlockTable(title, ("Part", "Words"), rows)])


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
                f"Consent text in {LANGUAGES[code].english}",
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
    unsaid = {code: missing_elements(text, code) for code, text in facts.texts.items() if words_of(code)}
    rows = [
        [name, *("not found" if name in unsaid[code] else "found" for code in unsaid)] for name in ELEMENTS.values()
    ]
    head = ("Element", *(LANGUAGES[code].english for code in unsaid))
    return BlockTable("Required elements of consent (45 CFR 46.116), searched by keywords", head, rows)
