"""The same rehearsal without a server: listeners in the order of the places, one after the other.

It uses the listeners' own decisions (`ResponseModel` and their streams of answers), so `rootnote server rehearse
--at-once 1` must give exactly these counts if no listener fails or leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from server.simulation.bots import ResponseModel, answer_stream
from study.config import RehearsalConfig
from study.trial_plan import Plan


def list_order(plan: Plan, study_seed: int) -> list[int]:
    """The TrialLists in the order in which the server hands them out."""
    numbers = sorted(plan.lists)
    turns = np.random.default_rng(study_seed).permutation(len(numbers))
    return [numbers[int(place)] for place in np.argsort(turns)]


def walk_in_process(plan: Plan, study_seed: int, seed: int, rates: Mapping[str, float]) -> dict[str, tuple[int, int]]:
    """Bin pair -> (agreed, n) of all listeners."""
    model = ResponseModel(RehearsalConfig(), rates)
    n: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    for index, number in enumerate(list_order(plan, study_seed)):
        stream = answer_stream(seed, index)
        for trial in plan.lists[number]:
            pair = f"{trial.bin_high}-{trial.bin_low}"
            n[pair] += 1
            agreed[pair] += model.agrees(trial, stream)
    return {pair: (agreed[pair], n[pair]) for pair in sorted(n)}
