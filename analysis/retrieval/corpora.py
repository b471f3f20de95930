"""Search corpora: a corpus and its vectors, with the embedders that made them.

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
    """A corpus, its vectors by embedder (`subjects`), and the study they belong to, if any."""

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
    """Open the corpus and vectors of a study, or those given as files.

    Args:
        checkpoints: `EMBEDDER=PATH`, for weights that are neither in study.toml nor in the cache.

    Raises:
        RootnoteError: if files are missing or do not belong together, or an embedder is given twice.
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
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise RootnoteError(f"several vectors are from {repeated}; give each embedder once.")
    unused = sorted(set(given) - set(names))
    if unused:
        raise RootnoteError(f"--checkpoint names '{unused[0]}', but none of the vectors are from it.")
    return SearchCorpus(table, provenance, subjects, loaded)


def _subject(
    path: Path, corpus: Provenance, checkpoints: Mapping[str, str], backend: str, study: Study | None
) -> EmbeddedCorpus:
    vectors, provenance = read_vectors(path)
    name = str(provenance.settings.get("embedder"))
    # study.toml names the checkpoints that the study was built with.
    planned = model_options(study, name) if study else ModelOptions()
    options = replace(planned, checkpoint=checkpoints.get(name, planned.checkpoint), backend=backend)
    # One --backend serves several embedders: those without a network ignore it.
    embedder = embedder_of(path, provenance, corpus, options, ignore_unused_backend=True)
    if not np.isfinite(np.asarray(vectors[:1], np.float32)).all():
        raise RootnoteError(f"{path} has a value that is not finite; embed the corpus again.")
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
    """Cut and embed a folder of music under `index`, or reuse the files there if they are up to date.

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
