"""The plan of a study: the part of the design that the web server and the rehearsal need, without heavy libraries.

A plan is the schedule (every TrialList with its trials in order) and the rendered stimuli. It can be read only if
schedule, stimuli and the current study.toml belong together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embeddings.errors import RootnoteError
from embeddings.provenance import Provenance, digest, read_json, read_table, require_fresh
from study.config import Study, StudyConfig
from study.trials import ROLES, PlannedTrial, read_trials, trial_lists

BUILD = "rootnote study build"
PUBLISH = "rootnote study publish"


@dataclass(frozen=True)
class Stimulus:
    """A rendered clip: its FLAC file and the SHA-256 (hex) of its bytes."""

    file: Path
    sha256: str


@dataclass(frozen=True)
class Plan:
    """All TrialLists by number, and the stimuli by key."""

    schedule_fingerprint: str
    lists: dict[int, list[PlannedTrial]]
    stimuli: dict[str, Stimulus]


def read_plan(study: Study) -> Plan:
    """Read the schedule and the stimuli of a study.

    Raises:
        RootnoteError: if a file is missing or damaged, or belongs to another schedule, corpus or study.toml.
    """
    table, schedule = read_table(study.schedule, "schedule", BUILD)
    content, stimuli = read_json(study.stimuli_index, "stimuli", BUILD)
    _require_one_study(study, schedule, stimuli)
    if study.config.storage.stimuli:
        _, published = read_json(study.published, "published", PUBLISH)
        require_fresh(study.published, published, published_provenance(study.config, content), PUBLISH)
    lists = trial_lists(read_trials(table))
    return Plan(schedule.fingerprint, lists, _stimuli(study, content, lists))


def _require_one_study(study: Study, schedule: Provenance, stimuli: Provenance) -> None:
    _, triplets = read_table(study.triplets, "triplets", BUILD)
    _, corpus = read_table(study.corpus, "corpus", BUILD)
    require_fresh(study.schedule, schedule, schedule_provenance(study.config, triplets.fingerprint), BUILD)
    expected = stimuli_provenance(study.config, schedule.fingerprint, corpus.fingerprint)
    require_fresh(study.stimuli_index, stimuli, expected, BUILD)


def schedule_provenance(config: StudyConfig, triplets: str) -> Provenance:
    """The provenance of a schedule made now from the triplets of that fingerprint.

    Its settings include those of the stages before it, so that the server, which has only the schedule, detects a
    study.toml that was changed after the build.
    """
    settings = {
        **{f"design.{key}": value for key, value in config.design.fingerprinted().items()},
        **{f"bins.{key}": value for key, value in config.bins.fingerprinted().items()},
        **{f"corpus.{key}": getattr(config.corpus, key) for key in ("clip_seconds", "hop_seconds", "silence_dbfs")},
        "embedding.embedders": config.embedding.embedders,
        "study.seed": config.study.seed,
    }
    return Provenance("schedule", settings, {"triplets": triplets})


def stimuli_provenance(config: StudyConfig, schedule: str, corpus: str) -> Provenance:
    """The provenance of stimuli rendered now for that schedule from that corpus."""
    # "size": files rendered by older versions differ in size, which reveals the bin.
    settings = {**config.stimuli.model_dump(), "clip_seconds": config.corpus.clip_seconds, "size": "equal"}
    return Provenance("stimuli", settings, {"schedule": schedule, "corpus": corpus})


def published_provenance(config: StudyConfig, index: dict[str, Any]) -> Provenance:
    """The provenance of the stimuli of that index (build/stimuli.json) in study.toml's bucket.

    Rendering again gives other names and bytes even with the same settings, so it contains the index's digest.
    """
    return Provenance("published", {"storage.stimuli": config.storage.stimuli}, {"stimuli": digest(index["clips"])})


def _stimuli(study: Study, content: dict[str, Any], lists: dict[int, list[PlannedTrial]]) -> dict[str, Stimulus]:
    """The stimuli by key; each one that a trial needs must exist as a file or be published."""
    stimuli = {key: Stimulus(study.stimuli / entry["file"], entry["sha256"]) for key, entry in content["clips"].items()}
    files = _present(study, stimuli)
    for trials in lists.values():
        for trial in trials:
            for role in ROLES:
                key = trial.stimulus_key(role)
                if key not in stimuli or stimuli[key].file.name not in files:
                    raise RootnoteError(f"{study.stimuli} lacks the stimulus of clip {key}; run `{BUILD}`.")
    return stimuli


def _present(study: Study, stimuli: dict[str, Stimulus]) -> set[str]:
    """The names of the available stimuli; with a bucket, the host needs no local files."""
    if study.config.storage.stimuli:
        return {stimulus.file.name for stimulus in stimuli.values()}
    return {path.name for path in study.stimuli.iterdir()} if study.stimuli.is_dir() else set()
