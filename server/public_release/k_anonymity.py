"""k-anonymity: values about people are generalised until at least k people share each combination of them.

A table is k-anonymous when every row has the same values as at least k - 1 others in all its columns (Sweeney 2002,
International Journal of Uncertainty, Fuzziness and Knowledge-Based Systems 10). "withheld" counts as a value like any
other, so people whose value is withheld cannot be singled out either.

Columns are added one by one, so earlier ones keep more detail. Each is tried at every level, finest first. Within
each group of people who are equal so far, values that fewer than k share are withheld; if fewer than k people would
then be withheld, so is the next rarest value. The level that keeps the most information (bits over all rows) is
chosen. A group of at least k is therefore only split into groups of at least k. Nothing is published where there are
fewer than k people.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.questions.generalise import WITHHELD, Level


@dataclass(frozen=True)
class QuasiIdentifier:
    """A column that can distinguish people, with its levels from fine to coarse."""

    name: str
    meaning: str
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class GeneralisedColumn:
    """A column as it is published: its values by row, at one level."""

    column: QuasiIdentifier
    level: Level
    values: tuple[str, ...]

    @property
    def withheld(self) -> int:
        return self.values.count(WITHHELD)


def anonymise(
    columns: Sequence[QuasiIdentifier], people: Sequence[Mapping[str, str]], k: int
) -> list[GeneralisedColumn]:
    """The columns that can be published about these people, in the given order, without those fully withheld.

    Args:
        people: a mapping from a column's name to the true value, for each person.

    Raises:
        ValueError: if k is below 2.
    """
    if k < 2:
        raise ValueError("k must be at least 2")
    if len(people) < k:
        return []
    found: list[GeneralisedColumn] = []
    group_of = [0] * len(people)
    for column in columns:
        tried = [
            _publish(column, level, [person[column.name] for person in people], group_of, k) for level in column.levels
        ]
        best = max(tried, key=lambda one: (_bits(one.values), -one.withheld))  # of equals the first, which is finest
        if best.withheld == len(people):
            continue
        found.append(best)
        group_of = _numbered(list(zip(group_of, best.values, strict=True)))
    return found


def _publish(
    column: QuasiIdentifier, level: Level, true: Sequence[str], group_of: Sequence[int], k: int
) -> GeneralisedColumn:
    values = [level.coarsen(value) for value in true]
    groups: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(group_of):
        groups[group].append(row)
    for rows in groups.values():
        hidden = _to_withhold(Counter(values[row] for row in rows), k)
        for row in rows:
            if values[row] in hidden:
                values[row] = WITHHELD
    return GeneralisedColumn(column, level, tuple(values))


def _to_withhold(counts: Counter[str], k: int) -> set[str]:
    """The values to withhold in one group of at least k people."""
    hidden = {value for value, number in counts.items() if number < k or value == WITHHELD}
    number = sum(counts[value] for value in hidden)
    # Rarest first, ties by name, so that the result does not depend on the order of the people.
    for value in sorted(counts, key=lambda value: (counts[value], value)):
        if not 0 < number < k:
            break
        if value not in hidden:
            hidden.add(value)
            number += counts[value]
    return hidden


def _bits(values: Sequence[str]) -> float:
    """The information in the values, in bits over all rows; a withheld value has none."""
    counts = Counter(value for value in values if value != WITHHELD)
    return math.fsum(
        number * math.log2(len(values) / number) for number in counts.values()
    )  # fsum is exact in any order


def _numbered(keys: Sequence[tuple[int, str]]) -> list[int]:
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [numbers[key] for key in keys]
