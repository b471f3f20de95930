"""Robustness from end to end, as a share of the pace that perturbing alone would allow.

The peer is the same perturbations by the same processes with nothing embedded or looked for, in the same run.

    python benchmarks/robustness.py CORPUS.parquet VECTORS.npy [--targets 100] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from analysis import robustness
from analysis.perturbations import PERTURBATIONS
from analysis.robustness import Plan, run
from analysis.subjects import open_subjects
from embeddings.corpus import cores

NAMES = ("pitch", "stretch", "noise", "mashup", "mp3", "speed", "mix")  # 62 levels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--targets", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    opened = open_subjects(None, given.corpus, [given.vectors])
    chosen = [PERTURBATIONS[name] for name in NAMES]
    plan = Plan(opened.table, opened.corpus, opened.subjects, chosen, given.targets)
    whole, alone = [], []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            run(plan, Path(folder))
            whole.append(time.perf_counter() - begin)
        alone.append(perturb_alone(plan))
    levels = sum(len(one.levels) for one in chosen)
    share = statistics.median(alone) / statistics.median(whole)
    print(f"{given.targets} targets x {levels} levels, {opened.subjects[0].name}, {cores()} cores")
    print(
        f"end to end {statistics.median(whole):.1f} s; perturbing alone {statistics.median(alone):.1f} s: {share:.0%}"
    )


def perturb_alone(plan: Plan) -> float:
    """The seconds that the processes take for the same clips, decoded beforehand, when nobody embeds them."""
    from analysis.targets import pools
    from embeddings.corpus import audio_dir_of

    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        made = pools([one.partner for one in plan.perturbations], plan.table, audio_dir_of(plan.table), plan.targets,
                     plan.seed, Path(folder))  # fmt: skip
        rates = sorted({one.embedder.sample_rate for one in plan.subjects})
        tasks = [
            robustness._Task(one.name, level, made[one.partner], first, plan.seed, rates)
            for one in plan.perturbations
            for level in one.levels
            for first in range(0, len(made[one.partner].rows), robustness._AT_ONCE)
        ]
        with robustness._processes(cores()) as pool:
            for _ in robustness._in_order(pool, tasks, 2 * cores()):
                pass
        return time.perf_counter() - begin


if __name__ == "__main__":
    main()
