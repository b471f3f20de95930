"""The prescreen: the steps of study.toml, one after the other.

A step has some items (a sound and a question about it), is passed when enough are right (`threshold`), and may be
tried several times (`attempts`), each time with new sounds. study.prescreen.item describes how to add a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from study.config import StudyConfig
from study.prescreen.item import SAMPLE_RATE, Item, encode_wav
from study.prescreen.registry import STEPS
from study.prescreen.settings import StepConfig

ANSWER_SECONDS = 4.0  # to answer and to start the next sound


def step_config(config: StudyConfig, step: str) -> StepConfig:
    """How many items, attempts and right answers a step has."""
    return config.prescreen.section(step)


def graded_steps(config: StudyConfig) -> list[str]:
    """The steps of a study that a listener can fail, in their order."""
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
        ValueError: if items and answers differ in number.
    """
    return sum(answer == item.answer for item, answer in zip(items, answers, strict=True))


def minutes(config: StudyConfig) -> float:
    """How long the steps take a listener who passes each at once: every sound once, and ANSWER_SECONDS to answer it."""
    return sum(len(item.render()) / SAMPLE_RATE + ANSWER_SECONDS for item in _items_of_a_listener(config)) / 60


def prescreen_bytes(config: StudyConfig) -> int:
    """The size of the sounds of a listener who passes each step at once."""
    return sum(len(encode_wav(item.render())) for item in _items_of_a_listener(config))


def _items_of_a_listener(config: StudyConfig) -> list[Item]:
    """Items such as a listener gets; their lengths hardly vary."""
    rng = np.random.default_rng(0)
    return [item for step in config.prescreen.steps for item in draw_attempt(step, rng, config)]


def chance_of_guessing(step: str, config: StudyConfig) -> float:
    """The probability of passing a step by answering at random among the answers that it offers."""
    settings = step_config(config, step)
    n, p = settings.items, 1 / len(STEPS[step].answers(config))
    once = sum(math.comb(n, right) * p**right * (1 - p) ** (n - right) for right in range(settings.needed, n + 1))
    return 1 - (1 - once) ** settings.attempts
