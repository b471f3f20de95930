"""Consent: does a text mention everything that people must know before they take part?

The elements are those of 45 CFR 46.116 (b) to (d) that a listening study meets, and the minimum age. An element is
searched for by the words that such texts use for it (consent_words.<code>.toml, next to the templates of the texts).
A text that uses other words is therefore reported wrongly, and one that only uses a word is not reported: this is a
reminder for the author of the text, and decides nothing.
"""

from __future__ import annotations

import functools
import re
import tomllib
from importlib.resources import files

from study.languages import LANGUAGES

# key in consent_words.<code>.toml -> what must be mentioned
ELEMENTS = {
    "research": "that this is research",
    "purpose": "its purpose",
    "procedure": "the procedure",
    "duration": "how long it takes",
    "risks": "risks",
    "benefits": "benefits",
    "alternative": "the alternative",
    "confidentiality": "confidentiality",
    "later_use": "later use of de-identified data",
    "payment": "payment",
    "voluntary": "that it is voluntary",
    "no_penalty": "leaving without penalty",
    "contact": "a contact for questions",
    "review_board": "the review board",
    "age": "the minimum age",
}


@functools.cache
def words_of(language: str) -> dict[str, str] | None:
    """The words for each element in a language, as regular expressions; None if Rootnote has none."""
    folder = LANGUAGES[language].texts or files("study") / "templates"
    file = folder / f"consent_words.{language}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def missing_elements(text: str, language: str) -> list[str]:
    """The elements that a consent text does not mention, in the order of ELEMENTS; none without a word list."""
    words = words_of(language)
    if words is None:
        return []
    return [name for key, name in ELEMENTS.items() if not re.search(words[key], text, re.IGNORECASE)]
