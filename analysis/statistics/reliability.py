"""Reliability: agreement of listeners with each other and with themselves.

A triplet is one embedder's prompt, bins and (if given) clips; an answer is the clip chosen.
Inter-listener agreement is Krippendorff's alpha (Computing Krippendorff's Alpha-Reliability, 2011; nominal; triplets
with at least two answers) and Fleiss' kappa (Psychological Bulletin 76, 1971; triplets with the most frequent number of
answers). Both measure agreement beyond what is expected from the mix of answers, so they fall towards 0 if nearly all
listeners choose the same clip, however reliable they are. Read them together with the share of agreeing pairs.
Conventions: rates have Clopper and Pearson's 95 % interval; a part is None if the file lacks the data for it.
Biases: analysis.statistics.response_bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.statistics.agreement import BinomialTest, exact_binomial
from analysis.statistics.response_bias import (
    OrderBias,
    PrescreenEffect,
    ResponseTimes,
    SideBias,
    order_bias,
    prescreen_effect,
    response_times,
    side_bias,
)
from analysis.statistics.two_way import dependence

Floats = npt.NDArray[np.float64]
TRIPLET = ("embedder", "prompt", "bin_high", "bin_low", "clip_high", "clip_low")


@dataclass(frozen=True)
class InterListener:
    """Agreement of listeners on triplets that several answered; alpha and kappa are None if undefined."""

    alpha: float | None
    kappa: float | None
    kappa_triplets: int
    kappa_answers: int
    same_pairs: float
    majority: BinomialTest | None
    triplets: int
    answers: int
    note: str


@dataclass(frozen=True)
class Repeats:
    """Repeated trials: how often the same clip was chosen, and the resulting ceiling (None below one half).

    The ceiling's 95 % interval comes from that of the share of same choices, with listeners and prompts as random.
    """

    same: BinomialTest
    ceiling: float | None
    ceiling_low: float | None = None
    ceiling_high: float | None = None


@dataclass(frozen=True)
class Reliability:
    """All parts; a part is None if the file lacks what it needs."""

    between: InterListener | None
    repeats: Repeats | None
    catches: BinomialTest | None
    side: SideBias | None
    order: OrderBias | None
    times: ResponseTimes | None
    prescreen: PrescreenEffect | None


def reliability(scored: pd.DataFrame, kept: pd.DataFrame, everything: pd.DataFrame) -> Reliability:
    """All parts, from the scored trials that count, these with catch and repeat trials, and all rows of the file.

    Columns: embedder, listener, prompt, bin_high, bin_low, agreed; and, if present, kind, choice, position,
    response_ms, passed_prescreen, clip_high and clip_low.
    """
    return Reliability(
        between=inter_listener(scored),
        repeats=repeat_consistency(kept),
        catches=catch_trials(kept),
        side=side_bias(scored),
        order=order_bias(scored),
        times=response_times(scored),
        prescreen=prescreen_effect(everything),
    )


def inter_listener(frame: pd.DataFrame) -> InterListener | None:
    """Alpha, kappa and the share of agreeing pairs over triplets with two or more answers; None if there are none.

    `majority` is how often an answer equals the majority of the other answers on its triplet (ties are left out): the
    rate that a measure with access to all other answers would reach.
    """
    counts = _answers_by_triplet(frame)
    shared = counts[counts.sum(axis=1) > 1]
    if not len(shared):
        return None
    n = shared.sum(axis=1)
    same = float((shared * (shared - 1)).sum() / (n * (n - 1)).sum())
    sizes, how_many = np.unique(n, return_counts=True)
    common = int(sizes[how_many.argmax()])
    equal = shared[n == common]
    varied = bool((shared.sum(axis=0) > 0).all())
    kappa_varied = bool((equal.sum(axis=0) > 0).all())
    return InterListener(
        alpha=krippendorff_alpha(shared) if varied else None,
        kappa=fleiss(equal) if kappa_varied else None,
        kappa_triplets=len(equal),
        kappa_answers=common,
        same_pairs=same,
        majority=_against_the_others(shared),
        triplets=len(shared),
        answers=int(n.sum()),
        note="" if varied else "All answers are the same, so alpha and kappa are undefined.",
    )


def krippendorff_alpha(counts: npt.NDArray[np.int64]) -> float:
    """Nominal alpha of counts of answers, shape (triplets, kinds of answer)."""
    import krippendorff

    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


def fleiss(counts: npt.NDArray[np.int64]) -> float:
    """Fleiss' kappa of counts of answers, shape (triplets, kinds of answer), rows of equal sum."""
    from statsmodels.stats.inter_rater import fleiss_kappa

    return float(fleiss_kappa(counts))


def _answers_by_triplet(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    keys = [name for name in TRIPLET if name in frame]
    group = frame.groupby(keys, observed=True, sort=False).ngroup().to_numpy()
    agreed = frame["agreed"].to_numpy(float)
    for_high = np.bincount(group, agreed).astype(np.int64)
    return np.column_stack([np.bincount(group) - for_high, for_high])


def _against_the_others(counts: npt.NDArray[np.int64]) -> BinomialTest | None:
    """Each answer against the majority of the others on its triplet."""
    hits = total = 0
    for column in (0, 1):
        own, other = counts[:, column], counts[:, 1 - column]
        decided = own - 1 != other
        total += int(own[decided].sum())
        hits += int(own[decided & (own - 1 > other)].sum())
    return exact_binomial(hits, total) if total else None


def repeat_consistency(kept: pd.DataFrame) -> Repeats | None:
    """Compare each repeat trial with its listener's first answer to the same triplet.

    If a listener chooses a given clip with probability p each time, two answers are the same with probability
    c = p² + (1 - p)²; the ceiling is that p = (1 + sqrt(2 c - 1)) / 2, because no measure can agree more often.
    """
    if "kind" not in kept or not (kept["kind"] == "repeat").any():
        return None
    keys = ["listener", *(name for name in TRIPLET if name in kept)]
    first = kept[kept["kind"] == "scored"].drop_duplicates(keys)
    again = kept[kept["kind"] == "repeat"]
    plain = [part[[*keys, "agreed"]].astype(dict.fromkeys(keys, str)) for part in (again, first)]
    both = plain[0].merge(plain[1], on=keys, suffixes=("", "_first"))
    if both.empty:
        return None
    same = exact_binomial(int((both["agreed"] == both["agreed_first"]).sum()), len(both))
    if same.rate < 0.5:
        return Repeats(same, None)
    repeated = both.assign(agreed=(both["agreed"] == both["agreed_first"]).astype(int))
    ends = dependence(repeated[["listener", "prompt", "agreed"]])
    return Repeats(same, _ceiling(same.rate), _ceiling(ends.ci_low), _ceiling(ends.ci_high))


def _ceiling(same: float) -> float:
    return (1 + math.sqrt(max(2 * same - 1, 0.0))) / 2


def catch_trials(kept: pd.DataFrame) -> BinomialTest | None:
    """How often analysed listeners chose the prompt itself over another clip."""
    if "kind" not in kept or not (kept["kind"] == "catch").any():
        return None
    caught = kept.loc[kept["kind"] == "catch", "agreed"]
    return exact_binomial(int(caught.sum()), len(caught))
