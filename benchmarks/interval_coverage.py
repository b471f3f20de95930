"""Do the report's intervals cover the true rate of a bin pair? Simulated studies of known truth, many at once.

A cell of the grid is a design (the paper's or the robust one), a layout (balanced, or one prompt with two thirds of the
150 answers), a true rate, and standard deviations of listeners, prompts and triplets on the logit scale, 0 to 1. The
truth is the rate averaged over listeners, prompts and triplets. The second table has the family-wise error of the
primary test (two_way_holm): six bin pairs without any effect.

    python benchmarks/interval_coverage.py --studies 2000

648 cells × 2,000 studies take about three minutes on one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from analysis.statistics.multiple_testing import holm_rejections
from analysis.statistics.simulated_studies import logit_means
from analysis.statistics.two_way_variance import lay_out, precision
from study.design.schedule import assign_paper, assign_robust

DESIGNS = ("paper", "robust")
RATES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
DEVIATIONS = tuple(product((0.0, 0.5, 1.0), repeat=3))
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GridCell:
    """One cell: coverage and median width of the 95 % interval."""

    design: str
    balanced: bool
    rate: float
    deviations: tuple[float, float, float]
    coverage: float
    width: float

    def __str__(self) -> str:
        layout = "balanced" if self.balanced else "one prompt has two thirds"
        return (
            f"{self.design}, {layout}, rate {self.rate:g}, sd {'/'.join(f'{sd:g}' for sd in self.deviations)}: "
            f"{100 * self.coverage:.1f} %, width {100 * self.width:.1f}"
        )


def schedule(design: str, seed: int) -> Ints:
    """Listener, prompt and pair of every trial, shape (3, trials)."""
    rng = np.random.default_rng(seed)
    cells = assign_paper(15, 90, 10, rng) if design == "paper" else assign_robust(150, 150, 6, rng)
    return np.array([(listener, *cell) for listener, row in enumerate(cells) for cell in row], np.int64).T


def one_pair(design: str, balanced: bool, seed: int) -> tuple[Ints, Ints]:
    """Listeners and prompts of the answers of one bin pair."""
    listener, prompt, pair = schedule(design, seed)
    listener, prompt = listener[pair == 0], prompt[pair == 0].copy()
    if not balanced:
        many = np.random.default_rng(seed).permutation(len(prompt))[: 2 * len(prompt) // 3]
        prompt[many] = 0
    return listener, prompt


def simulate(
    listener: Ints,
    prompt: Ints,
    rate: float,
    deviations: tuple[float, float, float],
    studies: int,
    rng: np.random.Generator,
    triplet: Ints | None = None,
) -> npt.NDArray[np.float64]:
    """Answers, shape (studies, answers); within one bin pair, a prompt is a triplet."""
    triplet = prompt if triplet is None else triplet
    eta = np.full((studies, len(listener)), logit_means([rate], float(np.linalg.norm(deviations)))[0])
    for sd, codes in zip(deviations, (listener, prompt, triplet), strict=True):
        eta += sd * rng.standard_normal((studies, int(codes.max()) + 1))[:, codes]
    return (rng.random(eta.shape) < expit(eta)).astype(np.float64)


def grid(studies: int, seed: int) -> Iterator[GridCell]:
    rng = np.random.default_rng(seed)
    for design, balanced in product(DESIGNS, (True, False)):
        listener, prompt = one_pair(design, balanced, seed)
        layout = lay_out(listener, prompt)
        for rate, deviations in product(RATES, DEVIATIONS):
            low, high = precision(simulate(listener, prompt, rate, deviations, studies, rng), layout).interval()
            covered = float(np.mean((low <= rate) & (rate <= high)))
            yield GridCell(design, balanced, rate, deviations, covered, float(np.median(high - low)))


def family_wise(studies: int, seed: int) -> Iterator[tuple[str, tuple[float, float, float], float]]:
    """The share of studies without any effect in which the primary test finds one in some bin pair."""
    rng = np.random.default_rng(seed)
    for design, deviations in product(DESIGNS, DEVIATIONS):
        listener, prompt, pair = schedule(design, seed)
        answers = simulate(listener, prompt, 0.5, deviations, studies, rng, prompt * 6 + pair)
        p = np.stack(
            [
                precision(answers[:, pair == k], lay_out(listener[pair == k], prompt[pair == k])).p_value(0.5)
                for k in range(6)
            ],
            axis=1,
        )
        yield design, deviations, float(holm_rejections(p, 0.05).any(axis=1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    cells = list(grid(given.studies, given.seed))
    error = float(np.sqrt(0.95 * 0.05 / given.studies))
    print(f"{len(cells)} cells × {given.studies:,} studies, {time.monotonic() - began:.0f} s; Monte Carlo error of a "
          f"cell {100 * error:.2f} points")  # fmt: skip
    print("| design | layout | mean | least | most (rate ≤ 0.9) | below 93 % − 2 errors | above 98 % + 2 errors, "
          "rate ≤ 0.9 | median width |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for design, balanced in product(DESIGNS, (True, False)):
        own = [cell for cell in cells if (cell.design, cell.balanced) == (design, balanced)]
        usual = [cell.coverage for cell in own if cell.rate <= 0.9]
        coverage = np.array([cell.coverage for cell in own])
        below = int((coverage < 0.93 - 2 * np.sqrt(0.93 * 0.07 / given.studies)).sum())
        above = sum(value > 0.98 + 2 * np.sqrt(0.98 * 0.02 / given.studies) for value in usual)
        print(f"| {design} | {'balanced' if balanced else 'one prompt has two thirds'} | {100 * coverage.mean():.1f} | "
              f"{100 * coverage.min():.1f} | {100 * max(usual):.1f} | {below} | {above} | "
              f"{100 * np.median([cell.width for cell in own]):.1f} |")  # fmt: skip
    print("\nThe lowest:", *sorted(cells, key=lambda cell: cell.coverage)[:8], sep="\n- ")
    wrong = list(family_wise(given.studies, given.seed))
    print("\nFamily-wise false positives of two_way_holm, worst first "
          f"(Monte Carlo error {100 * float(np.sqrt(0.05 * 0.95 / given.studies)):.2f} points):")  # fmt: skip
    for design, deviations, share in sorted(wrong, key=lambda found: -found[2])[:6]:
        print(f"- {design}, sd {'/'.join(f'{sd:g}' for sd in deviations)}: {100 * share:.1f} %")
    print(f"- mean: {100 * np.mean([share for *_, share in wrong]):.1f} %")
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
