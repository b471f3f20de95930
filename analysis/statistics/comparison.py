"""Comparison of embedders: is agreement with one measure greater than with another?

There are two tests per bin pair. Fisher's exact test compares two independent proportions (JRSS 85, 1922), with
Newcombe's hybrid-score interval of the difference (Statistics in Medicine 17, 1998, method 10). If a listener answered
the same triplet for both embedders, McNemar's exact test uses the answers that agree with only one of them
(Psychometrika 12, 1947).
Conventions: a difference is first minus second, in [-1, 1]; two answers are to the same triplet if listener, prompt and
both clips are the same, whatever the bins of the clips; Holm's correction is over the bin pairs of one pair of
embedders. These tests treat answers as independent; the difference with listeners and prompts as random effects is also
given, with the two-way variance of analysis.statistics.two_way (the embedders may share listeners and prompts, or not).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.stats import binomtest, fisher_exact

from analysis.statistics.agreement import Cell, count_responses, exact_binomial, tabulate
from analysis.statistics.multiple_testing import holm
from analysis.statistics.two_way import difference_influence, two_way_variance
from analysis.statistics.two_way_variance import Z
from study.design.bin_pairs import BIN_PAIRS, BINS


@dataclass(frozen=True)
class Paired:
    """Pairs of answers by one listener to the same triplet for both embedders: counts by outcome, and McNemar's p."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float

    @property
    def n(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither


@dataclass(frozen=True)
class Difference:
    """A difference of two rates with listeners and prompts as random effects: its 95 % interval and p."""

    ci_low: float
    ci_high: float
    p: float


@dataclass(frozen=True)
class ContrastRow:
    """One bin pair, row or all trials: two cells, their difference with its 95 % interval, and the tests."""

    label: str
    first: Cell
    second: Cell
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    paired: Paired | None = None
    both_vary: Difference | None = None


@dataclass(frozen=True)
class Contrast:
    """Two embedders, and the rows: six bin pairs, and, descriptive, totals of several pairs and of all trials.

    `pairing` says what the paired test uses; `design` whether both were heard on the same prompts by the same people.
    """

    first: str
    second: str
    rows: tuple[ContrastRow, ...]
    pairing: str
    design: str = ""


def compare_embedders(frame: pd.DataFrame) -> tuple[Contrast, ...]:
    """Every pair of embedders in `frame` (columns embedder, bin_high, bin_low, agreed), alphabetically.

    Paired tests also need listener, prompt, clip_high and clip_low.
    """
    contrasts = compare_counts(count_responses(frame))
    if {"listener", "prompt"} <= set(frame):
        contrasts = tuple(_add_random_effects(contrast, frame) for contrast in contrasts)
    if not {"listener", "prompt", "clip_high", "clip_low"} <= set(frame):
        return contrasts
    return tuple(_add_paired_tests(contrast, frame) for contrast in contrasts)


def compare_counts(counts: pd.DataFrame) -> tuple[Contrast, ...]:
    """The same from counts (columns embedder, bin_high, bin_low, agreed, n), without paired tests."""
    tables = tabulate(counts)
    found = []
    for first, second in combinations(tables, 2):
        one, two = tables[first], tables[second]
        cells = [(f"{high}–{low}", one.pairs[high, low], two.pairs[high, low]) for high, low in BIN_PAIRS]
        # The total of the last row would repeat its only pair.
        cells += [(f"{high}, total", one.totals[high], two.totals[high]) for high in BINS[:-2]]
        cells.append(("all", one.overall, two.overall))
        rows = [_contrast(*cell) for cell in cells]
        found.append(
            Contrast(first, second, tuple(_correct(rows)), "The file does not say which clips each listener heard.")
        )
    return tuple(found)


def _contrast(label: str, first: Cell, second: Cell) -> ContrastRow:
    if not (first.n and second.n):
        return ContrastRow(label, first, second)
    low, high = newcombe(first.agreed, first.n, second.agreed, second.n)
    difference = first.agreed / first.n - second.agreed / second.n
    p = two_sample_exact(first.agreed, first.n, second.agreed, second.n)
    return ContrastRow(label, first, second, difference, low, high, p)


def _correct(rows: Sequence[ContrastRow]) -> list[ContrastRow]:
    tested = [i for i, row in enumerate(rows) if row.p is not None and "–" in row.label]
    corrected = dict(zip(tested, holm([float(rows[i].p or 0.0) for i in tested]), strict=True))
    return [replace(row, p_holm=corrected.get(i)) for i, row in enumerate(rows)]


def two_sample_exact(agreed: int, n: int, other_agreed: int, other_n: int) -> float:
    """Fisher's exact two-sided p that two independent proportions are equal."""
    table = np.array([[agreed, n - agreed], [other_agreed, other_n - other_agreed]])
    return float(fisher_exact(table).pvalue)


def newcombe(agreed: int, n: int, other_agreed: int, other_n: int) -> tuple[float, float]:
    """Newcombe's 95 % interval of the difference of two proportions, from Wilson's interval of each (method 10)."""
    one, two = exact_binomial(agreed, n), exact_binomial(other_agreed, other_n)
    difference = one.rate - two.rate
    below = np.hypot(one.rate - one.wilson_low, two.wilson_high - two.rate)
    above = np.hypot(one.wilson_high - one.rate, two.rate - two.wilson_low)
    return float(difference - below), float(difference + above)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided p that differing answers are equally likely on either side; 1 if none differ."""
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def describe_designs(frame: pd.DataFrame, first: str, second: str) -> tuple[str, bool]:
    """Whether the embedders share prompts and listeners, in a sentence, and whether they share most prompts."""
    sets = [
        [set(frame.loc[frame["embedder"] == name, column].unique()) for name in (first, second)]
        for column in ("prompt", "listener")
    ]
    prompts, listeners = (len(one & two) for one, two in sets)
    all_prompts, all_listeners = (len(one | two) for one, two in sets)
    who = "the same listeners" if listeners == all_listeners else "different listeners" if not listeners else (
        f"{listeners:,} of {all_listeners:,} listeners in common"
    )  # fmt: skip
    if prompts == all_prompts:
        return f"Both embedders were heard on the same {prompts:,} prompts, with {who}.", True
    if 2 * prompts >= all_prompts:
        return (
            f"{prompts:,} of {all_prompts:,} prompts were heard for both embedders, with {who}; “both vary” compares "
            "the answers on these prompts only."
        ), True
    shared = "no prompts" if not prompts else f"only {prompts:,} of {all_prompts:,} prompts"
    return (
        f"The designs differ: the embedders share {shared}, with {who}. A difference may come from the prompts and "
        "clips as well as from the measures."
    ), False


def _add_random_effects(contrast: Contrast, frame: pd.DataFrame) -> Contrast:
    some = frame[frame["embedder"].isin([contrast.first, contrast.second])]
    design, shared = describe_designs(some, contrast.first, contrast.second)
    if shared:
        of_both = some.groupby("prompt", observed=True)["embedder"].transform("nunique") == 2
        some = some[of_both]
    y = some["agreed"].to_numpy(float)
    first = (some["embedder"] == contrast.first).to_numpy()
    listener, prompt = (pd.factorize(some[name])[0].astype(np.intp) for name in ("listener", "prompt"))
    high, low = some["bin_high"].to_numpy(), some["bin_low"].to_numpy()
    rows = []
    for row in contrast.rows:
        own = np.ones(len(y), bool) if row.label == "all" else high == int(row.label[0])
        own &= low == int(row.label[2]) if "–" in row.label else True
        rows.append(replace(row, both_vary=two_way_difference(y[own], first[own], listener[own], prompt[own])))
    return replace(contrast, rows=tuple(rows), design=design)


def two_way_difference(
    y: npt.NDArray[np.float64],
    first: npt.NDArray[np.bool_],
    listener: npt.NDArray[np.intp],
    prompt: npt.NDArray[np.intp],
) -> Difference | None:
    """The mean of `y` where `first` is true minus the mean elsewhere, with listeners and prompts as random effects.

    Arrays have shape (n,). The degrees of freedom of Student's t are the number of listeners or prompts, whichever is
    smaller, minus one. None if one side is empty, there is only one listener or prompt, or nothing varies.
    """
    groups = min(len(np.unique(listener)), len(np.unique(prompt))) if len(y) else 0
    if groups < 2 or first.all() or not first.any():
        return None
    one, two = y[first].mean(), y[~first].mean()
    influence = difference_influence(y, first)
    quantile = float(stats.t.ppf(0.975, groups - 1))
    # Never shorter than the interval of independent answers, as for a single rate.
    independent = float((influence**2).sum()) / len(y) ** 2
    error = float(np.sqrt(max(two_way_variance(influence, listener, prompt), independent * (Z / quantile) ** 2)))
    if error == 0:
        return None
    reach = quantile * error
    p = float(2 * stats.t.sf(abs(one - two) / error, groups - 1))
    return Difference(max(-1.0, float(one - two) - reach), min(1.0, float(one - two) + reach), p)


def _add_paired_tests(contrast: Contrast, frame: pd.DataFrame) -> Contrast:
    matched = _match(frame, contrast.first, contrast.second)
    if matched.empty:
        return replace(
            contrast, pairing="No listener answered the same triplet for both embedders, so there is no paired test."
        )
    rows = tuple(replace(row, paired=_pair_up(matched, row.label)) for row in contrast.rows)
    pairing = (
        f"McNemar’s test uses {len(matched):,} pairs of answers by one listener to the same triplet for both embedders."
    )
    return replace(contrast, rows=rows, pairing=pairing)


def _match(frame: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """A row per listener and triplet answered for both embedders, with its bin pair if that is the same for both."""
    some = frame[frame["embedder"].isin([first, second])]
    high, low = some["clip_high"].astype(str).to_numpy(), some["clip_low"].astype(str).to_numpy()
    content = pd.DataFrame(
        {
            "embedder": some["embedder"].astype(str).to_numpy(),
            "listener": some["listener"].astype(str).to_numpy(),
            "prompt": some["prompt"].astype(str).to_numpy(),
            "clip": np.where(high < low, high, low),
            "other": np.where(high < low, low, high),
            "bin_high": some["bin_high"].to_numpy(),
            "bin_low": some["bin_low"].to_numpy(),
            "agreed": some["agreed"].to_numpy(),
        }
    )
    keys = ["listener", "prompt", "clip", "other"]
    known = content[(content["clip"] != "") & (content["other"] != "")].drop_duplicates(["embedder", *keys])
    one, two = (known[known["embedder"] == name].drop(columns="embedder") for name in (first, second))
    return one.merge(two, on=keys, suffixes=("", "_other"))


def _pair_up(matched: pd.DataFrame, label: str) -> Paired | None:
    """Pairs of answers whose triplet is in the same bin pair, or row, for both embedders."""
    rows = matched
    if label != "all":
        rows = rows[(rows["bin_high"] == rows["bin_high_other"]) & (rows["bin_high"] == int(label[0]))]
    if "–" in label:
        rows = rows[(rows["bin_low"] == rows["bin_low_other"]) & (rows["bin_low"] == int(label[2]))]
    if rows.empty:
        return None
    one, two = rows["agreed"].to_numpy() == 1, rows["agreed_other"].to_numpy() == 1
    only_first, only_second = int((one & ~two).sum()), int((~one & two).sum())
    p = mcnemar_exact(only_first, only_second)
    return Paired(int((one & two).sum()), only_first, only_second, int((~one & ~two).sum()), p)


def contrasts_as_data(contrasts: Sequence[Contrast]) -> list[dict[str, Any]]:
    """The comparisons as plain data."""
    return [
        {
            "first": contrast.first,
            "second": contrast.second,
            "pairing": contrast.pairing,
            "design": contrast.design,
            "rows": {row.label.replace("–", "-"): _row_data(row) for row in contrast.rows},
        }
        for contrast in contrasts
    ]


def _row_data(row: ContrastRow) -> dict[str, Any]:
    paired = row.paired
    return {
        "difference": row.difference,
        "ci_low": row.ci_low,
        "ci_high": row.ci_high,
        "p": row.p,
        "p_holm": row.p_holm,
        "both_vary_ci_low": row.both_vary.ci_low if row.both_vary else None,
        "both_vary_ci_high": row.both_vary.ci_high if row.both_vary else None,
        "both_vary_p": row.both_vary.p if row.both_vary else None,
        "paired_n": paired.n if paired else None,
        "paired_only_first": paired.only_first if paired else None,
        "paired_only_second": paired.only_second if paired else None,
        "paired_p": paired.p if paired else None,
    }
