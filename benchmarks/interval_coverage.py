"""Do Rootnote's intervals cover the truth? Rehearses a built study over HTTP with known rates and many seeds.

For each seed: `server rehearse --true-rates`, `server export --rehearsal`, `analysis report`. The result is the number
of cells (bin pairs × seeds) whose reported 95 % Clopper-Pearson interval covers the true rate. Exact intervals cover at
least 95 % in expectation; over 240 cells, 90 to 99 % is within chance.

    python benchmarks/interval_coverage.py rootnote-demo --seeds 40
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RATES = {"1-2": 0.6, "1-3": 0.75, "1-4": 0.95, "2-3": 0.55, "2-4": 0.85, "3-4": 0.7}


def rootnote(*words: str) -> str:
    command = [sys.executable, "-m", "rootnote", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def rehearse_once(study: Path, seed: int, out: Path) -> dict[str, dict[str, float]]:
    """The report's cells by bin pair."""
    rates = json.dumps(RATES)
    rootnote("server", "rehearse", str(study), "--seed", str(seed), "--true-rates", rates, "--json")
    rootnote("server", "export", str(study), "--rehearsal", "--out", str(out))
    rootnote("analysis", "report", str(out / "responses.csv"), "--study", str(study), "--out", str(out / "report"))
    table = json.loads((out / "report" / "table1.json").read_text(encoding="utf-8"))
    (cells,) = (embedder["pairs"] for embedder in table.values())
    assert isinstance(cells, dict)
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args()
    os.environ.setdefault("ROOTNOTE_SECRET", secrets.token_hex(32))
    cells = covered = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.first, given.first + given.seeds):
            began = time.monotonic()
            for pair, cell in rehearse_once(given.study, seed, Path(folder)).items():
                cells += 1
                covered += cell["ci_low"] <= RATES[pair] <= cell["ci_high"]
            sizes = f"{covered} of {cells} cells cover ({100 * covered / cells:.1f} %)"
            print(f"seed {seed}: {sizes}, {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
