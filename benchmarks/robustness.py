"""Robustness from end to end, compared with perturbing alone.

The baseline is the same perturbations by the same processes without embedding and searching, in the same run. Times are
wall-clock and CPU times (all processes): on a shared machine, compare the CPU times.

    python benchmarks/robustness.py CORPUS.parquet VECTORS.npy [--targets 100] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from analysis.retrieval.corpora import open_corpora
from analysis.retrieval.robustness.registry import PERTURBATIONS
from analysis.retrieval.robustness.run import RobustnessPlan, run
from analysis.retrieval.robustness.workers import AT_ONCE, Task, in_order, processes
from embeddings.threads import cores

NAMES = ("pitch", "stretch", "noise", "mashup", "mp3", "speed", "mix")  # 66 levels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--targets", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    opened = open_corpora(None, given.corpus, [given.vectors])
    chosen = [PERTURBATIONS[name] for name in NAMES]
    plan = RobustnessPlan(opened.table, opened.corpus, opened.subjects, chosen, given.targets)
    whole, alone = [], []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            begin = now()
            run(plan, Path(folder))
            whole.append(since(begin))
        alone.append(perturb_alone(plan))
    levels = sum(len(one.levels) for one in chosen)
    print(f"{given.targets} targets x {levels} levels, {opened.subjects[0].name}, {cores()} cores")
    for index, clock in enumerate(("wall clock", "CPU")):
        own, peer = (statistics.median(one[index] for one in times) for times in (whole, alone))
        print(f"end to end {own:.1f} s {clock}; perturbing alone {peer:.1f} s: {peer / own:.0%}")


def now() -> tuple[float, float]:
    """Wall-clock seconds, and CPU seconds of this process and its finished child processes."""
    used = os.times()
    return used.elapsed, used.user + used.system + used.children_user + used.children_system


def since(begin: tuple[float, float]) -> tuple[float, float]:
    return tuple(later - earlier for later, earlier in zip(now(), begin, strict=True))


def perturb_alone(plan: RobustnessPlan) -> tuple[float, float]:
    """The seconds that the processes take for the same clips, already decoded, without embedding."""
    from analysis.retrieval.targets import pools
    from embeddings.audio.corpus import audio_dir_of

    with tempfile.TemporaryDirectory() as folder:
        begin = now()
        made = pools([one.partner for one in plan.perturbations], plan.table, audio_dir_of(plan.table), plan.targets,
                     plan.seed, Path(folder))  # fmt: skip
        rates = sorted({one.embedder.sample_rate for one in plan.subjects})
        tasks = [
            Task(one.name, level, made[one.partner], first, plan.seed, rates)
            for one in plan.perturbations
            for level in one.levels
            for first in range(0, len(made[one.partner].rows), AT_ONCE)
        ]
        with processes(cores()) as pool:
            for _ in in_order(pool, tasks, 8 * cores()):
                pass
        return since(begin)


if __name__ == "__main__":
    main()
