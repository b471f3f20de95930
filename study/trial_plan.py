"""The plan of a study: the part of the design that the web server and the rehearsal need, without heavy libraries.

A plan is the schedule (every TrialList with its trials in order) and the rendered stimuli. It can be read only if
schedule, stimuli, the secret key and the current study.toml belong together. Schedules and stimuli of earlier versions
were made without a key; `Plan.leaks` says what they reveal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embeddings.errors import ArtefactError, RootnoteError
from embeddings.provenance import Provenance, digest, read_json, read_table, require_fresh
from study.config import Study, StudyConfig
from study.leaks import DRAWN_WITH, KEY, is_keyed, leaks_of
from study.secret_key import REDRAW, SecretKey, read_key, stimulus_name
from study.trials import ROLES, PlannedTrial, read_trials, trial_lists

BUILD = "rootnote study build"
PUBLISH = "rootnote study publish"


@dataclass(frozen=True)
class Stimulus:
    """A rendered clip: its file (WAV; FLAC in earlier versions) and the SHA-256 (hex) of its bytes."""

    file: Path
    sha256: str


@dataclass(frozen=True)
class Plan:
    """All TrialLists by number, and the stimuli by key.

    Attributes:
        leaks: what a build of an earlier version reveals; names in study.leaks.LEAKS.
        stimulus_bytes: the size of each stimulus, 0 if it is not known.
    """

    schedule_fingerprint: str
    lists: dict[int, list[PlannedTrial]]
    stimuli: dict[str, Stimulus]
    leaks: tuple[str, ...] = ()
    stimulus_bytes: int = 0

    @property
    def bytes_per_listener(self) -> int:
        """The size of all stimuli of one listener, who loads three for each trial."""
        return len(ROLES) * max(len(trials) for trials in self.lists.values()) * self.stimulus_bytes


def read_plan(study: Study) -> Plan:
    """Read the schedule and the stimuli of a study.

    Raises:
        RootnoteError: if a file is missing or damaged, or belongs to another schedule, corpus or study.toml.
    """
    table, schedule = read_table(study.schedule, "schedule", BUILD)
    content, stimuli = read_json(study.stimuli_index, "stimuli", BUILD)
    _require_one_study(study, schedule, stimuli)
    if is_keyed(stimuli):
        require_key_of(content, study, read_key(study.key))
    if study.config.storage.stimuli:
        _, published = read_json(study.published, "published", PUBLISH)
        require_fresh(study.published, published, published_provenance(study.config, content), PUBLISH)
    lists = trial_lists(read_trials(table))
    found = _stimuli(study, content, lists)
    return Plan(schedule.fingerprint, lists, found, leaks_of(schedule, stimuli), _stimulus_bytes(content, found))


def _require_one_study(study: Study, schedule: Provenance, stimuli: Provenance) -> None:
    _, triplets = read_table(study.triplets, "triplets", BUILD)
    _, corpus = read_table(study.corpus, "corpus", BUILD)
    expected = schedule_provenance(study.config, triplets.fingerprint, keyed=is_keyed(schedule))
    require_fresh(study.schedule, schedule, expected, BUILD)
    expected = stimuli_provenance(study.config, schedule.fingerprint, corpus.fingerprint, keyed=is_keyed(stimuli))
    require_fresh(study.stimuli_index, stimuli, expected, BUILD)


def require_key_of(index: dict[str, Any], study: Study, key: SecretKey) -> None:
    """Check that the stimuli of an index (build/stimuli.json) were made with a key.

    Raises:
        ArtefactError: if they were made with another key.
    """
    if any(entry["file"] != stimulus_name(key, clip) for clip, entry in index["clips"].items()):
        raise ArtefactError(
            f"{study.key} is not the key that this study was built with; put that one back, or build again with "
            f"`{REDRAW}`."
        )


def schedule_provenance(config: StudyConfig, triplets: str, *, keyed: bool = True) -> Provenance:
    """The provenance of a schedule made now from the triplets of that fingerprint.

    Its settings include those of the stages before it, so that the server, which has only the schedule, detects a
    study.toml that was changed after the build.

    Args:
        keyed: whether it is drawn from the secret key, not from study.seed as in earlier versions.
    """
    settings = {
        **({DRAWN_WITH: KEY} if keyed else {}),
        **{f"design.{key}": value for key, value in config.design.fingerprinted().items()},
        **{f"bins.{key}": value for key, value in config.bins.fingerprinted().items()},
        **{f"corpus.{key}": getattr(config.corpus, key) for key in ("clip_seconds", "hop_seconds", "silence_dbfs")},
        "embedding.embedders": config.embedding.embedders,
        "study.seed": config.study.seed,
    }
    return Provenance("schedule", settings, {"triplets": triplets})


def stimuli_provenance(config: StudyConfig, schedule: str, corpus: str, *, keyed: bool = True) -> Provenance:
    """The provenance of stimuli rendered now for that schedule from that corpus.

    Args:
        keyed: whether they are WAV with dither from the secret key; earlier versions padded FLAC files to one size.
    """
    made = {"format": "wav", DRAWN_WITH: KEY} if keyed else {"size": "equal"}
    settings = {**config.stimuli.model_dump(), "clip_seconds": config.corpus.clip_seconds, **made}
    return Provenance("stimuli", settings, {"schedule": schedule, "corpus": corpus})


def published_provenance(config: StudyConfig, index: dict[str, Any]) -> Provenance:
    """The provenance of the stimuli of that index (build/stimuli.json) in study.toml's bucket.

    Another key gives other names and bytes with the same settings, so it contains the index's digest.
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


def _stimulus_bytes(content: dict[str, Any], stimuli: dict[str, Stimulus]) -> int:
    """The size of each stimulus; indexes of earlier versions do not state it."""
    if "bytes" in content:
        return int(content["bytes"])
    return next((one.file.stat().st_size for one in stimuli.values() if one.file.is_file()), 0)
