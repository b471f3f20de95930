"""Drawing the triplets of one embedder, for tests."""

from __future__ import annotations

import numpy as np

from study.config_sections import DesignConfig
from study.design.bins import PromptNeighbours, SimilarityBins
from study.design.triplets import DrawnTriplets, EmbedderClips, draw_triplets


def draw_one(
    vectors: np.ndarray,
    tracks: np.ndarray,
    found: PromptNeighbours,
    bins: SimilarityBins,
    design: DesignConfig,
    seed: int,
    random_means: np.ndarray | None = None,
) -> DrawnTriplets:
    [drawn] = draw_triplets([EmbedderClips("one", vectors, found, bins, random_means)], tracks, design, seed)
    return drawn
