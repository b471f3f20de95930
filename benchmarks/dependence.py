"""Do intervals cover the truth when answers share listeners and prompts? Simulated studies with known truth.

A study has the paper's schedule (15 prompts, 90 listeners × 10 trials, 150 answers per bin pair) or the robust one
(150 prompts, 150 listeners × 6). logit P(agreed) = effect of the bin pair + listener + prompt; the latter two are
normal
with standard deviations from 0 to 1. The truth is the rate averaged over both. One set of studies has effects 3, 2, 1,
0.5, 0 and 0; the other has none and gives the false positives of rows and of all trials.

    python benchmarks/dependence.py --studies 1000
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit
from scipy.stats import t as student

from analysis.statistics.agreement import exact_binomial
from analysis.statistics.glmm import fit_mixed, marginal_rate
from analysis.statistics.two_way import dependence_table, two_way_bootstrap
from study.design.bin_pairs import BIN_PAIRS
from study.design.schedule import assign_paper, assign_robust

SDS = (0.0, 0.25, 0.5, 0.75, 1.0)
EFFECTS = np.array([3.0, 2.0, 1.0, 0.5, 0.0, 0.0])
HIGH, LOW = (np.array([pair[i] for pair in BIN_PAIRS]) for i in (0, 1))
Found = dict[tuple[str, str, str], list[bool]]


def simulate(
    cells: npt.NDArray[np.int64], effects: npt.NDArray[np.float64], sds: tuple[float, float], rng: np.random.Generator
) -> pd.DataFrame:
    """Responses of one study; `cells` is (listeners, trials, 2) of prompt and pair numbers."""
    listener = np.repeat(np.arange(len(cells)), cells.shape[1])
    prompt, pair = cells.reshape(-1, 2).T
    eta = effects[pair] + rng.normal(0, 1, len(cells))[listener] * sds[0]
    eta = eta + rng.normal(0, 1, int(prompt.max()) + 1)[prompt] * sds[1]
    agreed = (rng.random(len(eta)) < expit(eta)).astype(int)
    columns = {"listener": listener, "prompt": prompt, "bin_high": HIGH[pair], "bin_low": LOW[pair]}
    return pd.DataFrame({"embedder": "simulated", **columns, "agreed": agreed})


def truths(frame: pd.DataFrame, effects: npt.NDArray[np.float64], sds: tuple[float, float]) -> dict[str, float]:
    """The true rate of every bin pair, every row and all trials."""
    spread = float(np.hypot(*sds))
    rates = {f"{h}–{w}": marginal_rate(float(e), spread) for (h, w), e in zip(BIN_PAIRS, effects, strict=True)}
    sizes = frame.groupby(["bin_high", "bin_low"]).size()
    weights = {f"{h}–{w}": int(sizes[h, w]) for h, w in BIN_PAIRS}
    for row in (1, 2, 3):
        own = [name for name in rates if name.startswith(str(row)) and "–" in name]
        rates[f"{row}, total"] = sum(rates[n] * weights[n] for n in own) / sum(weights[n] for n in own)
    pairs = list(weights)
    return rates | {"all": sum(rates[n] * weights[n] for n in pairs) / sum(weights.values())}


def judge(frame: pd.DataFrame, truth: dict[str, float], checks: bool) -> Iterator[tuple[str, str, bool, bool | None]]:
    """(method, what, whether it covers, whether chance is rejected where chance is the truth)."""

    def result(method: str, label: str, low: float, high: float, p_small: bool) -> tuple[str, str, bool, bool | None]:
        what = "bin pair" if "–" in label else "row" if "total" in label else "all"
        null = abs(truth[label] - 0.5) < 1e-9
        return method, what, low <= truth[label] <= high, p_small if null else None

    for cell in dependence_table(frame)["simulated"]:
        yield result("two-way", cell.label, cell.ci_low, cell.ci_high, cell.p < 0.05)
        pooled = exact_binomial(cell.agreed, cell.n)
        yield result("pooled", cell.label, pooled.ci_low, pooled.ci_high, pooled.p < 0.05)
    model = fit_mixed(frame, checks=checks)
    for label, pair in model.pairs.items():
        yield result("mixed, Laplace", label, pair.ci_low, pair.ci_high, not pair.ci_low <= 0.5 <= pair.ci_high)
    if not checks:
        return
    for name, (low, high) in two_way_bootstrap(frame, 1000).items():
        yield result(f"bootstrap, {name}", "all", low, high, not low <= 0.5 <= high)
    spread = float(np.hypot(model.variational.sd_listener or 0, model.variational.sd_prompt or 0))
    for name, check, width, quantile in (
        ("mixed, variational", model.variational, spread, 1.96),
        ("GEE by listeners", model.gee, 0.0, float(student.ppf(0.975, 89))),
    ):
        for label, (effect, error) in check.effects.items():
            low, high = (marginal_rate(effect + side * quantile * error, width) for side in (-1, 1))
            yield result(name, label, low, high, not low <= 0.5 <= high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--checked", type=int, default=50, help="studies in which the slow methods run as well")
    parser.add_argument("--design", choices=("paper", "robust"), default="paper")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    assign = (assign_paper, 15, 90, 10) if given.design == "paper" else (assign_robust, 150, 150, 6)
    schedules = [np.array(assign[0](*assign[1:], rng)) for _ in range(25)]
    covered: dict[tuple[str, ...], list[bool]] = defaultdict(list)
    rejected: dict[tuple[str, ...], list[bool]] = defaultdict(list)
    began = time.monotonic()
    grid = [(one, two) for one in SDS for two in SDS]
    for number in range(given.studies):
        sds = grid[number % len(grid)]
        for effects in (EFFECTS, 0 * EFFECTS):
            frame = simulate(schedules[rng.integers(len(schedules))], effects, sds, rng)
            truth = truths(frame, effects, sds)
            for method, what, covers, false in judge(frame, truth, checks=number < given.checked):
                for key in (
                    (method, what),
                    (method, what, f"listener sd {sds[0]:g}"),
                    (method, what, f"prompt sd {sds[1]:g}"),
                ):
                    if effects.any():
                        covered[key].append(covers)
                    if false is not None:
                        rejected[key].append(false)
    print(f"{given.studies} studies with effects and as many without, {given.design}: {time.monotonic() - began:.0f} s")
    print("| method | what | where | coverage | false positives | of |\n|---|---|---|---|---|---|")
    for key in sorted(rejected, key=lambda key: (len(key), key[1], key[0], key[2:])):
        where = key[2] if len(key) > 2 else "all"
        if len(key) > 2 and key[0] not in ("two-way", "pooled"):
            continue
        hits, wrong = covered[key], rejected[key]
        rates = f"{np.mean(hits):.1%} | {np.mean(wrong):.1%}"
        print(f"| {key[0]} | {key[1]} | {where} | {rates} | {len(hits)}, {len(wrong)} |")


if __name__ == "__main__":
    main()
