"""A perturbation: fewer bits per sample."""

from __future__ import annotations

import numpy as np

from analysis.retrieval.robustness.perturbations import Perturbation, PerturbationInput, Samples


def quantise(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Round each sample to `level` bits, with the dither of a converter."""
    step = 2.0 ** (1 - level)
    dither = rng.uniform(-0.5, 0.5, len(material.clip))
    return np.asarray(np.round(material.clip / step + dither) * step, dtype=np.float32)


BIT_DEPTH = Perturbation("bit-depth", "Bit depth", "bits", (4, 6, 8, 12), quantise)
