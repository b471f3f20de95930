"""The published listeners: what is known about each, and the levels at which it can be published.

study.columns says how each column of listeners.csv is published; questions say it by their type. Free texts are never
published. Every other answer, the language, the browser and the sample rate may be known to somebody who knows the
listener (a quasi-identifier), so they are published k-anonymously, and only for listeners who finished. The outcome of
a run and of the listening check are not known to others, so they are published as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from server.db.models import ACTIVE, COMPLETED, AssignmentState
from server.export.responses import guarded
from server.public_release.k_anonymity import QuasiIdentifier
from study.config import StudyConfig
from study.questions.generalise import NOT_ANSWERED, Level


def columns_of(config: StudyConfig, people: Sequence[Mapping[str, str]]) -> list[QuasiIdentifier]:
    """The quasi-identifiers, most important first: questions in the order of study.toml, then the rest."""
    columns = []
    for question in config.questions:
        name = f"q_{question.id}"
        levels = question.levels([person[name] for person in people if person[name]])
        if levels:
            columns.append(QuasiIdentifier(name, question.text, levels))
    if len(config.study.languages) > 1:
        columns.append(QuasiIdentifier("language", "Language of the pages", (Level("unchanged", str),)))
    device = (Level("browser and device size", str), Level("device size", lambda agent: agent.rpartition("-")[2]))
    columns.append(QuasiIdentifier("agent_class", "Family and size of the browser", device))
    columns.append(QuasiIdentifier("sample_rate", "Sample rate of the sound output, in Hz", (Level("unchanged", str),)))
    return columns


def left_out(config: StudyConfig) -> dict[str, str]:
    """The columns of questions that are never published, and the reason for each."""
    return {f"q_{question.id}": question.unpublished for question in config.questions if not question.levels(())}


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
