"""Vectors on disk, as written by `rootnote embeddings embed`, and the projection fitted for them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from embeddings.errors import ArtefactError, StaleArtefactError
from embeddings.models.base import Embedder, Projection, Vectors
from embeddings.provenance import Provenance, read_json

MADE_BY = "rootnote embeddings embed"


def vectors_provenance(embedder: Embedder, corpus: Provenance) -> Provenance:
    """The provenance of this embedder's vectors of this corpus."""
    settings = {"embedder": embedder.name, **embedder.settings()}
    return Provenance("vectors", settings, {"corpus": corpus.fingerprint})


def read_vectors(path: Path, made_by: str = MADE_BY) -> tuple[Vectors, Provenance]:
    """Open vectors written by `embed.embed_corpus`, memory-mapped: float32, or float16 if that was requested.

    Raises:
        ArtefactError: if a file is missing or damaged, or the two do not belong together.
    """
    content, provenance = read_json(path.with_suffix(".json"), "vectors", made_by)
    try:
        vectors = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing; run `{made_by}`.") from None
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} is not a readable .npy file; run `{made_by}`.") from error
    if vectors.dtype != content["dtype"] or vectors.shape != (content["clips"], content["dim"]):
        raise StaleArtefactError(f"{path} does not match {path.with_suffix('.json').name}; run `{made_by}`.")
    return vectors, provenance


def read_projection(path: Path, made_by: str = MADE_BY) -> Projection | None:
    """The projection fitted for the vectors at `path` (.npy), to embed new audio; `None`: nothing was fitted."""
    content, _ = read_json(path.with_suffix(".json"), "vectors", made_by)
    if content["fitted"] is None:
        return None
    file = path.parent / content["fitted"]["file"]
    try:
        if hashlib.sha256(file.read_bytes()).hexdigest() != content["fitted"]["sha256"]:
            raise StaleArtefactError(f"{file} was not made with {path}; run `{made_by}`.")
        with np.load(file) as arrays:
            return Projection(arrays["mean"], arrays["matrix"])
    except (OSError, ValueError, KeyError) as error:
        raise ArtefactError(f"{file} is missing or cannot be read; run `{made_by}`.") from error
