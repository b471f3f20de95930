"""People: what is known of listeners, and how each answer is told more coarsely.

Free texts are never published. Everything else that a listener said of themselves, their language, browser and sound
output could be known to somebody who knows them (a quasi-identifier), so it goes through `anonymity`; only those who
finished have answered, and of the others it is not said. What became of a run (`state`) and whether the prescreen was
passed is nothing that others know. Times, attempts, numbers of right items and payments are left out.
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
    """What may be told of people, the most wanted first: questions in the order of study.toml, then the rest."""
    columns = []
    for question in config.questions:
        name = f"q_{question.id}"
        levels = question.levels([person[name] for person in people if person[name]])
        if levels:
            columns.append(QuasiIdentifier(name, question.text, levels))
    if len(config.study.languages) > 1:
        columns.append(QuasiIdentifier("language", "Language of the pages that were read", (Level("as it was", str),)))
    device = (Level("browser and size", str), Level("size of the device", lambda agent: agent.rpartition("-")[2]))
    columns.append(QuasiIdentifier("agent_class", "Family and size of the browser", device))
    columns.append(QuasiIdentifier("sample_rate", "Sample rate of the sound output, in Hz", (Level("as it was", str),)))
    return columns


def left_out(config: StudyConfig) -> dict[str, str]:
    """The questions that are never published, and why."""
    return {f"q_{question.id}": question.unpublished for question in config.questions if not question.levels(())}


def known_of(person: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], config: StudyConfig) -> dict[str, str]:
    """The true values of a listener: a row of listeners.csv and their rows of responses.csv."""
    answers = {f"q_{question.id}": _unguarded(str(person[f"q_{question.id}"])) for question in config.questions}
    told = list(rows)
    return answers | {
        "language": str(person["language"]),
        **{name: _usual(row[name] for row in told) for name in ("agent_class", "sample_rate")},
    }


def _unguarded(exported: str) -> str:
    """An answer as it was given; an export keeps spreadsheets from taking one for a formula."""
    return exported[1:] if exported[:1] == "'" and guarded(exported[1:]) == exported else exported


def outcome(state: str) -> str:
    """What became of a run; whether somebody was paid is nobody's business."""
    if AssignmentState(state) in COMPLETED:
        return AssignmentState.FINISHED.value
    return "under_way" if AssignmentState(state) in ACTIVE else state


def _usual(values: Iterable[Any]) -> str:
    counts = Counter(str(value) for value in values if value not in (None, ""))
    return min(counts, key=lambda value: (-counts[value], value)) if counts else NOT_ANSWERED
