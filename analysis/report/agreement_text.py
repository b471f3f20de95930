"""Table 1 in words: a short paragraph for each embedder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.presentation.tables import one_line, percent
from analysis.statistics.agreement import CHANCE, Cell, EmbedderTable
from study.design.bin_pairs import BIN_PAIRS

ALPHA = 0.05
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six")


def describe_table(table: EmbedderTable) -> str:
    """The result of one embedder as a short paragraph.

    A pair differs from chance if its Holm-corrected p is below 0.05.
    """
    name = one_line(table.embedder)
    tested = {pair: cell for pair, cell in table.pairs.items() if cell.n}
    significant = {pair: cell for pair, cell in tested.items() if (cell.p_holm or 0.0) < ALPHA}
    above = [pair for pair, cell in significant.items() if (cell.rate or 0.0) > CHANCE]
    below = [pair for pair in significant if pair not in above]
    undecided = [pair for pair in tested if pair not in significant]
    sentences = [_describe_above(name, above, len(tested))]
    if below:
        sentences.append(
            f"In {_pairs(below)} they chose the less similar clip more often than chance: "
            f"there, {name} and the listeners disagree."
        )
    if undecided:
        many = len(undecided) > 1
        sentences.append(
            f"For {_pairs(undecided)}, agreement does not differ significantly from chance. "
            f"This does not show that {'they are' if many else 'it is'} at chance; see the "
            f"interval{'s' if many else ''}."
        )
    sentences.append(_describe_range(table, tested))
    if len(tested) < len(BIN_PAIRS):
        empty = [pair for pair in BIN_PAIRS if pair not in tested]
        sentences.append(f"There are no responses for {_pairs(empty)}.")
    return " ".join(filter(None, sentences))


def _describe_above(name: str, above: list[tuple[int, int]], tested: int) -> str:
    what = f"listeners chose the clip that {name} calls more similar more often than chance"
    if not above:
        return f"In no bin pair did {what.replace('chose', 'choose')}."
    if len(above) == tested:
        every = f"all {_NUMBERS[tested]} bin pairs" if tested > 1 else "the only bin pair with responses"
        return f"In {every}, {what}."
    return f"In {_NUMBERS[len(above)]} of {_NUMBERS[tested]} bin pairs ({_pairs(above)}), {what}."


def _describe_range(table: EmbedderTable, tested: Mapping[tuple[int, int], Cell]) -> str:
    lowest = min(tested, key=lambda pair: (tested[pair].rate or 0.0, pair))
    highest = max(tested, key=lambda pair: (tested[pair].rate or 0.0, pair))
    total = table.totals[1]
    first = ""
    if total.n:
        trials = f"{total.n:,} trial{'' if total.n == 1 else 's'}"
        first = f"Clips of bin 1 were chosen over clips of other bins in {percent(total)} % of {trials}. "
    if lowest == highest:
        return first.strip()
    return (
        f"{first}Agreement ranges from {percent(tested[lowest])} % (bins {_bins(lowest)}) "
        f"to {percent(tested[highest])} % (bins {_bins(highest)})."
    )


def _bins(pair: tuple[int, int]) -> str:
    return f"{pair[0]} and {pair[1]}"


def _pairs(pairs: Sequence[tuple[int, int]]) -> str:
    named = [f"{high}–{low}" for high, low in pairs]
    listed = named[0] if len(named) == 1 else ", ".join(named[:-1]) + f" and {named[-1]}"
    return f"bin pair{'s' if len(named) > 1 else ''} {listed}"
