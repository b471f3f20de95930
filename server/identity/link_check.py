"""Ids in links: what is wrong with one, and one spelling for each person where an id is free text.

A survey tool or a panel fills a person's id into the link. If it does not, everybody arrives under the same name, and
the second of them would be turned away as a repeat.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence

from study.languages import mark

PLACEHOLDER = mark(
    "This link was not filled in: a placeholder is where your ID belongs. Please tell the people who run this study."
)
MISSING = mark("This link was not filled in: your ID is missing in it. Please tell the people who run this study.")
REPEATED = mark("This link is damaged: it has the same ID field twice. Please tell the people who run this study.")
OTHER_CASE = mark(
    "This link is damaged: the name of an ID field has the wrong capital letters. Please tell the people who run this "
    "study."
)
UNREADABLE = mark("This link is damaged: your ID has no letters or digits. Please tell the people who run this study.")

# {{%PROLIFIC_PID%}}, ${e://Field/id}, %SURVEY_CODE%, [worker], <id>, {id}, #{id}, $id, @@id@@
_PLACEHOLDERS = re.compile(r".*\{\{.*|.*[$#]\{.*|%+[^%]+%+|\[.*\]|<.*>|\{.*\}|\$\w+\$?|@@.*@@|\[%.*", re.DOTALL)
_NULL_WORDS = frozenset({"undefined", "null", "none", "nan", "nil", "(null)", "<null>", "[object object]"})


def find_link_problem(given: Mapping[str, Sequence[str]], names: Collection[str]) -> str:
    """What is wrong with the ids of a link, as a sentence for the person who followed it; "" if nothing is.

    Args:
        given: every parameter of the link with all of its values.
        names: the parameters that hold ids.
    """
    by_fold = {name.casefold(): name for name in names}
    for name, values in given.items():
        known = by_fold.get(name.casefold())
        if known is None:
            continue
        if name != known:
            return OTHER_CASE
        if len(values) > 1:
            return REPEATED
        if problem := _value_problem(values[0], known):
            return problem
    return ""


def _value_problem(value: str, name: str) -> str:
    text = value.strip()
    if not text:
        return MISSING
    if text.casefold() in _NULL_WORDS or text.casefold() == name.casefold() or _PLACEHOLDERS.fullmatch(text):
        return PLACEHOLDER
    return "" if normalise_id(text) else UNREADABLE


def normalise_id(text: str) -> str:
    """One spelling of an id that is free text: NFKC, case-folded, without control and invisible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = "".join(letter for letter in folded if letter.isspace() or unicodedata.category(letter)[0] != "C")
    return " ".join(visible.split())
