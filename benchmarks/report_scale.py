"""Time and memory of a report on a very large number of responses.

Two embedders, 20,000 listeners with 50 trials each, 1,000 prompts, random effects of listeners and prompts, and all
columns that the report uses; `rootnote analysis report` runs in its own process.

    python benchmarks/report_scale.py --responses 1000000
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from study.design.bin_pairs import BIN_PAIRS

PAIRS = np.array(BIN_PAIRS)
TRIALS = 50


def responses(count: int, seed: int = 1) -> pd.DataFrame:
    """One row per answer, sorted by listener."""
    rng = np.random.default_rng(seed)
    listeners, prompts = max(1, count // TRIALS), 1000
    listener = np.repeat(np.arange(listeners), TRIALS)
    # 50 different prompts per listener: a random start, then every 7th.
    prompt = (rng.integers(0, prompts, listeners)[:, None] + 7 * np.arange(TRIALS)).ravel() % prompts
    pair = PAIRS[rng.integers(0, 6, len(listener))]
    centres = np.array([0.0, 0.93, 0.87, 0.80, 0.45])
    high, low = (centres[pair[:, side]] + rng.uniform(-0.02, 0.02, len(listener)) for side in (0, 1))
    eta = 8 * (high - low) + 0.5 * rng.normal(size=listeners)[listener] + 0.5 * rng.normal(size=prompts)[prompt]
    agreed = rng.random(len(listener)) < expit(eta)
    high_is_a = rng.random(len(listener)) < 0.5
    return pd.DataFrame(
        {
            "study": "scale",
            "embedder": np.where(listener % 2, "CLAP", "CLMR"),
            "assignment": listener,
            "listener": listener,
            "trial": np.arange(len(listener)),
            "position": np.tile(np.arange(1, TRIALS + 1), listeners),
            "kind": "scored",
            "prompt": prompt,
            "bin_high": pair[:, 0],
            "bin_low": pair[:, 1],
            "similarity_high": high.round(5),
            "similarity_low": low.round(5),
            "high_side": np.where(high_is_a, "A", "B"),
            "choice": np.where(high_is_a == agreed, "A", "B"),
            "agreed": agreed.astype(int),
            "response_ms": rng.lognormal(9.3, 0.4, len(listener)).astype(int),
            "passed_prescreen": 1,
            "completed": 1,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--responses", type=int, default=1_000_000)
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"responses.{given.format}"
        frame = responses(given.responses)
        frame.to_csv(path, index=False) if given.format == "csv" else frame.to_parquet(path)
        command = [sys.executable, "-m", "rootnote", "analysis", "report", str(path), "--out", f"{folder}/report"]
        began = time.monotonic()
        subprocess.run([*command, "--compare", "paper"], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime
    print(f"{len(frame):,} responses as {given.format}: {seconds:.1f} s ({processor:.1f} s of CPU time), "
          f"{used.ru_maxrss / 1024:,.0f} MiB peak")  # fmt: skip


if __name__ == "__main__":
    main()
