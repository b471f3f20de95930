"""Reliability and bias: how far listeners agree with each other and with themselves, and what else moved them.

A triplet is one embedder's prompt, bins and (where given) clips; an answer is which of its two clips was chosen.
Inter-listener agreement is Krippendorff's alpha (Computing Krippendorff's Alpha-Reliability, 2011; nominal; triplets
with two answers at least) and Fleiss' kappa (Psychological Bulletin 76, 1971; triplets with as many answers as most
have). Both measure agreement beyond what the mix of answers would give by itself, so they fall towards 0 where nearly
everyone chooses the same clip, however reliable listeners are: read them beside the share of agreeing pairs.
Conventions: rates come with Clopper and Pearson's 95 % interval; p-values of biases count listeners and prompts as
random (analysis.dependence); times are in seconds; a part is None where the file lacks what it needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from analysis.agreement import BIN_PAIRS, BinomialTest, exact_binomial
from analysis.comparison import two_sample_exact
from analysis.dependence import dependence, two_way_variance

Floats = npt.NDArray[np.float64]
TRIPLET = ("embedder", "prompt", "bin_high", "bin_low", "clip_high", "clip_low")


@dataclass(frozen=True)
class InterListener:
    """Agreement of listeners on the triplets that several heard; alpha and kappa None where they are undefined."""

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
    """Trials heard twice: how often the same clip was chosen, and the ceiling that follows (None below half)."""

    same: BinomialTest
    ceiling: float | None


@dataclass(frozen=True)
class Side:
    """How often side A is chosen where the more similar clip is on either side equally often, and its p of one half.

    `agreed_a` and `agreed_b` are the rates of agreement with the more similar clip on side A and on side B, None where
    the file does not say where it was; then the share is that of all answers.
    """

    n: int
    rate: float
    ci_low: float
    ci_high: float
    p: float
    agreed_a: float | None = None
    agreed_b: float | None = None


@dataclass(frozen=True)
class Order:
    """Agreement by position: the first and second half of the positions, Fisher's p, and the trend's p."""

    first: BinomialTest
    second: BinomialTest
    p: float
    trend_p: float
    positions: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Times:
    """Seconds from the page's showing to the answer: quantiles at 5, 25, 50, 75 and 95 %, medians, a test."""

    quantiles: tuple[float, ...]
    agreed_median: float | None
    other_median: float | None
    p: float | None
    by_pair: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Prescreen:
    """Agreement of those who passed and of those who failed and went on all the same."""

    passed: BinomialTest
    failed: BinomialTest
    p: float


@dataclass(frozen=True)
class Reliability:
    between: InterListener | None
    repeats: Repeats | None
    catches: BinomialTest | None
    side: Side | None
    order: Order | None
    times: Times | None
    prescreen: Prescreen | None


