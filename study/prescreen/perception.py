"""Perception of simulated listeners: how they judge the levels of sounds.

Levels are judged with an error of LEVEL_ERROR_DB, about the just noticeable difference of a tone's level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from study.prescreen.item import INTERVALS, Heard

LEVEL_ERROR_DB = 0.7


def intervals_of(heard: Heard) -> list[Heard]:
    """The equal parts of a sound with three intervals."""
    return np.array_split(heard, INTERVALS)


def decibels(power: float) -> float:
    return 10 * math.log10(power + 1e-12)


def judged(levels: Sequence[float], rng: np.random.Generator) -> Heard:
    """Levels in dB as they are perceived."""
    return np.asarray(levels) + rng.normal(0, LEVEL_ERROR_DB, len(levels))
