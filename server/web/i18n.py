"""The language of a page: one of those that study.toml offers.

At the door it is the one that the link asks for (?lang=de), else the one that the browser likes best, else the
study's first; from consent on it is the one in the listener's row. No cookie says it. The desk speaks English.
Texts are written in English and looked up in server/locale/<language>/LC_MESSAGES/rootnote.mo; what is not found
there, as a researcher's own words, is shown as it is.
"""

from __future__ import annotations

import functools
import gettext as catalogues
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, current_app, g, request

from study.languages import LANGUAGES, SOURCE
from study.questionnaire import BaseQuestion, NumberQuestion

FOLDER = Path(__file__).parents[1] / "locale"
DOMAIN = "rootnote"
OFFERED = "LANGUAGES_OFFERED"


@dataclass(frozen=True)
class ListenerTexts:
    """A question's words as a listener reads them; `options` maps what is kept to what is shown."""

    text: str
    options: Mapping[str, str]
    unit: str


def install(app: Flask, offered: Sequence[str]) -> None:
    """Teach an application's templates the languages that a study offers."""
    app.config[OFFERED] = tuple(offered)
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]
    app.jinja_env.globals.update(language=present, direction=direction, amount=amount, wording=wording)
    app.jinja_env.globals.update(languages={code: LANGUAGES[code].name for code in offered})


def present() -> str:
    """The language of the page that is being made."""
    if request.path == "/desk" or request.path.startswith("/desk/"):
        return SOURCE
    if "language" not in g:
        use(request.args.get("lang"))
    return str(g.language)


def use(asked: str | None) -> None:
    """Make the page in the language asked for, or, where the study does not offer it, in the browser's."""
    offered = current_app.config[OFFERED]
    g.language = asked if asked in offered else _liked_best(offered)


def _liked_best(offered: Sequence[str]) -> str:
    """The first language that the browser asks for, Austria's German counting as German, else the study's first."""
    liked = [tag.lower() for tag, quality in request.accept_languages if quality > 0]
    found = (code for tag in liked for code in offered if code in (tag, tag.partition("-")[0]))
    return next(found, offered[0])


def direction() -> str:
    return LANGUAGES[present()].direction


def amount(money: float) -> str:
    """An amount of money, without its currency."""
    return f"{money:.2f}".replace(".", LANGUAGES[present()].decimal)


@functools.cache
def catalogue(language: str) -> catalogues.NullTranslations:
    """The words of a language; English needs no catalogue.

    Raises:
        FileNotFoundError: where a language of study.languages has none.
    """
    if language == SOURCE:
        return catalogues.NullTranslations()
    return catalogues.translation(DOMAIN, FOLDER, [language])


def gettext(text: str) -> str:
    """A text in the language of the page."""
    return catalogue(present()).gettext(text) if text else ""


def ngettext(one: str, many: str, number: int) -> str:
    return catalogue(present()).ngettext(one, many, number)


def wording(question: BaseQuestion) -> ListenerTexts:
    """A question's words in the language of the page."""
    own = question.translations.get(present())
    unit = question.unit if isinstance(question, NumberQuestion) else ""
    if own is None:
        return ListenerTexts(gettext(question.text), {one: gettext(one) for one in question.offered}, unit)
    return ListenerTexts(own.text, dict(zip(question.offered, own.options, strict=True)), own.unit or unit)
