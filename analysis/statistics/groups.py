"""Agreement by group: the rate of each group of responses, such as those of one device or one age band.

Groups are described, not tested: unless the comparison was planned, a difference between them is a hypothesis.
Conventions: rates are in [0, 1]; 95 % intervals treat listeners and prompts as random (analysis.statistics.two_way).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.statistics.agreement import Alternative
from analysis.statistics.two_way import Dependence, dependence


@dataclass(frozen=True)
class GroupAgreement:
    """One embedder's agreement in one group; `value` is "" for responses whose group is not known."""

    embedder: str
    value: str
    agreement: Dependence


def agreement_by_group(
    frame: pd.DataFrame, group: pd.Series[Any], alternative: Alternative = "two-sided"
) -> list[GroupAgreement]:
    """Agreement by embedder and group, the largest group first, responses of unknown group last.

    Args:
        frame: responses with the columns embedder, listener, prompt, agreed.
        group: the group of each row of `frame` as text, with the same index; "" where it is not known.

    Raises:
        ValueError: if `group` and `frame` have different lengths.
    """
    if len(group) != len(frame):
        raise ValueError(f"{len(frame)} responses need as many groups, not {len(group)}")
    found = []
    for embedder in sorted(map(str, frame["embedder"].unique()), key=lambda name: (name.casefold(), name)):
        rows = frame["embedder"] == embedder
        own, values = frame[rows], group[rows]
        sizes = values.value_counts()
        for value in sorted(map(str, sizes.index), key=lambda value: (value == "", -sizes[value], value)):
            found.append(GroupAgreement(embedder, value, dependence(own[values == value], value, alternative)))
    return found
