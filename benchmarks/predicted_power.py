"""Does `analysis power` predict what reports find? Predicted power against the share of simulated reports.

Ten scenarios: designs, effects, deviations, lapses, exclusions, one- and two-sided tests. Each is predicted by the
function behind the command; then other studies are simulated with another generator, and each is examined like a
report: as a data frame of responses, one study at a time. A pair agrees if both are within 3 Monte Carlo errors.

    python benchmarks/predicted_power.py --studies 4000

Ten scenarios × 4,000 reports take about 15 minutes on one core.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from analysis.statistics.power import simulate
from analysis.statistics.primary import verdicts
from analysis.statistics.simulated_studies import Assumptions, Layout, layout_of_design, logit_means
from study.config_sections import DesignConfig
from study.design.bin_pairs import BIN_PAIRS
from study.preregistration.planned_test import DEFAULT_TEST, PlannedTest


@dataclass(frozen=True)
class Scenario:
    """A design, what is assumed about listeners, and the primary test."""

    design: str
    assumed: Assumptions
    test: PlannedTest = DEFAULT_TEST


MIXED_RATES = (0.62, 0.7, 0.75, 0.6, 0.65, 0.5)
SCENARIOS = (
    Scenario("paper", Assumptions((0.62,) * 6, 0.5, 0.5, 0.0, 0.0)),
    Scenario("paper", Assumptions((0.62,) * 6, 0.5, 0.5, 0.5, 0.02)),
    Scenario("paper", Assumptions(MIXED_RATES, 1.0, 0.5, 0.3, 0.02)),
    Scenario("paper", Assumptions(MIXED_RATES, 0.5, 1.0, 0.0, 0.02), PlannedTest(alternative="greater")),
    Scenario("paper", Assumptions((0.8, 0.9, 0.95, 0.7, 0.75, 0.6), 0.3, 0.3, 0.3, 0.05, 0.1)),
    Scenario("robust", Assumptions((0.62,) * 6, 0.5, 0.5, 0.5, 0.02)),
    Scenario("robust", Assumptions(MIXED_RATES, 1.0, 1.0, 0.0, 0.02)),
    Scenario("robust", Assumptions((0.6,) * 6, 0.0, 0.0, 0.0, 0.0), PlannedTest(alternative="greater")),
    Scenario("robust", Assumptions((0.6,) * 6, 0.5, 0.5, 0.0, 0.02), PlannedTest("exact_holm")),
    Scenario("paper", Assumptions((0.62,) * 6, 0.5, 0.5, 0.0, 0.0), PlannedTest("exact_holm", "greater")),
)


def responses(layout: Layout, assumed: Assumptions, rng: np.random.Generator) -> pd.DataFrame:
    """The responses of one study that the exclusion rules leave."""
    high, low = np.array(BIN_PAIRS)[layout.pair].T
    eta = logit_means(assumed.rates, assumed.spread)[layout.pair]
    for sd, codes in (
        (assumed.listener_sd, layout.listener), (assumed.prompt_sd, layout.prompt), (assumed.triplet_sd, layout.triplet)
    ):  # fmt: skip
        eta = eta + sd * rng.normal(size=int(codes.max()) + 1)[codes]
    rate = np.where(rng.random(len(eta)) < assumed.lapse, 0.5, expit(eta))
    columns = {"listener": layout.listener, "prompt": layout.prompt, "bin_high": high, "bin_low": low}
    frame = pd.DataFrame({"embedder": "m", **columns, "agreed": (rng.random(len(eta)) < rate).astype(int)})
    stay = np.flatnonzero(rng.random(layout.listeners) >= assumed.excluded)
    return frame[frame["listener"].isin(stay)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=4000, help="simulated reports per scenario")
    parser.add_argument("--simulations", type=int, default=20_000, help="simulated studies of the prediction")
    parser.add_argument("--seed", type=int, default=2)
    given = parser.parse_args()
    began = time.monotonic()
    differences = []
    print("| scenario | predicted | reports | largest difference, in Monte Carlo errors |\n|---|---|---|---|")
    for number, scenario in enumerate(SCENARIOS):
        layout = layout_of_design(DesignConfig(kind=scenario.design), 15 if scenario.design == "paper" else 150, 1)
        predicted = simulate(layout, scenario.assumed, given.seed, given.simulations, test=scenario.test)
        power = np.array([pair.primary for pair in predicted.pairs])
        rng = np.random.default_rng([given.seed, number])
        found = np.zeros(6)
        for _ in range(given.studies):
            report = verdicts(responses(layout, scenario.assumed, rng), scenario.test)["m"]
            found += [pair in report and report[pair].significant for pair in BIN_PAIRS]
        share = found / given.studies
        error = np.sqrt(np.maximum(power * (1 - power), 1e-4) * (1 / given.studies + 1 / given.simulations))
        differences.append(float((share - power).mean()))
        print(f"| {scenario.design}, {scenario.test.primary}, {scenario.test.alternative}, sd "
              f"{scenario.assumed.listener_sd:g}/{scenario.assumed.prompt_sd:g}/{scenario.assumed.triplet_sd:g} | "
              f"{', '.join(f'{100 * one:.1f}' for one in power)} | {', '.join(f'{100 * one:.1f}' for one in share)} | "
              f"{np.abs((share - power) / error).max():.1f} |", flush=True)  # fmt: skip
    print(f"Mean difference {100 * np.mean(differences):+.2f} points; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
