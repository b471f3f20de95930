"""Reliability and bias in words.

Conventions: one or two sentences per part, with 95 % intervals in brackets.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.presentation.formatting import count
from analysis.statistics.agreement import BinomialTest
from analysis.statistics.reliability import InterListener, Reliability, Repeats
from analysis.statistics.response_bias import OrderBias, PrescreenEffect, ResponseTimes, SideBias


def in_words(found: Reliability) -> list[str]:
    """The results as sentences; for parts that need data the file lacks, that they are unknown."""
    parts = (
        _describe_between(found.between),
        _describe_repeats(found.repeats),
        _describe_catches(found.catches),
        _describe_side(found.side),
        _describe_order(found.order),
        _describe_times(found.times),
        _describe_prescreen(found.prescreen),
    )
    return [sentence for part in parts for sentence in part]


def _percent(test: BinomialTest | SideBias, noun: str) -> str:
    return f"{100 * test.rate:.1f} % of {count(test.n, noun)} [{100 * test.ci_low:.1f}, {100 * test.ci_high:.1f}]"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _describe_between(found: InterListener | None) -> Sequence[str]:
    if found is None:
        return ["No triplet was answered by two listeners, so agreement between listeners is unknown."]
    text = [
        f"Agreement between listeners: on {count(found.triplets, 'triplet')} that several listeners answered, two of "
        f"them chose the same clip in {100 * found.same_pairs:.1f} % of pairs."
    ]
    if found.alpha is not None:
        text.append(f"Krippendorff’s alpha is {found.alpha:.3f}." + _kappa(found))
    text += [found.note] if found.note else []
    if found.majority:
        text.append(
            f"The majority of the other listeners gave the same answer in {_percent(found.majority, 'answer')}."
        )
    return [" ".join(text)]


def _kappa(found: InterListener) -> str:
    if found.kappa is None:
        return ""
    which = f"{count(found.kappa_triplets, 'triplet')} with {found.kappa_answers} answers each"
    return f" Fleiss’ kappa is {found.kappa:.3f} ({which})."


def _describe_repeats(found: Repeats | None) -> Sequence[str]:
    if found is None:
        return ["No trial was repeated, so the consistency of single listeners is unknown."]
    text = f"Consistency of listeners: the same clip was chosen again in {_percent(found.same, 'repeated trial')}."
    if found.ceiling is None or found.ceiling_low is None or found.ceiling_high is None:
        return [text + " This is less often than chance, so no ceiling can be derived."]
    return [
        f"{text} Therefore no measure could agree with a listener in more than {100 * found.ceiling:.1f} % of trials "
        f"(noise ceiling; 95 % interval {100 * found.ceiling_low:.1f} to {100 * found.ceiling_high:.1f} %)."
    ]


def _describe_catches(found: BinomialTest | None) -> Sequence[str]:
    return [f"The prompt itself was recognised in {_percent(found, 'catch trial')}."] if found else []


def _describe_side(found: SideBias | None) -> Sequence[str]:
    if found is None:
        return []
    verdict = "a bias to one side" if found.p < 0.05 else "no detectable bias to one side"
    where = ""
    if found.agreed_a is not None and found.agreed_b is not None:
        a, b = 100 * found.agreed_a, 100 * found.agreed_b
        where = f" Agreement was {a:.1f} % with the more similar clip on side A and {b:.1f} % on side B."
    return [
        f"Side A was chosen in {_percent(found, 'trial')}, both sides weighted equally ({_p(found.p)}): {verdict}."
        + where
    ]


def _describe_order(found: OrderBias | None) -> Sequence[str]:
    if found is None:
        return []
    verdict = "agreement changes during the study" if found.trend_p < 0.05 else "no detectable trend"
    first, second = _percent(found.first, "answer"), _percent(found.second, "answer")
    return [
        f"Agreement was {first} in the first half of positions and {second} in the second (tested within "
        f"listeners: {_p(found.p)}; trend over positions {_p(found.trend_p)}): {verdict}."
    ]


def _describe_times(found: ResponseTimes | None) -> Sequence[str]:
    if found is None:
        return []
    q = found.quantiles
    text = (
        f"The median response time was {q[2]:.1f} s (middle 50 %: {q[1]:.1f} to {q[3]:.1f} s, middle 90 %: "
        f"{q[0]:.1f} to {q[4]:.1f} s)"
    )
    if found.p is None or found.agreed_median is None or found.other_median is None:
        return [text + "."]
    return [
        f"{text}: {found.agreed_median:.1f} s if it agreed with the measure, {found.other_median:.1f} s if not "
        f"(within listeners: {_p(found.p)})."
    ]


def _describe_prescreen(found: PrescreenEffect | None) -> Sequence[str]:
    if found is None:
        return []
    passed, failed = _percent(found.passed, "answer"), _percent(found.failed, "answer")
    return [
        f"Listeners who passed the prescreen agreed in {passed}, those who failed and continued in {failed} "
        f"(listeners and prompts as random: {_p(found.p)})."
    ]