def reliability(scored: pd.DataFrame, kept: pd.DataFrame, everything: pd.DataFrame) -> Reliability:
    """All of it, from the scored trials that count, these with catches and repeats, and all that was read.

    Columns: embedder, listener, prompt, bin_high, bin_low, agreed; and kind, choice, position, response_ms,
    passed_prescreen, clip_high and clip_low where there are any.
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
    """Alpha, kappa and the share of agreeing pairs over triplets that two or more answered; None where there is none.

    `majority` is how often an answer is that of most others on its triplet (ties left out): what a measure that
    knew everyone else's answers would reach.
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
    """Each repeat trial against the first answer of its listener to the same triplet.

    If a listener chooses a given clip with probability p each time, two answers are the same with probability
    c = p² + (1 - p)²; the ceiling is that p, (1 + sqrt(2 c - 1)) / 2: no measure can agree with them more often.
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
    return Repeats(same, (1 + math.sqrt(2 * same.rate - 1)) / 2 if same.rate >= 0.5 else None)


def catch_trials(kept: pd.DataFrame) -> BinomialTest | None:
    """How often those who count chose the prompt itself over another clip."""
    if "kind" not in kept or not (kept["kind"] == "catch").any():
        return None
    caught = kept.loc[kept["kind"] == "catch", "agreed"]
    return exact_binomial(int(caught.sum()), len(caught))


def side_bias(frame: pd.DataFrame) -> Side | None:
    """The share of side A, tested against one half with listeners and prompts as random.

    Where sides are not quite balanced, agreement alone would look like a preference for the side that held the more
    similar clip more often. So the share is the mean of those with that clip on side A and on side B; half the
    difference of agreement between the two is the bias, with the two-way variance of its linear approximation.
    """
    if "choice" not in frame:
        return None
    chosen = (frame["choice"] == "A").to_numpy().astype(int)
    plain = dependence(frame[["listener", "prompt"]].assign(agreed=chosen), "side A")
    raw = Side(plain.n, plain.rate, plain.ci_low, plain.ci_high, plain.p)
    if "high_side" not in frame:
        return raw
    agreed, on_a = frame["agreed"].to_numpy(float), (frame["high_side"] == "A").to_numpy()
    few = min(frame["listener"].nunique(), frame["prompt"].nunique())
    if on_a.all() or not on_a.any() or few < 2 or agreed.min() == agreed.max():
        return raw
    one, two = float(agreed[on_a].mean()), float(agreed[~on_a].mean())
    influence = len(agreed) * np.where(on_a, (agreed - one) / on_a.sum(), -(agreed - two) / (~on_a).sum())
    codes = [pd.factorize(frame[name])[0].astype(np.intp) for name in ("listener", "prompt")]
    error = math.sqrt(two_way_variance(influence, *codes)) / 2
    share, reach = 0.5 + (one - two) / 2, float(stats.t.ppf(0.975, few - 1)) * error
    p = float(2 * stats.t.sf(abs(one - two) / 2 / error, few - 1)) if error else 1.0
    return Side(len(agreed), share, max(0.0, share - reach), min(1.0, share + reach), p, one, two)


def order_bias(frame: pd.DataFrame) -> Order | None:
    """Agreement early and late, and Armitage's test of a trend over positions (Biometrics 11, 1955)."""
    if "position" not in frame:
        return None
    position = pd.to_numeric(frame["position"].astype(str), errors="coerce").to_numpy(float)
    agreed = frame["agreed"].to_numpy(float)[np.isfinite(position)]
    position = position[np.isfinite(position)]
    if len(np.unique(position)) < 2:
        return None
    late = position > (position.min() + position.max()) / 2
    halves = [exact_binomial(int(agreed[part].sum()), int(part.sum())) for part in (~late, late)]
    numbers, index = np.unique(position, return_inverse=True)
    k, n = (np.bincount(index, weight).astype(np.float64) for weight in (agreed, np.ones(len(agreed))))
    return Order(
        first=halves[0],
        second=halves[1],
        p=two_sample_exact(halves[0].agreed, halves[0].n, halves[1].agreed, halves[1].n),
        trend_p=trend(numbers, k, n),
        positions=tuple((int(where), int(a), int(b)) for where, a, b in zip(numbers, k, n, strict=True)),
    )


def trend(scores: Floats, k: Floats, n: Floats) -> float:
    """Two-sided p of Cochran and Armitage's test of a trend of k of n over `scores`; 1 where nothing varies."""
    share, total = k.sum() / n.sum(), n.sum()
    centred = scores - (n * scores).sum() / total
    variance = share * (1 - share) * (n * centred**2).sum()
    return float(2 * stats.norm.sf(abs((k * centred).sum()) / math.sqrt(variance))) if variance > 0 else 1.0


def response_times(frame: pd.DataFrame) -> Times | None:
    """Quantiles and medians; Mann and Whitney's p that agreeing answers take as long as others."""
    if "response_ms" not in frame:
        return None
    known = frame[frame["response_ms"].notna() & (frame["response_ms"] > 0)]
    if known.empty:
        return None
    seconds = known["response_ms"].to_numpy(float) / 1000
    agreed = known["agreed"].to_numpy() == 1
    both = agreed.any() and not agreed.all()
    high, low = known["bin_high"].to_numpy(), known["bin_low"].to_numpy()
    cells = [(f"{h}–{w}", seconds[(high == h) & (low == w)]) for h, w in BIN_PAIRS]
    return Times(
        quantiles=tuple(float(q) for q in np.quantile(seconds, [0.05, 0.25, 0.5, 0.75, 0.95])),
        agreed_median=float(np.median(seconds[agreed])) if agreed.any() else None,
        other_median=float(np.median(seconds[~agreed])) if not agreed.all() else None,
        p=float(stats.mannwhitneyu(seconds[agreed], seconds[~agreed]).pvalue) if both else None,
        by_pair=tuple((label, float(np.median(own))) for label, own in cells if len(own)),
    )


