"""Study texts: the researcher's Markdown files next to study.toml as safe HTML, in each language of the study.

Raw HTML is shown as text and images are left out, so that a page loads nothing from elsewhere. A link opens in a new
tab, which cannot access the page. consent.md is in the study's first language, consent.de.md in German.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from embeddings.errors import RootnoteError
from server.web.i18n import catalogue
from study.config import Study
from study.languages import mark

INSTRUCTIONS = mark(
    "In each comparison you hear three short sounds: **X**, **A** and **B**. Listen to each of them to the end, as "
    "often as you like. Then choose the one that is more like **X**: **A** or **B**. There is no right answer: trust "
    "your ears."
)
DEBRIEF = mark(
    "Thank you for listening. Your answers help to find out whether a computer's idea of similar music agrees with "
    "people's."
)


@dataclass(frozen=True)
class StudyTexts:
    """The texts a listener reads; `consent_version` is the SHA-256 of consent.md as it was read."""

    consent: Markup
    consent_version: str
    consent_source: str
    instructions: Markup
    debrief: Markup


def read_study_texts(study: Study) -> dict[str, StudyTexts]:
    """Read and render consent.md, and instructions.md and debrief.md if they exist, in the study's languages.

    Raises:
        RootnoteError: if consent.md is missing or empty, a text exists in one language but not in another, or a
            file is not UTF-8.
    """
    consent = _read(study, "consent", None)
    instructions, debrief = _read(study, "instructions", INSTRUCTIONS), _read(study, "debrief", DEBRIEF)
    return {
        language: StudyTexts(
            consent=render_text(consent[language]),
            consent_version=hashlib.sha256(consent[language].encode()).hexdigest(),
            consent_source=consent[language],
            instructions=render_text(instructions[language]),
            debrief=render_text(debrief[language]),
        )
        for language in study.config.study.languages
    }


def _read(study: Study, name: str, default: str | None) -> dict[str, str]:
    """A text in each of the study's languages; `default` if there is no such file."""
    files = {language: study.text(name, language) for language in study.config.study.languages}
    texts = {language: _read_file(path) for language, path in files.items()}
    if default is not None and not any(texts.values()):
        return {language: catalogue(language).gettext(default) for language in files}
    for language, text in texts.items():
        if not text:
            what = "the information for listeners" if name == "consent" else f"the {name}"
            hint = " (`rootnote study init` makes a template)" if files[language].stem == "consent" else ""
            raise RootnoteError(f"{files[language]} is missing or empty; write {what} there{hint}.")
    return texts


def _read_file(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise RootnoteError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    return text if text.strip() else ""


def render_text(text: str) -> Markup:
    """Markdown as safe HTML."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    markdown.add_render_rule("link_open", _open_link)
    return Markup(markdown.render(text))  # raw HTML is off, so all markup is the renderer's


def _open_link(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, environment: EnvType
) -> str:
    # Following a link must not lose the page, which may be in a marketplace's frame.
    tokens[index].attrs |= {"target": "_blank", "rel": "noopener noreferrer"}
    return renderer.renderToken(tokens, index, options, environment)
