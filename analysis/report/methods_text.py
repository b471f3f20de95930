"""Methods in words: what a paper's methods paragraph would say of a report, with every number filled in.

Conventions: sentences are whole and end with a full stop; numbers of a thousand and more have a comma.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.presentation.tables import one_line, sidedness
from analysis.presentation.versions import versions
from analysis.report.results import ReportResults
from analysis.responses.load import Responses
from analysis.statistics.agreement import Table1
from analysis.statistics.bins import Bins
from analysis.statistics.two_way import LEVEL, Dependence, survival
from study.design.bin_pairs import BINS


def methods(
    read: Responses, tables: Table1, bins: Mapping[str, Bins], findings: ReportResults, rules_from: str
) -> list[str]:
    """The paragraphs: who answered what, what was left out, how it was tested."""
    return [
        " ".join(filter(None, [_who(read), *(_bins(bins[name]) for name in tables if name in bins), _sides(read)])),
        " ".join(filter(None, [_left_out(read, rules_from), _tests(tables)])),
        " ".join(filter(None, [_dependence(findings), *_curves(findings), _rest(findings), _software(findings)])),
    ]


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _who(read: Responses) -> str:
    frame = read.frame
    each = frame.groupby("listener", observed=True).size()
    per = f"{each.min():,}" if each.min() == each.max() else f"{each.min():,} to {each.max():,}"
    when = ""
    if read.dates:
        when = f" on {read.dates[0]}" if read.dates[0] == read.dates[1] else f" from {read.dates[0]} to {read.dates[1]}"
    parts = []
    for name in read.embedders:
        own = frame[frame["embedder"] == name]
        triplets = own.groupby(["prompt", "bin_high", "bin_low"], observed=True).ngroups
        parts.append(
            f"{one_line(name)}: {count(int(own['prompt'].nunique()), 'prompt')}, "
            f"{count(triplets, 'triplet')}, "
            f"{count(len(own), 'answer')} of {count(int(own['listener'].nunique()), 'listener')}"
        )
    who = "simulated listener" if read.rehearsed else "listener"
    return (
        f"{count(read.listeners, who)} heard a prompt and two clips in each trial and chose the clip that "
        f"sounded more similar to the prompt (two-alternative forced choice){when}; {per} scored answers each "
        f"({'; '.join(parts)})."
    )


def _bins(bins: Bins) -> str:
    centres = ", ".join(f"{round(bins.centres[number], 3) + 0.0:.3f}" for number in BINS)
    return (
        f"For {one_line(bins.embedder)} the clips came from four bins of cosine similarity to the prompt, centred on "
        f"{centres} (bin 1 to 4), each ± {bins.half_width:g}; the nearest clips’ similarities had mean {bins.mu:.3f} "
        f"and standard deviation {bins.sigma:.3f}."
    )


def _sides(read: Responses) -> str:
    if "high_side" not in read.frame:
        return ""
    share = 100 * float((read.frame["high_side"] == "A").mean())
    return f"The clip of the more similar bin was A in {share:.1f} % of trials."


def _left_out(read: Responses, rules_from: str) -> str:
    rules = ", ".join(name.replace("_", " ") for name in read.plan.rules) or "none"
    lost = sum(item.rows for item in read.exclusions)
    people = sum(item.listeners for item in read.exclusions)
    source = f" ({rules_from})" if rules_from else ""
    return (
        f"Rules of exclusion{source}: {rules}; of {count(read.rows_read, 'response')} of "
        f"{count(read.listeners_read, 'listener')} they, with catch and repeat trials, left out "
        f"{count(lost, 'response')} and {count(people, 'listener')}."
    )


def _tests(tables: Table1) -> str:
    sizes = [cell.n for table in tables.values() for cell in table.pairs.values() if cell.n]
    n = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    return (
        f"Agreement per bin pair (n = {n}) was tested against 50 % by exact binomial tests ({sidedness(tables)}), "
        "corrected by Holm’s method over the bin pairs of one embedder at the 5 % level, with Benjamini and Hochberg’s "
        "beside it; intervals are Clopper and Pearson’s 95 %, and Wilson’s."
    )


def _dependence(findings: ReportResults) -> str:
    cells = [cell for found in findings.dependence.values() for cell in found if "–" in cell.label]
    worth = [cell.n_effective for cell in cells]
    models = "; ".join(
        f"{one_line(name)} {model.sd_listener:.2f} and {model.sd_prompt:.2f}" for name, model in findings.mixed.items()
    )
    return (
        "To speak of other listeners and prompts, variances were clustered on listeners and on prompts at once "
        "(Cameron, Gelbach and Miller 2011) and Wilson’s interval taken with Student’s t, degrees of freedom one less "
        f"than the fewer of the two; the answers of a bin pair were so worth {min(worth):.0f} to {max(worth):.0f} "
        "independent ones. A logistic mixed model with crossed effects (Laplace) gave standard deviations of listeners "
        f"and prompts of {models} on the logit scale."
    )


def _curves(findings: ReportResults) -> Sequence[str]:
    if not findings.curves:
        return []
    return [
        "Psychometric curves (Weibull, guessing fixed at 50 %) were fitted by maximum likelihood to the differences in "
        f"similarity, with bands from {findings.curves[0].resamples:,} resamples of listeners and prompts."
    ]


def _rest(findings: ReportResults) -> str:
    return "Bins were scaled by Bradley and Terry’s model. " + (
        "Agreement among listeners is Krippendorff’s alpha (nominal) and Fleiss’ kappa."
        if findings.reliability.between
        else "No triplet was heard by two listeners."
    )


def _software(findings: ReportResults) -> str:
    named = ", ".join(f"{name} {number}" for name, number in versions("statsmodels", "krippendorff").items())
    return f"Computed with {named}; seed {findings.seed}."


def many_answers(read: Responses) -> str:
    """How far the pooled answers are from independent, in numbers."""
    frame = read.frame
    prompts = frame.groupby("embedder", observed=True)["prompt"].nunique().sum()
    each = len(frame) / read.listeners
    return f"Here {count(read.listeners, 'listener')} gave {each:.1f} answers each on {count(int(prompts), 'prompt')}"


def conclude(cells: Sequence[Dependence]) -> list[str]:
    """For every pooled conclusion whether it survives, those alike together; then what had to be done otherwise."""
    groups: dict[str, list[str]] = {}
    for cell in cells:
        label = cell.label if "–" in cell.label else "everything" if cell.label == "all" else f"row {cell.label[0]}"
        groups.setdefault(survival(cell), []).append(label)
    said = [f"{', '.join(labels)}: {sentence[0].lower()}{sentence[1:]}" for sentence, labels in groups.items()]
    said = [sentence[0].upper() + sentence[1:] for sentence in said]
    fallbacks: dict[str, list[str]] = {}
    for cell in cells:
        if cell.fallback:
            fallbacks.setdefault(cell.fallback, []).append(cell.label)
    return said + [f"{', '.join(labels)}: {sentence}" for sentence, labels in fallbacks.items()]


def warnings(findings: ReportResults, departures: int) -> list[str]:
    """What a reader must know before believing the tables, most weighty first; nothing where there is nothing."""
    said = []
    if departures:
        said.append(f"The analysis departs from the frozen plan in {departures} point{'s' if departures > 1 else ''}.")
    for name, cells in findings.dependence.items():
        lost = [cell.label for cell in cells if cell.survives is False]
        if lost:
            said.append(
                f"{one_line(name)}: what pooling finds for {', '.join(lost)} does not survive listeners and prompts as "
                "random."
            )
        said += [
            f"{one_line(name)}: {text}" for text in dict.fromkeys(cell.fallback for cell in cells if cell.fallback)
        ]
        model = findings.mixed[name]
        said += [
            f"{one_line(name)}, mixed model: {note}"
            for note in model.notes
            if "no estimate" in note or "did not" in note
        ]
    reliability = findings.reliability
    if reliability.side and reliability.side.p < LEVEL:
        said.append(f"Side A was chosen in {100 * reliability.side.rate:.1f} % of trials: listeners favour one side.")
    if reliability.order and reliability.order.trend_p < LEVEL:
        said.append("Agreement changes with the position of a trial.")
    if reliability.repeats and reliability.repeats.ceiling is None:
        said.append("Listeners contradict themselves in repeated trials more often than chance would.")
    return said


def write_icc(value: float | None) -> str:
    """A correlation with two decimals, or a dash."""
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def write_figure(value: float | None) -> str:
    """Three significant digits, or a dash where there is none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.3g}"