def prescreen_effect(everything: pd.DataFrame) -> Prescreen | None:
    """Scored answers of all who gave any, by how the prescreen went; None where nobody who failed answered."""
    if "passed_prescreen" not in everything:
        return None
    rows = everything[everything["kind"] == "scored"] if "kind" in everything else everything
    passed = rows["passed_prescreen"].to_numpy() == 1
    if passed.all() or not passed.any():
        return None
    agreed = rows["agreed"].to_numpy(float)
    one, two = (exact_binomial(int(agreed[part].sum()), int(part.sum())) for part in (passed, ~passed))
    return Prescreen(one, two, two_sample_exact(one.agreed, one.n, two.agreed, two.n))


def in_words(found: Reliability) -> list[str]:
    """What was found, a sentence or two each, and what is not known."""
    parts = (
        _say_between(found.between), _say_repeats(found.repeats), _say_catches(found.catches), _say_side(found.side),
        _say_order(found.order), _say_times(found.times), _say_prescreen(found.prescreen),
    )  # fmt: skip
    return [sentence for part in parts for sentence in part]


def _percent(test: BinomialTest | Side) -> str:
    return f"{100 * test.rate:.1f} % of {test.n:,} [{100 * test.ci_low:.1f}, {100 * test.ci_high:.1f}]"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _say_between(found: InterListener | None) -> Sequence[str]:
    if found is None:
        return ["No triplet was answered by two listeners, so their agreement with each other is unknown."]
    said = [
        f"Listeners with each other: on {found.triplets:,} triplets that several heard, two listeners chose the same "
        f"clip in {100 * found.same_pairs:.1f} % of pairs."
    ]
    if found.alpha is not None:
        said.append(f"Krippendorff’s alpha is {found.alpha:.3f}." + _kappa(found))
    said += [found.note] if found.note else []
    if found.majority:
        said.append(f"An answer was that of most others on its triplet in {_percent(found.majority)}.")
    return [" ".join(said)]


def _kappa(found: InterListener) -> str:
    if found.kappa is None:
        return ""
    which = f"the {found.kappa_triplets:,} triplets with {found.kappa_answers} answers"
    return f" Fleiss’ kappa is {found.kappa:.3f} ({which})."


def _say_repeats(found: Repeats | None) -> Sequence[str]:
    if found is None:
        return ["No trial was repeated, so how consistent a listener is, is unknown."]
    said = f"Listeners with themselves: the same clip was chosen again in {_percent(found.same)} repeated trials."
    if found.ceiling is None:
        return [said + " That is less often than chance, so no ceiling follows."]
    return [f"{said} No measure could then agree with a listener in more than {100 * found.ceiling:.1f} % of trials."]


def _say_catches(found: BinomialTest | None) -> Sequence[str]:
    return [f"The prompt itself was recognised in {_percent(found)} catch trials."] if found else []


def _say_side(found: Side | None) -> Sequence[str]:
    if found is None:
        return []
    verdict = "a bias to one side" if found.p < 0.05 else "no detectable bias to one side"
    where = ""
    if found.agreed_a is not None and found.agreed_b is not None:
        a, b = 100 * found.agreed_a, 100 * found.agreed_b
        where = f" Agreement was {a:.1f} % with the more similar clip on side A and {b:.1f} % with it on side B."
    return [f"Side A was chosen in {_percent(found)} trials, sides weighed alike ({_p(found.p)}): {verdict}.{where}"]


def _say_order(found: Order | None) -> Sequence[str]:
    if found is None:
        return []
    verdict = "agreement changes in the course of the study" if found.trend_p < 0.05 else "no detectable trend"
    return [
        f"Early positions: {_percent(found.first)} agreed; late ones: {_percent(found.second)} "
        f"(Fisher’s {_p(found.p)}; trend over positions {_p(found.trend_p)}): {verdict}."
    ]


def _say_times(found: Times | None) -> Sequence[str]:
    if found is None:
        return []
    q = found.quantiles
    said = (
        f"An answer took {q[2]:.1f} s (median; middle half {q[1]:.1f} to {q[3]:.1f} s, 90 % {q[0]:.1f} to {q[4]:.1f} s)"
    )
    if found.p is None or found.agreed_median is None or found.other_median is None:
        return [said + "."]
    return [
        f"{said}: {found.agreed_median:.1f} s where it agreed, {found.other_median:.1f} s where not ({_p(found.p)})."
    ]


def _say_prescreen(found: Prescreen | None) -> Sequence[str]:
    if found is None:
        return []
    return [
        f"Those who passed the prescreen agreed in {_percent(found.passed)}, those who failed it and went on in "
        f"{_percent(found.failed)} (Fisher’s {_p(found.p)})."
    ]
