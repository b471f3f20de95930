"""The published listeners: what is known about each, and the levels at which it can be published.

study.columns says how each column of listeners.csv is published; questions say it by their type. Free texts are never
published. Every other answer, the language, the browser and the sample rate may be known to somebody who knows the
listener (a quasi-identifier), so they are published k-anonymously, and only for listeners who finished. The outcome of
a run and of the listening check are not known to others, so they are published as they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from server.db.models import ACTIVE, COMPLETED, AssignmentState
from server.export.responses import guarded
from server.public_release.k_anonymity import WITHHELD, Level, QuasiIdentifier
from study.config import StudyConfig
from study.questionnaire import (
    NOT_SAID,
    NUMBER,
    AgeBandQuestion,
    BaseQuestion,
    MultipleQuestion,
    NumberQuestion,
    ScaleQuestion,
    TextQuestion,
    band_name,
    split_answer,
)

NOT_ANSWERED = ""
MOST_BANDS = 10  # of a number, at its finest
NUMBER_LEVELS = 5


def columns_of(config: StudyConfig, people: Sequence[Mapping[str, str]]) -> list[QuasiIdentifier]:
    """The quasi-identifiers, most important first: questions in the order of study.toml, then the rest."""
    columns = []
    for question in config.questions:
        name = f"q_{question.id}"
        if not isinstance(question, TextQuestion):
            given = [person[name] for person in people if person[name]]
            columns.append(QuasiIdentifier(name, question.text, levels_of(question, given)))
    if len(config.study.languages) > 1:
        columns.append(QuasiIdentifier("language", "Language of the pages", (Level("unchanged", str),)))
    device = (Level("browser and device size", str), Level("device size", lambda agent: agent.rpartition("-")[2]))
    columns.append(QuasiIdentifier("agent_class", "Family and size of the browser", device))
    columns.append(QuasiIdentifier("sample_rate", "Sample rate of the sound output, in Hz", (Level("unchanged", str),)))
    return columns


def left_out(config: StudyConfig) -> list[str]:
    """The columns of questions that are never published, because the answers are free text."""
    return [f"q_{question.id}" for question in config.questions if isinstance(question, TextQuestion)]


def known_of(person: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], config: StudyConfig) -> dict[str, str]:
    """The true values of a listener: a row of listeners.csv and their rows of responses.csv."""
    answers = {f"q_{question.id}": _unguarded(str(person[f"q_{question.id}"])) for question in config.questions}
    responses = list(rows)
    return answers | {
        "language": str(person["language"]),
        **{name: _most_frequent(row[name] for row in responses) for name in ("agent_class", "sample_rate")},
    }


def _unguarded(exported: str) -> str:
    """An answer as it was given, without the apostrophe that protects spreadsheets."""
    return exported[1:] if exported[:1] == "'" and guarded(exported[1:]) == exported else exported


def outcome(state: str) -> str:
    """The outcome of a run, without whether the listener was paid."""
    if AssignmentState(state) in COMPLETED:
        return AssignmentState.FINISHED.value
    return "under_way" if AssignmentState(state) in ACTIVE else state


def _most_frequent(values: Iterable[Any]) -> str:
    counts = Counter(str(value) for value in values if value not in (None, ""))
    return min(counts, key=lambda value: (-counts[value], value)) if counts else NOT_ANSWERED


# ------------------------------------------------------------------ levels


def levels_of(question: BaseQuestion, given: Sequence[str]) -> tuple[Level, ...]:
    """How a question's answers are told, from fine to coarse; `given` are those that there are.

    An answer that the question does not offer (it was another question once) is withheld: it might be words.
    """
    if isinstance(question, NumberQuestion):
        return tuple(_numbers(width, question.whole) for width in _widths(given, question.whole))
    levels = [Level("as answered", _offered(question, str))]
    if isinstance(question, AgeBandQuestion):
        levels += [_ages(question, together) for together in range(2, len(question.ages))]
    if isinstance(question, ScaleQuestion):
        levels += [_points(question, together) for together in range(2, question.points)]
    if isinstance(question, MultipleQuestion):
        levels.append(Level("how many were chosen", _offered(question, lambda answer: _how_many(question, answer))))
    return tuple(levels)


def _offered(question: BaseQuestion, coarsen: Callable[[str], str]) -> Callable[[str], str]:
    """Coarsen an answer that is offered; one that was not given stays so, any other is withheld."""
    offered = frozenset(question.countable)

    def safe(answer: str) -> str:
        if not answer:
            return NOT_ANSWERED
        return coarsen(answer) if offered.issuperset(split_answer(question, answer)) else WITHHELD

    return safe


def _how_many(question: BaseQuestion, answer: str) -> str:
    number = len(split_answer(question, answer))
    return f"{number} option{'s' * (number > 1)}"


def _ages(question: AgeBandQuestion, together: int) -> Level:
    """Bands of age, so many together."""
    bands = question.bands
    names = {NOT_SAID: NOT_SAID}
    for start in range(0, len(bands), together):
        members = bands[start : start + together]
        names |= {band_name(band): band_name((members[0][0], members[-1][1])) for band in members}
    return Level(f"{together} bands together", _offered(question, names.__getitem__))


def _points(question: ScaleQuestion, together: int) -> Level:
    """Points of a scale, so many together."""

    def coarsen(answer: str) -> str:
        first = (int(answer) - 1) // together * together + 1
        return _from_to(first, min(first + together - 1, question.points))

    return Level(f"{together} points together", _offered(question, coarsen))


def _widths(given: Sequence[str], whole: bool) -> list[Decimal]:
    """Widths of bands, from about ten over what was answered upwards: 1, 2 or 5 times a power of ten."""
    numbers = [number for answer in given if (number := _decimal(answer)) is not None]
    reach = (max(numbers) - min(numbers)) if numbers else Decimal(0)
    exponent = math.floor(math.log10(reach / MOST_BANDS)) if reach else 0
    steps = [Decimal(step).scaleb(power) for power in range(exponent, exponent + 4) for step in (1, 2, 5)]
    wide = [step for step in steps if step * MOST_BANDS >= reach and (step >= 1 or not whole)]
    return wide[:NUMBER_LEVELS]


def _numbers(width: Decimal, whole: bool) -> Level:
    """Numbers in bands that begin at multiples of `width`."""

    def coarsen(answer: str) -> str:
        number = _decimal(answer)
        if number is None:
            return WITHHELD if answer else NOT_ANSWERED
        first = (number / width).to_integral_value("ROUND_FLOOR") * width
        return (
            _from_to(int(first), int(first + width) - 1)
            if whole
            else f"{_plain(first)} to below {_plain(first + width)}"
        )

    return Level(f"bands of {_plain(width)}", coarsen)


def _from_to(first: int, last: int) -> str:
    return f"{first} to {last}" if last > first else str(first)


def _decimal(answer: str) -> Decimal | None:
    return Decimal(answer) if NUMBER.fullmatch(answer) and "," not in answer else None


def _plain(number: Decimal) -> str:
    return f"{number.normalize() + 0:f}"
