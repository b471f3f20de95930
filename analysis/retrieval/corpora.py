"""Subjects: a corpus and the vectors of it that a command is given, with the embedders that made them.

They come from a study folder (`--study`), or from files (`--corpus`, and `--vectors` once for each embedder).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from analysis.retrieval.robustness.run import EmbeddedCorpus
from embeddings.audio.corpus import CutSettings, corpus_provenance, cut, read_corpus, write_corpus
from embeddings.embed import embed_corpus
from embeddings.errors import RootnoteError
from embeddings.models.base import ModelOptions
from embeddings.models.registry import load_embedder
from embeddings.progress import showing
from embeddings.provenance import Provenance
from embeddings.search.audio_query import embedder_of
from embeddings.vectors import read_projection, read_vectors, vectors_provenance
from study.build import model_options
from study.config import Study, load_study


@dataclass(frozen=True)
class SearchCorpus:
    """A corpus with its subjects, and the study they are of, where they are of one."""

    table: pa.Table
    corpus: Provenance
    subjects: list[EmbeddedCorpus]
    study: Study | None = None


def open_corpora(
    study: Path | None,
    corpus: Path | None,
    vectors: Sequence[Path],
    checkpoints: Sequence[str] = (),
    backend: str = "auto",
) -> SearchCorpus:
    """Open what a command was given.

    Args:
        checkpoints: `EMBEDDER=PATH`, for weights that neither study.toml names nor the cache holds.

    Raises:
        RootnoteError: where files are missing, do not belong together, or an embedder comes twice.
    """
    loaded = load_study(study) if study else None
    if loaded:
        corpus = corpus or loaded.corpus
        vectors = vectors or [loaded.vectors(name) for name in loaded.config.embedding.embedders]
    if corpus is None or not vectors:
        raise RootnoteError(
            "give a study folder with --study, or a corpus with --corpus and its vectors with --vectors."
        )
    table, provenance = read_corpus(corpus)
    given = _checkpoints(checkpoints)
    subjects = [_subject(path, provenance, given, backend, loaded) for path in vectors]
    names = [one.name for one in subjects]
    if len(set(names)) < len(names):
        raise RootnoteError(f"two of the vectors are of {names[0]}; give each embedder once.")
    unused = sorted(set(given) - set(names))
    if unused:
        raise RootnoteError(f"--checkpoint names '{unused[0]}', and no vectors are of it.")
    return SearchCorpus(table, provenance, subjects, loaded)


def _subject(
    path: Path, corpus: Provenance, checkpoints: Mapping[str, str], backend: str, study: Study | None
) -> EmbeddedCorpus:
    vectors, provenance = read_vectors(path)
    name = str(provenance.settings.get("embedder"))
    # What study.toml names was good enough to build the study with.
    planned = model_options(study, name) if study else ModelOptions()
    options = replace(planned, checkpoint=checkpoints.get(name, planned.checkpoint), backend=backend)
    # One --backend for several embedders: those that run no network ignore it.
    embedder = embedder_of(path, provenance, corpus, options, ignore_unused_backend=True)
    if not np.isfinite(np.asarray(vectors[:1], np.float32)).all():
        raise RootnoteError(f"{path} holds a value that is not finite; embed the corpus again.")
    return EmbeddedCorpus(embedder, read_projection(path), vectors, provenance)


def _checkpoints(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, _, path = text.partition("=")
        if not path:
            raise RootnoteError(f"--checkpoint takes EMBEDDER=PATH, such as clmr=clmr.pt, not '{text}'.")
        found[name] = path
    return found


def index_folder(
    folder: Path, embedders: Sequence[str], index: Path, checkpoints: Sequence[str] = ()
) -> tuple[Path, tuple[Path, ...]]:
    """Cut and embed a folder of music under `index`, or take what is there already and still true of it.

    Returns:
        the corpus, and the vectors of each embedder.
    """
    corpus = index / "corpus.parquet"
    settings = CutSettings()
    given = _checkpoints(checkpoints)
    if not corpus.exists() or read_corpus(corpus)[1] != corpus_provenance(folder, settings):
        with showing("Cutting", "files") as progress:
            write_corpus(corpus, cut(folder, settings, progress=progress))
    table, provenance = read_corpus(corpus)
    paths = []
    for name in embedders:
        path = index / f"{name}.npy"
        paths.append(path)
        embedder = load_embedder(name, ModelOptions(given.get(name)))
        if path.exists() and read_vectors(path)[1] == vectors_provenance(embedder, provenance):
            continue
        with showing(f"Embedding {name}", "clips") as progress:
            embed_corpus(table, provenance, folder, embedder, path, progress=progress)
    return corpus, tuple(paths)
