"""The language of a page: one of those that study.toml offers.

Before consent it is the one that the link asks for (?lang=de), else the one that the browser prefers, else the
study's first; after consent it is the one in the listener's row. No cookie is used. The desk is in English.
Texts are written in English and looked up in server/locale/<language>/LC_MESSAGES/rootnote.mo; a text that is not
found there, such as a researcher's own question, is shown as it is.
"""

from __future__ import annotations

import functools
import gettext as catalogues
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, current_app, g, request

from study.languages import LANGUAGES, SOURCE, mark
from study.questions.base import BaseQuestion

FOLDER = Path(__file__).parents[1] / "locale"
DOMAIN = "rootnote"
OFFERED = "LANGUAGES_OFFERED"
CURRENCY_WORDS = {
    "USD": mark("%(amount)s US dollars"),
    "GBP": mark("%(amount)s British pounds"),
    "EUR": mark("%(amount)s euros"),
}


@dataclass(frozen=True)
class ListenerTexts:
    """A question as a listener reads it; `options` maps what is stored to what is shown."""

    text: str
    options: Mapping[str, str]
    unit: str


def install(app: Flask, offered: Sequence[str]) -> None:
    """Give an application's templates the languages that a study offers."""
    app.config[OFFERED] = tuple(offered)
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]
    app.jinja_env.globals.update(language=present, direction=direction, money=money, wording=wording)
    app.jinja_env.globals.update(languages={code: LANGUAGES[code].name for code in offered})


def present() -> str:
    """The language of the page that is being rendered."""
    if request.path == "/desk" or request.path.startswith("/desk/"):
        return SOURCE
    if "language" not in g:
        use(request.args.get("lang"))
    return str(g.language)


def use(requested: str | None) -> None:
    """Render the page in the language requested or, if the study does not offer it, in the browser's."""
    offered = current_app.config[OFFERED]
    g.language = requested if requested in offered else _preferred(offered)


def _preferred(offered: Sequence[str]) -> str:
    """The first language that the browser requests (Austrian German counts as German), else the study's first."""
    accepted = [tag.lower() for tag, quality in request.accept_languages if quality > 0]
    matching = (code for tag in accepted for code in offered if code in (tag, tag.partition("-")[0]))
    return next(matching, offered[0])


def direction() -> str:
    return LANGUAGES[present()].direction


def money(amount: float) -> str:
    """An amount of money with the name of its currency: a sign alone may stand for several."""
    words = CURRENCY_WORDS[str(current_app.jinja_env.globals["currency"])]
    return gettext(words) % {"amount": f"{amount:.2f}".replace(".", LANGUAGES[present()].decimal)}


@functools.cache
def catalogue(language: str) -> catalogues.NullTranslations:
    """The translations into a language; English needs none, and what a catalogue lacks appears in English."""
    if language == SOURCE:
        return catalogues.NullTranslations()
    return catalogues.translation(DOMAIN, LANGUAGES[language].locale or FOLDER, [language], fallback=True)


def gettext(text: str) -> str:
    """A text in the language of the page."""
    return catalogue(present()).gettext(text) if text else ""


def ngettext(one: str, many: str, number: int) -> str:
    """A text in the language of the page, in the plural form for `number`."""
    return catalogue(present()).ngettext(one, many, number)


def wording(question: BaseQuestion) -> ListenerTexts:
    """A question's texts in the language of the page."""
    translation, unit = question.translations.get(present()), question.shown_unit
    if translation is None:
        return ListenerTexts(gettext(question.text), {one: gettext(one) for one in question.offered}, unit)
    options = dict(zip(question.offered, translation.options, strict=True))
    return ListenerTexts(translation.text, options, translation.unit or unit)
