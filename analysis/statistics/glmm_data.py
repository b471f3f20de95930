"""The answers of one embedder as counts, for the mixed model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.design.bin_pairs import BIN_PAIRS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Factor:
    """A grouping with a random effect: its name, and the group of each cell of counts."""

    name: str
    codes: Ints
    size: int


@dataclass(frozen=True)
class CellCounts:
    """Counts of answers: `y` of `n` agreed in each cell of a bin pair, a listener, a prompt and a triplet (indices).

    `factors` are the groupings that can have a random effect: more than one listener, more than one prompt, and
    triplets if any was answered twice and there are more than prompts or bin pairs.
    """

    y: Floats
    n: Floats
    pair: Ints
    listener: Ints
    prompt: Ints
    names: tuple[str, ...]
    factors: tuple[Factor, ...]

    @property
    def sizes(self) -> tuple[int, int, int]:
        return len(self.names), int(self.listener.max()) + 1, int(self.prompt.max()) + 1


def collect(frame: pd.DataFrame) -> CellCounts:
    """Count the answers of each listener on each triplet: a prompt, a bin pair, and both clips if they are named."""
    high, low = (frame[name].to_numpy(np.intp) for name in ("bin_high", "bin_low"))
    present = [pair for pair in BIN_PAIRS if ((high == pair[0]) & (low == pair[1])).any()]
    pair = np.searchsorted([h * 10 + w for h, w in present], high * 10 + low).astype(np.intp)
    listener, prompt = (pd.factorize(frame[name])[0].astype(np.intp) for name in ("listener", "prompt"))
    triplet = prompt * len(present) + pair
    if {"clip_high", "clip_low"} <= set(frame.columns):
        for name in ("clip_high", "clip_low"):
            clip = pd.factorize(frame[name].astype(str))[0].astype(np.intp)
            triplet = np.unique(triplet * (int(clip.max()) + 1) + clip, return_inverse=True)[1]
    return count_cells(
        frame["agreed"].to_numpy(np.float64), listener, prompt, pair, triplet,
        tuple(f"{h}–{w}" for h, w in present),
    )  # fmt: skip


def count_cells(
    agreed: Floats, listener: Ints, prompt: Ints, pair: Ints, triplet: Ints, names: tuple[str, ...]
) -> CellCounts:
    """Count answers given as codes, each shape (n,)."""
    listener, prompt, triplet = (np.unique(codes, return_inverse=True)[1] for codes in (listener, prompt, triplet))
    triplets = int(triplet.max()) + 1
    _, rows, inverse = np.unique(listener * triplets + triplet, return_index=True, return_inverse=True)
    groupings = (("listener", listener), ("prompt", prompt), ("triplet", triplet))
    factors = []
    for name, codes in groupings:
        size = int(codes.max()) + 1
        if name == "triplet":
            # As many triplets as prompts or as pairs: the same grouping under another name.
            distinct = size > int(prompt.max()) + 1 and size > len(names)
            if not distinct or size == len(agreed):
                continue
        if size > 1:
            factors.append(Factor(name, codes[rows].astype(np.intp), size))
    return CellCounts(
        y=np.bincount(inverse, agreed).astype(np.float64),
        n=np.bincount(inverse).astype(np.float64),
        pair=pair[rows].astype(np.intp),
        listener=listener[rows].astype(np.intp),
        prompt=prompt[rows].astype(np.intp),
        names=names,
        factors=tuple(factors),
    )
