"""Pages: the study's own words (Markdown files beside study.toml) as safe HTML.

Raw HTML in them is shown as text, so a page can load nothing from elsewhere; images are left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup

from embeddings.artefacts import RootnoteError
from study.config import Study

INSTRUCTIONS = """\
In each comparison you hear three short sounds: **X**, **A** and **B**.
Listen to all three to the end, as often as you like, then choose which of **A** and **B** is more similar to **X**.
There is no right answer: go by your own hearing.
"""
DEBRIEF = """\
Thank you for listening. Your answers help to find out whether a computer's idea of similar music agrees with people's.
"""


@dataclass(frozen=True)
class Pages:
    """The texts a listener reads; `consent_version` is the SHA-256 of consent.md as it was read."""

    consent: Markup
    consent_version: str
    instructions: Markup
    debrief: Markup


def read_pages(study: Study) -> Pages:
    """Read and render consent.md, and instructions.md and debrief.md where there are any.

    Raises:
        RootnoteError: where consent.md is missing or empty, or a file is not UTF-8.
    """
    consent = _read(study.folder / "consent.md", None)
    return Pages(
        consent=_render(consent),
        consent_version=hashlib.sha256(consent.encode()).hexdigest(),
        instructions=_render(_read(study.folder / "instructions.md", INSTRUCTIONS)),
        debrief=_render(_read(study.folder / "debrief.md", DEBRIEF)),
    )


def _read(path: Path, default: str | None) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except UnicodeDecodeError:
        raise RootnoteError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    if text.strip():
        return text
    if default is None:
        raise RootnoteError(
            f"{path} is missing or empty; write there what listeners are told before they consent "
            "(`rootnote study init` makes one to begin with)."
        )
    return default


def _render(text: str) -> Markup:
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return Markup(markdown.render(text))  # html is off, so all markup is the renderer's own
