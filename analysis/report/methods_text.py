"""Methods in words: the methods section of a paper on this study, with every number filled in.

Conventions: sentences are whole and end with a full stop; numbers of a thousand and more have a comma.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.presentation.formatting import count
from analysis.presentation.tables import PRIMARY_NAMES, one_line, sidedness
from analysis.presentation.versions import versions
from analysis.responses.load import Responses
from analysis.statistics.bins import Bins
from analysis.statistics.glmm import MixedModel
from analysis.statistics.psychometric import Curve
from analysis.statistics.reliability import Reliability
from study.design.bin_pairs import BINS

if TYPE_CHECKING:
    from analysis.report.section import Report, ReportInputs
    from analysis.report.sections.dependence import DependenceResult


def methods(report: Report) -> list[str]:
    """The paragraphs: participants and trials; exclusions and tests; dependence, curves and software."""
    inputs, results = report.inputs, report.results
    read, tables, bins = inputs.responses, inputs.tables, inputs.bins
    paragraphs = [
        [_participants(read), *(_bins(bins[name]) for name in tables if name in bins), _sides(read)],
        [_exclusions(read, inputs.rules_source), _tests(inputs)],
        [
            _dependence(results["dependence"]),
            _curves(results["curves"].pooled),
            _scale_and_reliability(results["reliability"]),
            _software(inputs.seed),
        ],
    ]
    return [" ".join(filter(None, sentences)) for sentences in paragraphs]


def _participants(read: Responses) -> str:
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
            f"{count(len(own), 'answer')} by {count(int(own['listener'].nunique()), 'listener')}"
        )
    people = "simulated listener" if read.rehearsed else "listener"
    answers = "answer" if per == "1" else "answers"
    return (
        f"In each trial, {count(read.listeners, people)} heard a prompt and two clips and chose the clip that "
        f"sounded more similar to the prompt (two-alternative forced choice){when}. Each listener gave {per} scored "
        f"{answers} ({'; '.join(parts)})."
    )


def _bins(bins: Bins) -> str:
    centres = ", ".join(f"{round(bins.centres[number], 3) + 0.0:.3f}" for number in BINS)
    return (
        f"For {one_line(bins.embedder)}, the clips came from four bins of cosine similarity to the prompt, centred on "
        f"{centres} (bins 1 to 4), each ± {bins.half_width:g}; the similarities of the nearest clips had mean "
        f"{bins.mu:.3f} and standard deviation {bins.sigma:.3f}."
    )


def _sides(read: Responses) -> str:
    if "high_side" not in read.frame:
        return ""
    share = 100 * float((read.frame["high_side"] == "A").mean())
    return f"The clip of the more similar bin was A in {share:.1f} % of trials."


def _exclusions(read: Responses, source: str) -> str:
    rules = ", ".join(name.replace("_", " ") for name in read.plan.rules) or "none"
    rows = sum(item.rows for item in read.exclusions)
    people = sum(item.listeners for item in read.exclusions)
    where = f" ({source})" if source else ""
    return (
        f"Exclusion rules{where}: {rules}. Of {count(read.rows_read, 'response')} of "
        f"{count(read.listeners_read, 'listener')}, {count(rows, 'response')} and {count(people, 'listener')} were "
        "excluded (catch and repeat trials included)."
    )


def _tests(inputs: ReportInputs) -> str:
    tables, test = inputs.tables, inputs.test
    sizes = [cell.n for table in tables.values() for cell in table.pairs.values() if cell.n]
    n = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    return (
        f"Agreement per bin pair (n = {n}) was tested against 50 % ({sidedness(tables)}) at the 5 % level; the primary "
        f"test was the {PRIMARY_NAMES[test.primary]}, corrected with Holm’s method over the bin pairs of one embedder"
        f"{', as fixed in the frozen plan' if inputs.planned else ''}. The smallest effect of interest was "
        f"{100 * (0.5 + test.smallest_effect):g} %, with a minimum-effect and an equivalence test (Lakens, Scheel and "
        "Isager 2018). The paper’s analysis is also given: exact binomial tests with Holm’s and with Benjamini and "
        "Hochberg’s correction, and Clopper and Pearson’s intervals."
    )


def _dependence(result: DependenceResult) -> str:
    models = "; ".join(_deviations(name, model) for name, model in result.mixed.items())
    return (
        "To generalise to other listeners and prompts, correlations of answers that share a listener or a prompt were "
        "estimated from analysis-of-variance equations with residuals centred by bin pair. Intervals are Wilson’s with "
        "the effective number of answers and Student’s t, with the effective number of listeners or prompts, whichever "
        "is smaller, minus one as degrees of freedom. A logistic mixed model with crossed random effects (maximum "
        f"likelihood, Laplace approximation) gave these standard deviations on the logit scale: {models}."
    )


def _deviations(name: str, model: MixedModel) -> str:
    groups = (("listeners", model.sd_listener), ("prompts", model.sd_prompt), ("triplets", model.sd_triplet))
    listed = ", ".join(f"{group} {sd:.2f}" for group, sd in groups if sd is not None)
    return f"{one_line(name)}: {listed or 'none'}"


def _curves(curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    return (
        "Psychometric curves (Weibull, guessing rate fixed at 50 %) were fitted by maximum likelihood to the "
        f"differences in similarity, with bands from {curves[0].resamples:,} resamples of listeners and prompts."
    )


def _scale_and_reliability(found: Reliability) -> str:
    return "Bins were scaled with the Bradley–Terry model. " + (
        "Agreement between listeners is given as Krippendorff’s alpha (nominal) and Fleiss’ kappa."
        if found.between
        else "No triplet was answered by two listeners."
    )


def _software(seed: int) -> str:
    named = ", ".join(f"{name} {number}" for name, number in versions("statsmodels", "krippendorff").items())
    return f"Computed with {named}; seed {seed}."


def describe_sample(read: Responses) -> str:
    """How many answers share a listener or a prompt, as a clause without a full stop."""
    frame = read.frame
    prompts = frame["prompt"].nunique()
    each = len(frame) / read.listeners
    return f"{count(read.listeners, 'listener')} gave {each:.1f} answers each on {count(int(prompts), 'prompt')}"
