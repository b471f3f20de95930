"""Precision, the mixed model and the order of the bin pairs in words."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.presentation.formatting import count
from analysis.presentation.tables import write_p
from analysis.statistics.glmm import MixedModel
from analysis.statistics.ordering import OrderTest
from analysis.statistics.two_way import Dependence
from analysis.statistics.two_way_variance import LEVEL

# Above this, one prompt (or few) has most answers of a cell.
UNEVEN = 0.3


def remarks_on(cells: Sequence[Dependence]) -> list[str]:
    """Where another method was needed, and where prompts have unequal numbers of answers."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        if cell.fallback:
            found.setdefault(cell.fallback, []).append(_name(cell))
    lines = [f"{', '.join(labels)}: {text[0].lower()}{text[1:]}" for text, labels in found.items()]
    return [line[0].upper() + line[1:] for line in [*lines, *describe_unevenness(cells)]]


def describe_unevenness(cells: Sequence[Dependence]) -> list[str]:
    """Which cells have prompts with very unequal numbers of answers, and what is done about it."""
    uneven = [cell for cell in cells if cell.uneven > UNEVEN and "–" in cell.label]
    if not uneven:
        return []
    named = ", ".join(f"{cell.label} ({100 * cell.estimate:.1f} %)" for cell in uneven)
    return [
        "Some prompts have many more answers than others. The intervals are centred on a rate in which an answer on "
        f"such a prompt counts less: {named}."
    ]


def _name(cell: Dependence) -> str:
    return cell.label if "–" in cell.label else "everything" if cell.label == "all" else f"row {cell.label[0]}"


def describe_model(model: MixedModel) -> str:
    """The standard deviations of the random effects."""
    parts = [
        f"{sd:.2f} between {name}s"
        for name, sd in (("listener", model.sd_listener), ("prompt", model.sd_prompt), ("triplet", model.sd_triplet))
        if sd is not None
    ]
    listed = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)
    how = "Laplace approximation" if model.method == "Laplace" else "adaptive quadrature"
    who = f"{count(model.listeners, 'listener')} and {count(model.prompts, 'prompt')}"
    if not parts:
        return f"A logistic model of {who} has no random effects, because there is only one of each."
    return (
        f"A logistic mixed model of {who} (maximum likelihood, {how}) estimates a standard deviation of {listed} on "
        "the logit scale."
    )


def describe_order(found: OrderTest | None) -> str:
    """Whether agreement grows with the distance of the bins."""
    if found is None:
        return ""
    order = "Agreement should be higher in bin pairs that enclose others, as 1–4 encloses 2–3"
    against = ", ".join(f"{inner} above {outer}" for inner, outer in found.violations)
    if found.violations and found.p_against < LEVEL:
        return f"{order}. The model’s effects contradict this order ({against}; {_p(found.p_against)})."
    grows = "it is" if found.p_increase < LEVEL else "that is not shown"
    text = f"{order}: {grows} (order-restricted test of the model’s effects, {_p(found.p_increase)})."
    if not found.violations:
        return f"{text} No observed effect contradicts this order."
    return f"{text} Some observed effects contradict it, no more than chance would ({against}; {_p(found.p_against)})."


def _p(p: float) -> str:
    return f"p = {write_p(p)}"
