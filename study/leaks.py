"""Leaks: what the builds of earlier versions reveal to a listener who has the source code and study.toml.

Such a study can be finished as it is, so its leaks are shown by `rootnote server status`, stated in export.json and
printed in the report. A build of this version has none of them.
"""

from __future__ import annotations

from embeddings.errors import RootnoteError
from embeddings.provenance import Provenance, read_json, read_table
from study.config import Study

DRAWN_WITH, KEY = "drawn_with", "secret.key"  # a setting in the provenance of what is drawn from the secret key

LEAKS = {
    "schedule": "sides, order and catch trials follow from study.seed, which study.toml contains",
    "layout": "the layout of the sound files (FLAC) depends on the sound, which hints at the more similar clip",
    "dither": "the dither of each sound contains its row in the corpus and marks copies in catch trials",
}


def is_keyed(provenance: Provenance) -> bool:
    """Whether an artefact was drawn from a secret key."""
    return provenance.settings.get(DRAWN_WITH) == KEY


def leaks_of(schedule: Provenance, stimuli: Provenance) -> tuple[str, ...]:
    """The names of the leaks of a build."""
    of_stimuli = () if is_keyed(stimuli) else ("layout", "dither")
    return (() if is_keyed(schedule) else ("schedule",)) + of_stimuli


def find_leaks(study: Study) -> tuple[str, ...]:
    """The names of the leaks of a study's build; none if it has no build."""
    try:
        _, schedule = read_table(study.schedule, "schedule", "")
        _, stimuli = read_json(study.stimuli_index, "stimuli", "")
    except RootnoteError:
        return ()
    return leaks_of(schedule, stimuli)


def describe_leaks(names: tuple[str, ...]) -> str:
    """The leaks as one clause, for messages: "…; …"."""
    return "; ".join(LEAKS.get(name, name) for name in names)
