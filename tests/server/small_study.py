"""A study folder whose artefacts are written directly: short noises as clips, made-up similarities."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embeddings.provenance import Provenance, read_table, write_json, write_table
from study.config import Study, load_study
from study.design.bin_pairs import BIN_PAIRS
from study.secret_key import SecretKey, stimulus_name, write_key
from study.stimuli.render import encode
from study.trial_plan import schedule_provenance, stimuli_provenance

CLIPS = 24
TEST_KEY = SecretKey(bytes(range(32)))
TOML = """\
[study]
name = "Test study"
contact = "researcher@example.org"
languages = {languages}
[corpus]
audio = "music"
clip_seconds = {seconds}
"""


def make_study(
    folder: Path,
    *,
    listeners: int = 2,
    trials: int = 3,
    toml: str = "",
    catch: bool = False,
    seconds: float = 0.1,
    languages: Sequence[str] = ("en",),
) -> Study:
    """Write a study of `listeners` lists with `trials` trials each (the last one a catch trial if asked)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "music").mkdir(exist_ok=True)
    design = f"[design]\nlisteners = {listeners}\ntrials = {trials}\n"
    (folder / "study.toml").write_text(TOML.format(seconds=seconds, languages=list(languages)) + design + toml)
    (folder / "consent.md").write_text("# About this study\n\nYou will compare **sounds**. <script>alert(1)</script>\n")
    study = load_study(folder)
    write_schedule(study, listeners, trials, catch)
    write_stimuli(study)
    return study


def write_schedule(study: Study, listeners: int, trials: int, catch: bool = False, triplets: str = "first") -> None:
    """Write a schedule; other `triplets` give another fingerprint."""
    rng = np.random.default_rng(1)
    corpus, made = Provenance("corpus"), Provenance("triplets", {"name": triplets})
    write_table(study.corpus, pa.table({"clip": range(CLIPS)}), corpus)
    write_table(study.triplets, pa.table({"triplet": [0]}), made)
    rows = [
        _trial(rng, number, position, catch and position == trials)
        for number in range(listeners)
        for position in range(1, trials + 1)
    ]
    write_table(study.schedule, pa.Table.from_pylist(rows), schedule_provenance(study.config, made.fingerprint))


def _trial(rng: np.random.Generator, number: int, position: int, catch: bool) -> dict[str, Any]:
    prompt, high, low = (int(clip) for clip in rng.choice(CLIPS, 3, replace=False))
    bin_high, bin_low = BIN_PAIRS[int(rng.integers(6))]
    return {
        "embedder": "logmel",
        "list": number,
        "position": position,
        "kind": "catch" if catch else "scored",
        "triplet": -1 if catch else number * 100 + position,
        "prompt": prompt,
        "bin_high": 1 if catch else bin_high,
        "bin_low": 4 if catch else bin_low,
        "clip_high": prompt if catch else high,
        "clip_low": low,
        "similarity_high": 1.0 if catch else 0.9,
        "similarity_low": 0.5,
        "high_side": "AB"[int(rng.integers(2))],
    }


def write_stimuli(study: Study, key: SecretKey = TEST_KEY) -> None:
    """Write stimuli for the schedule as it is now."""
    clips = [str(row) for row in range(CLIPS)] + [f"{row}/catch" for row in range(CLIPS)]
    rng = np.random.default_rng(5)
    sounds = {clip: rng.standard_normal(round(44100 * study.config.corpus.clip_seconds)) for clip in clips}
    write_sounds(study, {clip: 0.1 * sound for clip, sound in sounds.items()}, key)


def write_sounds(study: Study, sounds: Mapping[str, np.ndarray], key: SecretKey = TEST_KEY) -> None:
    """Write these sounds [samples] as the stimuli of a key, with their index."""
    study.stimuli.mkdir(parents=True, exist_ok=True)
    for path in study.stimuli.iterdir():
        path.unlink()
    write_key(study.key, key)
    clips, size = {}, 0
    for clip, sound in sounds.items():
        data = encode(np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16), study.config.stimuli.sample_rate)
        file, size = study.stimuli / stimulus_name(key, clip), len(data)
        file.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        clips[clip] = {"file": file.name, "sha256": digest, "gain_db": 0.0, "loudness": "BS.1770"}
    _, schedule = read_table(study.schedule, "schedule", "")
    _, corpus = read_table(study.corpus, "corpus", "")
    provenance = stimuli_provenance(study.config, schedule.fingerprint, corpus.fingerprint)
    write_json(study.stimuli_index, {"bytes": size, "clips": clips}, provenance)
