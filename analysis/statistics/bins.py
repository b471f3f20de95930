"""Bins: the positions of an embedder's four bins on the similarity scale, as written by `study build`.

Conventions: similarities are cosines; bin 3 is centred on the mean of the nearest clips' scores, bin 2 and
bin 1 one and two standard deviations above it, bin 4 on the mean of random pairs (Section 4.1 of the paper).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from embeddings.errors import RootnoteError
from embeddings.provenance import read_json
from study.design.bin_fit import describe_fit
from study.design.bin_pairs import BINS

BUILD = "rootnote study build"
# Similarities are rounded to float32 before they are stored.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Bins:
    """Centres and half-width of the bins, the fitted Gaussian, and the histogram it was fitted to if known.

    `remarks` are sentences about how well the bins fit. With the method "per_prompt" the centres are only the pooled
    ones: every prompt had its own.
    """

    embedder: str
    mu: float
    sigma: float
    half_width: float
    centres: Mapping[int, float]
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    method: str = "gaussian"
    remarks: tuple[str, ...] = ()

    def label(self, number: int) -> str:
        """The bin in the paper's notation, such as 0.955 ± 0.02."""
        return f"{round(self.centres[number], 3) + 0.0:.3f} ± {self.half_width:g}"


def read_bins(path: Path) -> Bins:
    """Read `<embedder>.bins.json`.

    Raises:
        RootnoteError: if the file is missing, damaged or not a file of bins.
    """
    content, _ = read_json(path, "bins", BUILD)
    try:
        histogram = content.get("histogram") or {"edges": [], "counts": []}
        bins = Bins(
            embedder=str(content["embedder"]),
            mu=float(content["mu"]),
            sigma=float(content["sigma"]),
            half_width=float(content["half_width"]),
            centres={number: float(content["centres"][str(number)]) for number in BINS},
            edges=tuple(float(edge) for edge in histogram["edges"]),
            counts=tuple(int(count) for count in histogram["counts"]),
            method=str(content.get("method", "gaussian")),
            remarks=tuple(describe_fit(content)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RootnoteError(f"{path} has no valid {error}; run `{BUILD}`.") from error
    if bins.counts and len(bins.edges) != len(bins.counts) + 1:
        raise RootnoteError(f"{path} has a histogram whose edges and counts disagree; run `{BUILD}`.")
    return bins


def misfit(bins: Bins, frame: pd.DataFrame) -> str | None:
    """The reason why these bins cannot be those of the responses in `frame`; None if they can."""
    if bins.method == "per_prompt":
        return None
    rows = frame[frame["embedder"] == bins.embedder]
    centres = np.array([np.nan, *(bins.centres[number] for number in BINS)])
    for side in ("high", "low"):
        if f"similarity_{side}" not in rows:
            continue
        similarity = rows[f"similarity_{side}"].to_numpy(float)
        number = rows[f"bin_{side}"].to_numpy(int)
        off = np.abs(similarity - centres[number]) > bins.half_width + TOLERANCE
        if off.any():
            first = int(np.argmax(off))
            return (
                f"the responses have a clip of bin {number[first]} at similarity {similarity[first]:.3f}, "
                f"but that bin is {bins.label(int(number[first]))} in the file"
            )
    return None
