"""The prescreen: the steps of study.toml, one after the other.

A step asks some items (a sound and a question about it), passes when enough are right (`threshold`), and may be
tried so many times (`attempts`), each time with new sounds. A new step is a class in study.prescreen and a line
here, a section in study.config, and in the server a template of its name and a line that says what its page asks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from study.config import StudyConfig
from study.config_sections import StepConfig
from study.prescreen.antiphase import AntiphaseItem
from study.prescreen.huggins import HugginsItem
from study.prescreen.item import SAMPLE_RATE, Item
from study.prescreen.tone_counting import ToneItem
from study.prescreen.volume import VolumeItem

ANSWER_SECONDS = 4.0  # to answer and to begin the next sound

STEPS: dict[str, type[Item]] = {
    "volume": VolumeItem,
    "tones": ToneItem,
    "huggins": HugginsItem,
    "antiphase": AntiphaseItem,
}


def step_config(config: StudyConfig, step: str) -> StepConfig:
    """How many items, attempts and right answers a step has."""
    return getattr(config.prescreen, step, StepConfig(items=1, attempts=1))


def graded_steps(config: StudyConfig) -> list[str]:
    """The steps of a study that somebody can fail, in their order."""
    return [step for step in config.prescreen.steps if STEPS[step].graded]


def draw_attempt(step: str, rng: np.random.Generator, config: StudyConfig) -> list[Item]:
    """Draw the items of one attempt at a step."""
    return [STEPS[step].draw(rng, config) for _ in range(step_config(config, step).items)]


def stored_item(step: str, params: Mapping[str, Any]) -> Item:
    """The item that was stored as `params` (its fields by name)."""
    return STEPS[step](**params)


def count_right(items: Sequence[Item], answers: Sequence[int]) -> int:
    """How many answers are right.

    Raises:
        ValueError: where items and answers differ in number.
    """
    return sum(answer == item.answer for item, answer in zip(items, answers, strict=True))


def minutes(config: StudyConfig) -> float:
    """How long the steps take somebody who passes each at once: every sound once, and ANSWER_SECONDS for its answer."""
    rng = np.random.default_rng(0)
    items = [item for step in config.prescreen.steps for item in draw_attempt(step, rng, config)]
    return sum(len(item.render()) / SAMPLE_RATE + ANSWER_SECONDS for item in items) / 60


def chance_of_guessing(step: str, config: StudyConfig) -> float:
    """The probability of passing a step by answering at random among the answers that it offers."""
    own = step_config(config, step)
    p = 1 / len(STEPS[step].answers(config))
    once = sum(math.comb(own.items, n) * p**n * (1 - p) ** (own.items - n) for n in range(own.needed, own.items + 1))
    return 1 - (1 - once) ** own.attempts
