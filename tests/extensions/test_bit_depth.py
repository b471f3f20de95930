"""The worked example of docs/extending/perturbation.md."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.retrieval.robustness.perturbations import PerturbationInput, rng_for
from analysis.retrieval.robustness.registry import PERTURBATIONS
from tests.commands import run
from tests.extensions.bit_depth import BIT_DEPTH

CLIP = (0.3 * np.sin(np.arange(4800) / 20)).astype(np.float32)


def test_fewer_bits_are_a_larger_error() -> None:
    material = PerturbationInput(CLIP, CLIP, 16_000)
    errors = []
    for level in BIT_DEPTH.levels:
        changed = BIT_DEPTH.apply(material, level, rng_for(0, BIT_DEPTH.name, level, 0))
        assert (changed == BIT_DEPTH.apply(material, level, rng_for(0, BIT_DEPTH.name, level, 0))).all()
        errors.append(float(np.sqrt(np.mean((changed - CLIP) ** 2))))
    assert errors == sorted(errors, reverse=True)


def test_the_command_lists_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PERTURBATIONS.built_in, BIT_DEPTH.name, BIT_DEPTH)
    assert "bit-depth" in run("analysis", "robustness", "--list").stdout
