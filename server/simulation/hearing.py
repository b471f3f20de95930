"""The hearing of simulated listeners: what reaches their ears of a sound.

They get the encoded sound, as a browser does, and nothing else; the steps of the prescreen answer by what is heard
(`Item.simulate`). Conventions: `crosstalk` is the share of each channel that reaches the other ear: 0 with
headphones, 1 where both channels mix in the air, as far away from a pair of loudspeakers or from a single one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile

from study.prescreen.item import Heard
from study.prescreen.registry import STEPS


@dataclass(frozen=True)
class Hearing:
    """How somebody listens; `only` (0 or 1): only that channel is heard, as with one earbud."""

    crosstalk: float = 0.0
    only: int | None = None

    def hear(self, data: bytes) -> tuple[Heard, int]:
        """The sound that reaches the ears, [samples, 2] (left, right), and the sample rate."""
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)
        left, right = samples[:, 0], samples[:, -1]
        if self.only is not None:
            channel = (left, right)[self.only]
            return np.stack([channel, np.zeros_like(channel)], axis=1), rate
        return np.stack([left + self.crosstalk * right, right + self.crosstalk * left], axis=1), rate


HEADPHONES = Hearing(0.0)
LOUDSPEAKERS = Hearing(1.0)


def answer_by_ear(step: str, data: bytes, hearing: Hearing, rng: np.random.Generator) -> int:
    """The answer of a simulated listener to the encoded sound of an item.

    Raises:
        NotImplementedError: if the step has no method `simulate`.
    """
    heard, sample_rate = hearing.hear(data)
    return STEPS[step].simulate(heard, sample_rate, rng)
