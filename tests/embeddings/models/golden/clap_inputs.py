"""The inputs of the reference vectors of laion_clap: weights by name and clips, from numpy's legacy generator.

Used by `make_laion_clap.py` in the package's own environment, and by the tests; nothing but numpy is needed.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

RATE = 48_000
SECONDS = (1.0, 3.0, 3.0, 3.0, 5.0, 6.9, 10.0)
MODELS = ("HTSAT-tiny", "HTSAT-base")


def weight(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
    """The value of a parameter by LAION's name; None for buffers (windows, filters, masks, indices)."""
    if "extractor" in name or name.endswith(("attn_mask", "relative_position_index", "num_batches_tracked")):
        return None
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.startswith("audio_branch.bn0."):
        fixed = {"running_mean": -40.0, "running_var": 400.0, "weight": 1.0, "bias": 0.0}
        return np.full(shape, fixed[name.rsplit(".", 1)[1]], np.float32)
    if len(shape) > 1 and "bias_table" not in name:
        return np.asarray(values * 1.5 / np.sqrt(np.prod(shape[1:])), np.float32)
    around = 1.0 if name.endswith("norm.weight") or (".norm" in name and name.endswith("weight")) else 0.0
    return np.asarray(around + 0.05 * values, np.float32)


def clips() -> list[npt.NDArray[np.float32]]:
    """Mono clips of SECONDS: in turn changing chords, bursts of noise, and both; loud clips exceed full scale."""
    found = []
    for number, seconds in enumerate(SECONDS):
        random = np.random.RandomState(number)
        time = np.arange(round(seconds * RATE)) / RATE
        pitches = 110 * 2 ** (random.randint(0, 12 + 8 * number, (int(4 * seconds) + 1, 3)) / 12)
        phases = 2 * np.pi * pitches[(4 * time).astype(int)] * time[:, None]
        chords = np.sin(phases).sum(axis=1) * np.exp(-8 * ((4 * time) % 1))
        bursts = random.standard_normal(len(time)) * ((3 + number) * time % 1 < 0.1 + 0.1 * number)
        parts = (chords, bursts, chords + 0.2 * bursts)
        found.append(np.asarray(0.02 * 2.5**number * parts[number % 3], np.float32))
    return found
