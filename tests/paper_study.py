"""A study folder as `rootnote study build` leaves it, without music: real triplets and schedule, noises for clips.

study.design.schedule makes the schedule from made-up similarities; the stimuli are short noises. The provenances are
the real ones, so the server and the rehearsal accept the study as built.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa

from embeddings.provenance import Provenance, write_table
from study.config import Study, load_study
from study.design.schedule import make_schedule
from study.trial_plan import schedule_provenance
from study.trials import PlannedTrial, Triplet
from tests.server.small_study import TEST_KEY, write_sounds

SIMILARITIES = {1: 0.94, 2: 0.72, 3: 0.50, 4: 0.0}
CLIPS_PER_PROMPT = 5  # the prompt, then its clip in each bin


def make_triplets(prompts: int, seed: int) -> list[Triplet]:
    """All six triplets of each prompt, with similarities inside the bins."""
    rng = np.random.default_rng(seed)
    triplets = []
    for number in range(prompts):
        prompt = number * CLIPS_PER_PROMPT
        near = {bin_: centre + float(rng.uniform(-0.02, 0.02)) for bin_, centre in SIMILARITIES.items()}
        for high, low in combinations(SIMILARITIES, 2):
            triplets.append(
                Triplet(
                    triplet=len(triplets),
                    embedder="logmel",
                    prompt=prompt,
                    bin_high=high,
                    bin_low=low,
                    clip_high=prompt + high,
                    clip_low=prompt + low,
                    similarity_high=near[high],
                    similarity_low=near[low],
                )
            )
    return triplets


def make_study(
    folder: Path,
    *,
    prompts: int = 15,
    listeners: int = 90,
    trials: int = 10,
    seconds: float = 0.1,
    toml: str = "",
    languages: Sequence[str] = ("en",),
) -> Study:
    """Write the study; clips last `seconds`."""
    (folder / "music").mkdir(parents=True)
    (folder / "study.toml").write_text(
        f'[study]\nname = "Rehearsed study"\ncontact = "lab@example.org"\nlanguages = {list(languages)}\n'
        '[corpus]\naudio = "music"\n'
        f"clip_seconds = {max(seconds, 0.1)}\n"
        f"[design]\nprompts = {prompts}\nlisteners = {listeners}\ntrials = {trials}\n{toml}"
    )
    (folder / "consent.md").write_text("# About this study\n\nYou will compare short sounds.\n")
    study = load_study(folder)
    corpus = Provenance("corpus", {}, {})
    write_table(study.corpus, pa.table({"clip": list(range(prompts * CLIPS_PER_PROMPT))}), corpus)
    triplets = Provenance("triplets", {}, {})
    made = make_triplets(prompts, study.config.study.seed)
    write_table(study.triplets, pa.Table.from_pylist([vars(triplet) for triplet in made]), triplets)
    schedule = schedule_provenance(study.config, triplets.fingerprint)
    planned = make_schedule(made, study.config.design, TEST_KEY.rng("schedule", study.config.study.seed))
    write_table(study.schedule, pa.Table.from_pylist([vars(trial) for trial in planned]), schedule)
    write_sounds(study, dict(_sounds(planned, seconds)))
    return study


def _sounds(planned: list[PlannedTrial], seconds: float) -> Iterator[tuple[str, np.ndarray]]:
    keys = sorted({trial.stimulus_key(role) for trial in planned for role in ("x", "high", "low")})
    time = np.arange(round(seconds * 44100)) / 44100
    for number, key in enumerate(keys):
        rng = np.random.default_rng(number)
        yield key, 0.1 * np.sin(2 * np.pi * (200 + 7 * number) * time) + 0.01 * rng.standard_normal(len(time))
