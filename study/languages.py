"""Languages that listeners can be met in: one line here and a catalogue under server/locale each.

`name` is what speakers of the language call it; `direction` is that of its script; `decimal` stands before tenths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Language:
    """A language as it names itself, and how its script and its numbers go."""

    name: str
    direction: Literal["ltr", "rtl"] = "ltr"
    decimal: str = "."


LANGUAGES: dict[str, Language] = {
    "en": Language("English"),
    "de": Language("Deutsch", decimal=","),
    "ar": Language("العربية", "rtl"),
}
SOURCE = "en"  # what the pages are written in


def mark(text: str) -> str:
    """Mark a text for translation where it stands; it is translated where it is shown."""
    return text
