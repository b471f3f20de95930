"""The psychometric function of simulated listeners: how a difference in similarity becomes agreement.

Conventions: a difference is similarity_high - similarity_low (cosines); a probability of agreement lies between
chance (0.5, at no difference) and 1 - lapse. The form is the Weibull function of two-alternative forced choice
(Wichmann and Hill 2001, Perception & Psychophysics 63, 1293-1313), with the guessing rate 0.5.
"""

from __future__ import annotations

import math

from study.config_sections import RehearsalConfig

CHANCE = 0.5


def p_agree(difference: float, config: RehearsalConfig) -> float:
    """The probability that a listener chooses the more similar clip; chance where `difference` is not positive."""
    if difference <= 0:
        return CHANCE
    heard = -math.expm1(-((difference / config.scale) ** config.shape))
    return CHANCE + (CHANCE - config.lapse) * heard
