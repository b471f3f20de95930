"""Reliability and bias in words, and what is not known.

Conventions: a sentence or two for each part, with 95 % intervals in brackets.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.statistics.agreement import BinomialTest
from analysis.statistics.reliability import InterListener, Reliability, Repeats
from analysis.statistics.response_bias import OrderBias, PrescreenEffect, ResponseTimes, SideBias


def in_words(found: Reliability) -> list[str]:
    """What was found, a sentence or two each, and what is not known."""
    parts = (
        _say_between(found.between), _say_repeats(found.repeats), _say_catches(found.catches), _say_side(found.side),
        _say_order(found.order), _say_times(found.times), _say_prescreen(found.prescreen),
    )  # fmt: skip
    return [sentence for part in parts for sentence in part]


def _percent(test: BinomialTest | SideBias) -> str:
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


def _say_side(found: SideBias | None) -> Sequence[str]:
    if found is None:
        return []
    verdict = "a bias to one side" if found.p < 0.05 else "no detectable bias to one side"
    where = ""
    if found.agreed_a is not None and found.agreed_b is not None:
        a, b = 100 * found.agreed_a, 100 * found.agreed_b
        where = f" Agreement was {a:.1f} % with the more similar clip on side A and {b:.1f} % with it on side B."
    return [f"Side A was chosen in {_percent(found)} trials, sides weighed alike ({_p(found.p)}): {verdict}.{where}"]


def _say_order(found: OrderBias | None) -> Sequence[str]:
    if found is None:
        return []
    verdict = "agreement changes in the course of the study" if found.trend_p < 0.05 else "no detectable trend"
    return [
        f"Early positions: {_percent(found.first)} agreed; late ones: {_percent(found.second)} "
        f"(Fisher’s {_p(found.p)}; trend over positions {_p(found.trend_p)}): {verdict}."
    ]


def _say_times(found: ResponseTimes | None) -> Sequence[str]:
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


def _say_prescreen(found: PrescreenEffect | None) -> Sequence[str]:
    if found is None:
        return []
    return [
        f"Those who passed the prescreen agreed in {_percent(found.passed)}, those who failed it and went on in "
        f"{_percent(found.failed)} (Fisher’s {_p(found.p)})."
    ]
