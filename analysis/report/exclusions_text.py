"""Exclusions in words: what was read, what was excluded and why, and the rules."""

from __future__ import annotations

import numpy as np

from analysis.presentation.formatting import count
from analysis.responses.exclusions import runs
from analysis.responses.load import Responses


def describe_exclusions(responses: Responses) -> str:
    """What was read, what was excluded and why, and what remains."""
    verb = "was" if responses.rows_read == 1 else "were"
    read = f"{count(responses.rows_read, 'response')} of {count(responses.listeners_read, 'listener')} {verb} read."
    excluded = [item for item in responses.exclusions if item.rows]
    if not responses.plan.rules and not excluded:
        return f"{read} No exclusion rule applies, so all of them are analysed."
    if not responses.exclusions:
        return f"{read} The file does not say which to exclude, so all of them are analysed."
    if not excluded:
        return f"{read} None had to be excluded."
    steps = [
        f"{count(item.rows, 'response')}"
        + (f", including all responses of {count(item.listeners, 'listener')}" if item.listeners else "")
        + f" ({item.reason})"
        for item in excluded
    ]
    verb = "remains" if len(responses.frame) == 1 else "remain"
    rest = f"{count(len(responses.frame), 'response')} of {count(responses.listeners, 'listener')} {verb}."
    return f"{read} Excluded, in this order: {'; '.join(steps)}. {rest}"


def describe_verification(responses: Responses) -> str:
    """How many of the analysed runs nobody could check; "" if there are none, or the file does not say."""
    frame = responses.frame
    if "verification" not in frame:
        return ""
    own = frame[frame["verification"] == "unverified"]
    number = len(np.unique(runs(own))) if len(own) else 0
    if not number:
        return ""
    verb = "is" if number == 1 else "are"
    return (
        f"{count(number, 'analysed run')} {verb} unverified: the listeners came by an open link, and nobody checked "
        "who they were."
    )


def describe_rules(responses: Responses, source: str) -> list[str]:
    """The exclusion rules with their source, and the rules that could not be applied; empty without a source."""
    if not source:
        return []
    rules = ", ".join(name.replace("_", " ") for name in responses.plan.rules) or "none"
    return [
        f"Exclusion rules ({source}): {rules}.",
        *(f"The rule {name} could not be applied, because {why}." for name, why in responses.not_applied.items()),
    ]
