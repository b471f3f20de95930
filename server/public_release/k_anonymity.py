"""k-anonymity: what is published about people is generalised until nobody is one of fewer than k alike.

A table is k-anonymous when every row has the same values as at least k - 1 others in all its columns (Sweeney 2002,
International Journal of Uncertainty, Fuzziness and Knowledge-Based Systems 10); "withheld" is a value like any other
in that count, so who was withheld cannot be singled out either.

Columns are added one by one, so earlier ones keep more. Each is tried at every level, finest first: values that fewer
than k share, of those who are alike so far, are withheld, and with them, where fewer than k would be withheld, the
next rarest value. The level that tells most is taken: the one with the most bits left over all rows. A group of at
least k is thus only ever split into groups of at least k, and none is where there are fewer than k people at all.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.questions.generalise import WITHHELD, Level


@dataclass(frozen=True)
class QuasiIdentifier:
    """Something that may tell people apart, with its levels from fine to coarse."""

    name: str
    meaning: str
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class GeneralisedTable:
    """A column as it is published: its values by row, at which level, and how many are withheld."""

    column: QuasiIdentifier
    level: Level
    values: tuple[str, ...]

    @property
    def withheld(self) -> int:
        return self.values.count(WITHHELD)


def anonymise(
    columns: Sequence[QuasiIdentifier], people: Sequence[Mapping[str, str]], k: int
) -> list[GeneralisedTable]:
    """The columns that can be published of these people, in the order given; those that tell nothing are left out.

    Args:
        people: a mapping from a column's name to the true value, for each person.

    Raises:
        ValueError: where k is below 2.
    """
    if k < 2:
        raise ValueError("k must be 2 at least")
    if len(people) < k:
        return []
    found: list[GeneralisedTable] = []
    alike = [0] * len(people)
    for column in columns:
        tried = [
            _publish(column, level, [person[column.name] for person in people], alike, k) for level in column.levels
        ]
        best = max(tried, key=lambda one: (_bits(one.values), -one.withheld))  # of equals the first, which is finest
        if best.withheld == len(people):
            continue
        found.append(best)
        alike = _numbered(list(zip(alike, best.values, strict=True)))
    return found


def smallest_group(published: Sequence[GeneralisedTable]) -> int:
    """How many at least are alike in all columns; 0 where there are no columns."""
    rows = Counter(zip(*(one.values for one in published), strict=True))
    return min(rows.values(), default=0)


def _publish(
    column: QuasiIdentifier, level: Level, true: Sequence[str], alike: Sequence[int], k: int
) -> GeneralisedTable:
    values = [level.coarsen(value) for value in true]
    groups: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(alike):
        groups[group].append(row)
    for rows in groups.values():
        hidden = _to_withhold(Counter(values[row] for row in rows), k)
        for row in rows:
            if values[row] in hidden:
                values[row] = WITHHELD
    return GeneralisedTable(column, level, tuple(values))


def _to_withhold(counts: Counter[str], k: int) -> set[str]:
    """Values to be withheld among people who are alike so far, of whom there are at least k."""
    hidden = {value for value, number in counts.items() if number < k or value == WITHHELD}
    number = sum(counts[value] for value in hidden)
    # The rarest first; ties by name, so that nothing depends on the order of the people.
    for value in sorted(counts, key=lambda value: (counts[value], value)):
        if not 0 < number < k:
            break
        if value not in hidden:
            hidden.add(value)
            number += counts[value]
    return hidden


def _bits(values: Sequence[str]) -> float:
    """What the values tell, in bits over all rows; a withheld one tells nothing."""
    counts = Counter(value for value in values if value != WITHHELD)
    return math.fsum(number * math.log2(len(values) / number) for number in counts.values())  # exact in any order


def _numbered(keys: Sequence[tuple[int, str]]) -> list[int]:
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [numbers[key] for key in keys]
