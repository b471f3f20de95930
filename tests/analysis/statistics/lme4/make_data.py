"""Make the data sets of this folder: simulated answers with fixed seeds. make_results.R adds lme4's results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from study.design.bin_pairs import BIN_PAIRS
from study.design.schedule import assign_paper, assign_robust

# name -> (kind, prompts, listeners, trials, standard deviations of listeners, prompts and triplets)
SETS = {
    "triplets": ("paper", 10, 60, 10, (0.8, 0.6, 0.9)),
    "spread": ("paper", 8, 48, 8, (1.5, 1.2, 0.0)),
    "robust": ("robust", 60, 60, 6, (0.6, 0.9, 0.3)),
    "few": ("paper", 6, 36, 6, (0.3, 0.5, 0.5)),
    "one_listener": ("one listener", 80, 1, 0, (0.0, 1.0, 0.0)),
    "one_prompt": ("one prompt", 1, 60, 0, (1.0, 0.0, 0.0)),
}
EFFECTS = np.array([2.2, 1.6, 1.1, 0.6, 0.2, -0.4])


def make(name: str, seed: int) -> pd.DataFrame:
    kind, prompts, listeners, trials, sds = SETS[name]
    rng = np.random.default_rng(seed)
    if kind in ("paper", "robust"):
        cells = (assign_paper if kind == "paper" else assign_robust)(prompts, listeners, trials, rng)
        rows = np.array([(who, *cell) for who, row in enumerate(cells) for cell in row])
    else:
        rows = np.array([(who, what, pair) for who in range(listeners) for what in range(prompts) for pair in range(6)])
    listener, prompt, pair = rows.T
    effects = [sd * rng.standard_normal(500) for sd in sds]
    eta = EFFECTS[pair] + effects[0][listener] + effects[1][prompt] + effects[2][(prompt * 6 + pair) % 500]
    high, low = np.array(BIN_PAIRS)[pair].T
    agreed = (rng.random(len(eta)) < expit(eta)).astype(int)
    columns = {"listener": listener, "prompt": prompt, "bin_high": high, "bin_low": low, "agreed": agreed}
    return pd.DataFrame({"embedder": "m", **columns})


if __name__ == "__main__":
    for number, name in enumerate(SETS):
        make(name, number).to_csv(Path(__file__).parent / f"{name}.csv", index=False)
