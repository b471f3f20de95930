"""Embedders: turn clips into unit vectors.

An embedder turns a batch of clips into features; if it is fitted to the corpus, it also gives a projection of them.
Vectors have unit norm, row i is clip i of the corpus, and a clip's vector does not depend on the batch it came in.
To add a model: one file here, one line in `embeddings.models.registry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embeddings.errors import ConfigError

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Projection:
    """A projection fitted to a corpus: vector = unit((features - mean) @ matrix)."""

    mean: Vectors  # [features]
    matrix: Vectors  # [features, dim]

    def apply(self, features: Vectors) -> Vectors:
        """Unit vectors `[N, dim]` of features `[N, features]`."""
        centred = features - self.mean
        # A clip at the mean has no direction: what remains is rounding error.
        at_mean = np.linalg.norm(centred, axis=1) <= 1e-5 * np.linalg.norm(self.mean)
        centred[at_mean] = 0
        # Not `@`: its last bits may depend on the number of threads.
        return unit(np.einsum("nf,fd->nd", centred, self.matrix))


class Embedder(Protocol):
    """A similarity measure, as a map from samples to vectors."""

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def fits(self) -> bool:
        """Whether `fit` must see a sample of the corpus first."""
        ...

    @property
    def light(self) -> bool:
        """Whether it runs on numpy and scipy alone: no network, no backend, cheap to load in any process."""
        ...

    @property
    def batch_size(self) -> int:
        """How many clips `embed` should take at once for the best speed."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything but the audio that shapes the vectors, such as a checkpoint's digest; JSON-able."""
        ...

    def runtime(self) -> dict[str, str]:
        """Backend, precision and versions: recorded with the vectors, but not part of their provenance."""
        ...

    def embed(self, batch: Vectors) -> Vectors:
        """Compute features float32 `[N, features]` of clips float32 `[N, samples]` at `sample_rate`."""
        ...

    def fit(self, features: Vectors) -> Projection | None:
        """The projection fitted to the features `[N, features]` of a sample; `None`: nothing is fitted."""
        ...


BACKENDS = ("auto", "torch", "torch-bf16", "openvino", "openvino-bf16", "cuda", "cuda-bf16")


@dataclass(frozen=True)
class ModelOptions:
    """How to load an embedder; embedders refuse options that they do not use.

    `checkpoint` is a path (for CLAP also a Hugging Face id); `windows` is CLMR's "first" or "mean"; `backend` is
    one of `BACKENDS`, which `embeddings.models.backends` describes.
    """

    checkpoint: str | None = None
    windows: str | None = None
    backend: str = "auto"


def refuse_options(name: str, options: ModelOptions, *taken: str) -> None:
    """Refuse the options "checkpoint" and "windows" if an embedder does not use them.

    Args:
        taken: the options that the embedder takes.

    Raises:
        ConfigError: if another one is given.
    """
    for option, value in (("checkpoint", options.checkpoint), ("windows", options.windows)):
        if option not in taken and value is not None:
            raise ConfigError(f"{name} takes no {option}; leave it out.")


def embed_clips(embedder: Embedder, projection: Projection | None, clips: Vectors) -> Vectors:
    """Unit vectors `[N, dim]` of new clips `[N, samples]`, as the corpus's own were made."""
    features = embedder.embed(clips)
    return projection.apply(features) if projection else unit(features)


def unit(vectors: npt.NDArray[np.floating[Any]]) -> Vectors:
    """Rows scaled to norm 1; a row of zeros becomes the first axis, so that every row has norm 1."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    first = np.zeros((1, vectors.shape[1]), np.float32)
    first[0, 0] = 1
    # A row that is not finite is left as it is: the caller refuses it.
    return np.where(norms <= 1e-12, first, vectors / np.maximum(norms, 1e-12)).astype(np.float32, copy=False)
