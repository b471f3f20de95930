"""What can be claimed: one paragraph for each embedder, the same on the page and on a terminal.

"Significant", stars, filled points and these sentences all mean the primary test after Holm's correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.presentation.tables import PRIMARY_NAMES, one_line, percent, sidedness
from analysis.report.section import ReportInputs
from analysis.statistics.primary import PairVerdict
from study.design.bin_pairs import BIN_PAIRS

Pair = tuple[int, int]
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six")


def claims(inputs: ReportInputs) -> list[str]:
    """A paragraph for each embedder, then one on the test that it rests on."""
    return [*(_claim(inputs, name) for name in inputs.tables), describe_test(inputs)]


def describe_test(inputs: ReportInputs) -> str:
    """Which test decides, and whether it was fixed before the answers."""
    if inputs.planned:
        status = "It was fixed in the frozen plan."
    else:
        status = "No plan was frozen, so these results are exploratory."
    return (
        f"Primary test of each bin pair: {PRIMARY_NAMES[inputs.test.primary]}, {sidedness(inputs.tables)}, at the 5 % "
        f"level after Holm’s correction over the bin pairs of one embedder. {status}"
    )


def _claim(inputs: ReportInputs, name: str) -> str:
    found = inputs.verdicts[name]
    shown = one_line(name)
    by: dict[str, list[Pair]] = {}
    for pair, one in found.items():
        by.setdefault(one.verdict, []).append(pair)
    above = [pair for pair in found if pair in by.get("above", []) + by.get("of interest", [])]
    least = f"{100 * (0.5 + inputs.test.smallest_effect):g} %"
    low = f"{100 * (0.5 - inputs.test.smallest_effect):g} %"
    sentences = [_above(f"{shown}: {_who(inputs, name)}", above, len(found), shown)]
    of_interest = by.get("of interest", [])
    if above and of_interest == above:
        sentences.append(f"In {_all_of(above)} agreement is above {least}, the smallest effect of interest.")
    elif of_interest:
        sentences.append(
            f"Of these, agreement is above {least}, the smallest effect of interest, in {_pairs(of_interest)}."
        )
    elif above:
        sentences.append(f"In none of them is agreement shown to be above {least}, the smallest effect of interest.")
    if by.get("below"):
        sentences.append(f"In {_pairs(by['below'])} they choose the less similar clip more often than chance.")
    if by.get("equivalent"):
        sentences.append(
            f"In {_pairs(by['equivalent'])} agreement is between {low} and {least}: there is no effect of interest."
        )
    if by.get("undecided"):
        intervals = "; ".join(_interval(pair, found[pair]) for pair in by["undecided"])
        sentences.append(f"Undecided: {_pairs(by['undecided'])} (95 % intervals: {intervals}).")
    empty = [pair for pair in BIN_PAIRS if pair not in found]
    if empty:
        sentences.append(f"There are no responses for {_pairs(empty)}.")
    return " ".join(sentences)


def _who(inputs: ReportInputs, name: str) -> str:
    """Whom the primary test is about."""
    frame = inputs.responses.frame
    own = frame[frame["embedder"] == name]
    one_listener, one_prompt = (own[column].nunique() == 1 for column in ("listener", "prompt"))
    if inputs.test.primary == "exact_holm" or (one_listener and one_prompt):
        return "these listeners, on these clips, chose"
    if one_listener:
        return "this one listener, on other prompts like these, would choose"
    return f"other listeners, on {'this one prompt' if one_prompt else 'other prompts like these'}, would choose"


def _above(who: str, above: Sequence[Pair], tested: int, name: str) -> str:
    what = f"the clip that {name} calls more similar more often than chance"
    if not above:
        return f"{who.split(':')[0]}: in no bin pair is it shown that listeners choose {what}."
    if len(above) == tested:
        where = f"all {_NUMBERS[tested]} bin pairs" if tested > 1 else "the only bin pair with responses"
    else:
        where = f"{_NUMBERS[len(above)]} of {_NUMBERS[tested]} bin pairs ({', '.join(map(_bins, above))})"
    return f"{who} {what} in {where}."


def _all_of(pairs: Sequence[Pair]) -> str:
    return "this pair" if len(pairs) == 1 else "both" if len(pairs) == 2 else f"all {_NUMBERS[len(pairs)]}"


def _bins(pair: Pair) -> str:
    return f"{pair[0]}–{pair[1]}"


def _pairs(pairs: Sequence[Pair]) -> str:
    named = [_bins(pair) for pair in pairs]
    listed = named[0] if len(named) == 1 else ", ".join(named[:-1]) + f" and {named[-1]}"
    return f"bin pair{'s' if len(named) > 1 else ''} {listed}"


def _interval(pair: Pair, one: PairVerdict) -> str:
    return f"{_bins(pair)} {100 * one.ci_low:.0f} to {100 * one.ci_high:.0f} %"


def describe_range(inputs: ReportInputs, name: str) -> str:
    """The observed rates of one embedder in a sentence or two."""
    table = inputs.tables[name]
    tested = {pair: cell for pair, cell in table.pairs.items() if cell.n}
    lowest, highest = (pick(tested, key=lambda pair: (tested[pair].rate or 0.0, pair)) for pick in (min, max))
    total = table.totals[1]
    first = ""
    if total.n:
        trials = f"{total.n:,} trial{'' if total.n == 1 else 's'}"
        first = f"Clips of bin 1 were chosen over clips of other bins in {percent(total)} % of {trials}. "
    if lowest == highest:
        return first.strip()
    return (
        f"{first}Observed agreement ranges from {percent(tested[lowest])} % (bins {lowest[0]} and {lowest[1]}) "
        f"to {percent(tested[highest])} % (bins {highest[0]} and {highest[1]})."
    )


def primary_data(inputs: ReportInputs) -> dict[str, Any]:
    """The primary test and its results as plain data."""
    return {
        **inputs.test.as_data(),
        "planned": inputs.planned,
        "embedders": {
            name: {f"{high}-{low}": {**vars(one), "verdict": one.verdict} for (high, low), one in own.items()}
            for name, own in inputs.verdicts.items()
        },
    }
