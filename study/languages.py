"""The languages of the pages: one line here, a catalogue and the texts of a study for each.

The catalogue is server/locale/<code>/LC_MESSAGES/rootnote.po (scripts/translate compiles it; what it does not
translate appears in English). The texts are study/templates/consent.<code>.md, instructions.<code>.md and
debrief.<code>.md; without them `rootnote study init` starts from the English ones. Another package adds a language by
an entry point of the group rootnote.languages, with the folders `locale` and `texts` next to its module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from study.registry import Registry


@dataclass(frozen=True)
class Language:
    """A language, its script and its numbers.

    Attributes:
        name: its name in the language itself.
        english: what the review board reads.
        direction: of the script.
        decimal: the decimal separator.
        folder: where a language of another package has its `locale` and `texts`.
    """

    name: str
    english: str
    direction: Literal["ltr", "rtl"] = "ltr"
    decimal: str = "."
    folder: Path | None = None

    @property
    def locale(self) -> Path | None:
        """The folder of the catalogue; None: with the built-in ones."""
        return self.folder / "locale" if self.folder else None

    @property
    def texts(self) -> Path | None:
        """The folder of the texts that a study starts from; None: with the built-in ones."""
        return self.folder / "texts" if self.folder else None


ENGLISH = Language("English", "English")
GERMAN = Language("Deutsch", "German", decimal=",")
ARABIC = Language("العربية", "Arabic", "rtl")
LANGUAGES: Registry[Language] = Registry(
    "rootnote.languages",
    {"en": f"{__name__}:ENGLISH", "de": f"{__name__}:GERMAN", "ar": f"{__name__}:ARABIC"},
)
SOURCE = "en"  # the language in which the pages are written


def mark(text: str) -> str:
    """Mark a text for translation where it is written; it is translated where it is shown."""
    return text
