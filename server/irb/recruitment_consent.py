"""Recruitment and consent: what people read before they decide."""

from __future__ import annotations

import re

from markupsafe import Markup

from server.irb.blocks import Block, BlockTable, Prose, Section, Text
from server.irb.context import PacketContext
from server.recruiting.marketplaces.registry import marketplace_class
from study.consent_check import ELEMENTS, missing_elements, words_of
from study.languages import LANGUAGES


def recruitment(facts: PacketContext) -> Section:
    """The advertisement as the recruiter shows it."""
    rows = [[what, words] for what, words in facts.advert.shown]
    marketplace = marketplace_class(facts.config)
    title = marketplace.listing_title or f"As shown by {facts.advert.where}"
    return Section("Recruitment", [Text(marketplace.listing_note), BlockTable(title, ("Part", "Words"), rows)])


def consent(facts: PacketContext) -> Section:
    """The consent text in each language, with its version's hash."""
    blocks: list[Block] = [
        Text(
            "Consent is given by a button below the text; the moment and the version (the SHA-256 of the text) are "
            "kept with each run. Somebody who has the page open while the text changes is shown the new text first. "
            "No signature and no name is asked for."
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
    """A text whose headings stand below the packet's own."""
    # Raw HTML is off in these texts, so every tag is the renderer's.
    return Markup(re.sub(r"(</?h)([123])>", lambda found: f"{found[1]}{int(found[2]) + 3}>", markup))


def _elements(facts: PacketContext) -> BlockTable:
    """Which of the elements that consent needs each text seems to speak of."""
    unsaid = {code: missing_elements(text, code) for code, text in facts.texts.items() if words_of(code)}
    rows = [
        [name, *("not found" if name in unsaid[code] else "found" for code in unsaid)] for name in ELEMENTS.values()
    ]
    head = ("Element", *(LANGUAGES[code].english for code in unsaid))
    return BlockTable("What consent must speak of (45 CFR 46.116), as looked for by its usual words", head, rows)
