"""Embedders: from clips to unit vectors.

An embedder turns a batch of clips into features; where it has something to fit to the corpus, it gives a
projection of them. Vectors have unit norm, row i is clip i of the corpus, and a clip's vector does
not depend on the batch it came in. To add a model: one file here, one line in `EMBEDDERS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embeddings.artefacts import Provenance, RootnoteError, read_json

Vectors = npt.NDArray[np.float32]

MADE_BY = "rootnote embeddings embed"


@dataclass(frozen=True)
class Projection:
    """What was fitted to a corpus: vector = unit((features - mean) @ matrix)."""

    mean: Vectors  # [features]
    matrix: Vectors  # [features, dim]

    def apply(self, features: Vectors) -> Vectors:
        """Unit vectors `[N, dim]` of features `[N, features]`."""
        centred = features - self.mean
        # What rounding leaves of a clip at the very mean has no direction.
        at_mean = np.linalg.norm(centred, axis=1) <= 1e-5 * np.linalg.norm(self.mean)
        centred[at_mean] = 0
        # Not `@`: its last bits may depend on the number of threads.
        return unit(np.einsum("nf,fd->nd", centred, self.matrix))


class Embedder(Protocol):
    """A similarity measure's way from samples to vectors."""

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
    def batch_size(self) -> int:
        """How many clips `embed` takes at once with the best pace."""
        ...

    def settings(self) -> dict[str, Any]:
        """All that shapes the vectors besides the audio (a checkpoint's digest, say), JSON-able."""
        ...

    def runtime(self) -> dict[str, str]:
        """What ran it (backend, precision, versions): noted beside the vectors, no part of their provenance."""
        ...

    def embed(self, batch: Vectors) -> Vectors:
        """Features float32 `[N, features]` of clips float32 `[N, samples]` at `sample_rate`."""
        ...

    def fit(self, features: Vectors) -> Projection | None:
        """What to project the features `[N, features]` of a sample on; `None`: they only need unit norm."""
        ...


BACKENDS = ("auto", "torch", "torch-bf16", "openvino", "openvino-bf16", "cuda", "cuda-bf16")


@dataclass(frozen=True)
class ModelOptions:
    """How to load an embedder; one that has no use for an option refuses it.

    `checkpoint` is a path (for CLAP also a Hugging Face id); `windows` is CLMR's "first" or "mean"; `backend` is
    one of `BACKENDS`, which `embeddings.backends` describes.
    """

    checkpoint: str | None = None
    windows: str | None = None
    backend: str = "auto"


def refuse_options(name: str, options: ModelOptions) -> None:
    """For an embedder without weights and windows that runs on numpy alone.

    Raises:
        RootnoteError: where an option is given.
    """
    for option, value in (("checkpoint", options.checkpoint), ("windows", options.windows)):
        if value is not None:
            raise RootnoteError(f"{name} takes no {option}; leave it out.")
    if options.backend != "auto":
        raise RootnoteError(f"{name} runs on numpy and has no backend '{options.backend}'; leave --backend out.")


def _logmel(options: ModelOptions) -> Embedder:
    from embeddings.logmel import load

    return load(options)


def _clap(options: ModelOptions) -> Embedder:
    from embeddings.clap import load

    return load(options)


def _clmr(options: ModelOptions) -> Embedder:
    from embeddings.clmr import load

    return load(options)


def _musicnn(options: ModelOptions) -> Embedder:
    from embeddings.musicnn import load

    return load(options)


def _melspec(options: ModelOptions) -> Embedder:
    from embeddings.melspec import load

    return load(options)


# name -> loader, which imports what it needs only when called.
EMBEDDERS: dict[str, Callable[[ModelOptions], Embedder]] = {
    "logmel": _logmel,
    "melspec": _melspec,
    "clap": _clap,
    "clmr": _clmr,
    "musicnn": _musicnn,
}


def load_embedder(name: str, options: ModelOptions | None = None) -> Embedder:
    """Make an embedder ready.

    Raises:
        RootnoteError: where the name is not known, or the checkpoint is not what it takes.
    """
    if name not in EMBEDDERS:
        known = ", ".join(sorted(EMBEDDERS))
        raise RootnoteError(f"there is no embedder '{name}'; the known ones are: {known}.")
    return EMBEDDERS[name](options or ModelOptions())


def vectors_provenance(embedder: Embedder, corpus: Provenance) -> Provenance:
    """The provenance of this embedder's vectors of this corpus."""
    settings = {"embedder": embedder.name, **embedder.settings()}
    return Provenance("vectors", settings, {"corpus": corpus.fingerprint})


def read_vectors(path: Path, made_by: str = MADE_BY) -> tuple[Vectors, Provenance]:
    """Open what `pipeline.embed_corpus` wrote, memory-mapped: float32, or float16 where that was asked for.

    Raises:
        RootnoteError: where a file is missing, spoilt, or the two do not belong together.
    """
    content, provenance = read_json(path.with_suffix(".json"), "vectors", made_by)
    try:
        vectors = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise RootnoteError(f"{path} is missing; run `{made_by}`.") from None
    except (OSError, ValueError) as error:
        raise RootnoteError(f"{path} is not a readable .npy file; run `{made_by}`.") from error
    if vectors.dtype != content["dtype"] or vectors.shape != (content["clips"], content["dim"]):
        raise RootnoteError(f"{path} is not what {path.with_suffix('.json').name} says; run `{made_by}`.")
    return vectors, provenance


def read_projection(path: Path, made_by: str = MADE_BY) -> Projection | None:
    """What was fitted for the vectors at `path` (.npy), to embed new audio alike; `None`: nothing."""
    content, _ = read_json(path.with_suffix(".json"), "vectors", made_by)
    if content["fitted"] is None:
        return None
    file = path.parent / content["fitted"]["file"]
    try:
        if hashlib.sha256(file.read_bytes()).hexdigest() != content["fitted"]["sha256"]:
            raise RootnoteError(f"{file} is not the one made with {path}; run `{made_by}`.")
        with np.load(file) as arrays:
            return Projection(arrays["mean"], arrays["matrix"])
    except (OSError, ValueError, KeyError) as error:
        raise RootnoteError(f"{file} is missing or cannot be read; run `{made_by}`.") from error


def embed_clips(embedder: Embedder, projection: Projection | None, clips: Vectors) -> Vectors:
    """Unit vectors `[N, dim]` of new clips `[N, samples]`, as the corpus's own were made."""
    features = embedder.embed(clips)
    return projection.apply(features) if projection else unit(features)


def unit(vectors: npt.NDArray[np.floating[Any]]) -> Vectors:
    """Rows scaled to norm 1; a row of zeros becomes the first axis, so that every row has norm 1."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    first = np.zeros((1, vectors.shape[1]), np.float32)
    first[0, 0] = 1
    # A row that is not finite stays so: it is the caller's to refuse.
    return np.where(norms <= 1e-12, first, vectors / np.maximum(norms, 1e-12)).astype(np.float32, copy=False)
