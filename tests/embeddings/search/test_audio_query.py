"""`rootnote embeddings search`: the tracks and positions that audio resembles, exact or with a stored index."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rootnote
from embeddings.audio.corpus import CutSettings, cut, read_corpus, write_corpus
from embeddings.checkpoints.catalogue import CHECKPOINTS, Checkpoint
from embeddings.errors import RootnoteError
from embeddings.models.base import ModelOptions
from embeddings.models.logmel import LogMel
from embeddings.models.registry import EMBEDDERS
from embeddings.provenance import Provenance
from embeddings.search import faiss_index
from embeddings.search.audio_query import Query, embedder_of, find_tracks
from embeddings.search.exact import nearest
from embeddings.search.faiss_index import Kind, open_index
from embeddings.vectors import read_vectors
from tests.embeddings.sounds import melody, write

RATE = 44_100


def run(command: str, *options: object) -> Result:
    return CliRunner().invoke(rootnote.cli, ["embeddings", command, *map(str, options)])


def run_search(folder: Path, audio: Path, *options: object) -> Result:
    return run("search", audio, "--corpus", folder / "corpus.parquet", "--vectors", folder / "v.npy", *options)


def found_by(folder: Path, audio: Path, *options: object) -> dict[str, Any]:
    done = run_search(folder, audio, "--json", *options)
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def error_message(done: Result) -> str:
    assert isinstance(done.exception, RootnoteError), done.output
    return str(done.exception)


def embed(folder: Path, dtype: str = "float32") -> None:
    options = ("--corpus", folder / "corpus.parquet", "--embedder", "logmel", "--dtype", dtype)
    assert run("embed", *options, "--out", folder / "v.npy").exit_code == 0


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tracks of four clips, their corpus and vectors; one name is full of markup."""
    folder = tmp_path_factory.mktemp("corpus")
    for track in range(12):
        tags = {"artist": "Anna", "title": f"Piece {track}"}
        name = "[bold]05[/].wav" if track == 5 else f"{track:02}.wav"
        write(folder / "music" / name, melody(13, track), tags=tags)
    write_corpus(folder / "corpus.parquet", cut(folder / "music"))
    embed(folder)
    return folder


@pytest.fixture(scope="module")
def collage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of track 2, three of track 7, three of silence, and the rest of track 2."""
    parts = [melody(13, 2)[3 * RATE : 6 * RATE], melody(13, 7)[9 * RATE : 12 * RATE], np.zeros(3 * RATE, np.float32)]
    path = tmp_path_factory.mktemp("query") / "collage.wav"
    return write(path, np.concatenate([*parts, melody(13, 2)[: 2 * RATE]]))


def test_the_tracks_and_positions_in_a_collage_are_found(music: Path, collage: Path) -> None:
    found = found_by(music, collage, "--top", 3)
    assert (found["clips"], found["silent_clips"], found["embedder"], found["exact"]) == (2, 1, "logmel", True)
    first, second, third = found["tracks"]
    assert {first["path"], second["path"]} == {"02.wav", "07.wav"}
    assert [one["rank"] for one in found["tracks"]] == [1, 2, 3]
    by_path = {track["path"]: track["matches"][0] for track in found["tracks"]}
    places = ("query_start_s", "query_end_s", "track_start_s", "track_end_s")
    assert [by_path["02.wav"][place] for place in places] == [0, 3, 3, 6]
    assert [by_path["07.wav"][place] for place in places] == [3, 6, 9, 12]
    assert min(first["similarity"], second["similarity"]) > 0.999
    assert third["similarity"] < 0.9
    table, _ = read_corpus(music / "corpus.parquet")
    match = by_path["07.wav"]
    assert table["path"][match["clip"]].as_py() == "07.wav"
    assert (first["artist"], second["artist"]) == ("Anna", "Anna")


def test_the_table_shows_track_names_unchanged(music: Path, collage: Path) -> None:
    shown = run_search(music, collage).stdout
    assert "2 clips of" in shown
    assert "(1 silent left out)" in shown
    for text in ("[bold]05[/].wav", "Anna – Piece 7", "0:00–0:03", "0:09–0:12", "1.0000"):
        assert text in shown


def test_clips_may_overlap_and_be_of_any_format(music: Path, collage: Path, tmp_path: Path) -> None:
    assert found_by(music, collage, "--hop-seconds", 0.5)["clips"] > 6
    lossy = write(tmp_path / "piece.ogg", melody(13, 9)[: 7 * RATE])
    best = found_by(music, lossy)["tracks"][0]
    assert best["path"] == "09.wav"
    assert {(match["query_start_s"], match["track_start_s"]) for match in best["matches"]} == {(0, 0), (3, 3)}


def test_a_clip_of_exactly_the_length_counts(music: Path, tmp_path: Path) -> None:
    exact = write(tmp_path / "exact.wav", melody(13, 4)[: 3 * RATE])
    assert found_by(music, exact)["tracks"][0]["path"] == "04.wav"
    short = write(tmp_path / "short.wav", melody(2.9, 4))
    assert "short.wav is shorter than a clip of the corpus (3 s)" in error_message(run_search(music, short))
    silent = write(tmp_path / "silent.wav", np.zeros(4 * RATE, np.float32))
    assert "silent.wav is silent (below -60 dBFS)" in error_message(run_search(music, silent))
    (tmp_path / "text.wav").write_text("no music")
    assert "text.wav cannot be decoded" in error_message(run_search(music, tmp_path / "text.wav"))
    assert "none.wav cannot be decoded: no such file" in error_message(run_search(music, tmp_path / "none.wav"))


def test_vectors_in_float16_find_the_same(music: Path, collage: Path, tmp_path: Path) -> None:
    shutil.copy(music / "corpus.parquet", tmp_path)
    embed(tmp_path, "float16")
    whole, half = found_by(music, collage, "--top", 4), found_by(tmp_path, collage, "--top", 4)
    assert [one["path"] for one in half["tracks"]] == [one["path"] for one in whole["tracks"]]
    for one, other in zip(half["tracks"], whole["tracks"], strict=True):
        assert one["similarity"] == pytest.approx(other["similarity"], abs=2e-3)
        assert one["similarity"] <= 1


def brute(tracks: npt.NDArray[np.int64], cosines: npt.NDArray[np.float32], top: int) -> list[tuple[int, set[Any]]]:
    """Tracks in order, each with its (query, row), from the whole matrix of cosines."""
    kept: dict[int, set[tuple[int, int]]] = {}
    for query, row_scores in enumerate(cosines):
        best = {track: int(np.flatnonzero(tracks == track)[row_scores[tracks == track].argmax()]) for track in tracks}
        for track in sorted(best, key=lambda track: -row_scores[best[track]])[:top]:
            kept.setdefault(int(track), set()).add((query, best[track]))
    score = {track: max(cosines[one] for one in pairs) for track, pairs in kept.items()}
    ranked = sorted(kept, key=lambda track: (-score[track], -len(kept[track]), track))
    return [(track, kept[track]) for track in ranked[:top]]


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    queries=st.integers(1, 5),
    top=st.integers(1, 8),
    crowded=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_tracks_and_matches_are_those_of_brute_force(
    sizes: list[int], queries: int, top: int, crowded: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    tracks = np.repeat(np.arange(len(sizes)), sizes)
    vectors = rng.standard_normal((len(tracks), 6)).astype(np.float32)
    asked = rng.standard_normal((queries, 6)).astype(np.float32)
    if crowded:  # one track holds all that is nearest to every query
        vectors[tracks == len(sizes) // 2] = asked.mean(axis=0) + 0.1 * vectors[tracks == len(sizes) // 2]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    cosines = asked @ vectors.T
    assume(np.diff(np.sort(cosines, axis=1), axis=1, prepend=-2).min() > 1e-6)  # which of two that tie is no matter
    names = [f"{track}.wav" for track in tracks]
    table = pa.table(
        {"track": tracks, "start_s": 3.0 * np.arange(len(tracks)), "path": names, "artist": names, "title": names}
    )
    query = Query([3.0 * one for one in range(queries)], 3.0, asked, 0)
    found = find_tracks(table, query, lambda wanted, k: nearest(vectors, wanted, k), top)
    pairs = [(one.track, {(round(match.query_start_s / 3), match.clip) for match in one.matches}) for one in found]
    assert pairs == brute(tracks, cosines, top)
    assert all(one.similarity == one.matches[0].similarity for one in found)


class Toy(LogMel):
    """logmel as an embedder that takes a checkpoint and windows."""

    name = "toy"

    def __init__(self, options: ModelOptions) -> None:
        if options.checkpoint is None:
            raise RootnoteError("toy needs --checkpoint")
        digest = hashlib.sha256(Path(options.checkpoint).read_bytes()).hexdigest()
        self._settings = {"checkpoint": digest, "windows": options.windows or "first"}

    def settings(self) -> dict[str, Any]:
        return self._settings


def test_the_settings_of_the_vectors_are_required(
    music: Path, collage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EMBEDDERS, "toy", f"{__name__}:Toy")
    monkeypatch.setenv("ROOTNOTE_CACHE", str(tmp_path / "cache"))
    shutil.copy(music / "corpus.parquet", tmp_path)
    one, other = tmp_path / "one.pt", tmp_path / "other.pt"
    one.write_bytes(b"one")
    other.write_bytes(b"other")
    made = ("--embedder", "toy", "--checkpoint", one, "--windows", "mean", "--out", tmp_path / "v.npy")
    assert run("embed", "--corpus", tmp_path / "corpus.parquet", *made).exit_code == 0
    assert found_by(tmp_path, collage, "--checkpoint", one)["tracks"][0]["similarity"] > 0.999
    text = error_message(run_search(tmp_path, collage, "--checkpoint", other))
    assert f"made with another checkpoint of toy (SHA-256 {hashlib.sha256(b'one').hexdigest()[:16]}…); give" in text
    text = error_message(run_search(tmp_path, collage, "--checkpoint", one, "--windows", "first"))
    assert "made with other settings of toy (windows)" in text
    assert "toy needs --checkpoint" in error_message(run_search(tmp_path, collage))
    # One in the cache with the right digest is taken by itself.
    digest = hashlib.sha256(b"one").hexdigest()
    monkeypatch.setitem(CHECKPOINTS, "toy", Checkpoint("", "toy", "toy.pt", "https://example.org", "", sha256=digest))
    (tmp_path / "cache" / "checkpoints").mkdir(parents=True)
    shutil.copy(one, tmp_path / "cache" / "checkpoints" / "toy.pt")
    assert found_by(tmp_path, collage)["embedder"] == "toy"


def test_vectors_of_another_corpus_or_model_are_refused(music: Path, collage: Path, tmp_path: Path) -> None:
    shutil.copytree(music, tmp_path / "other")
    write_corpus(tmp_path / "other" / "corpus.parquet", cut(music / "music", CutSettings(hop_seconds=2)))
    text = error_message(run_search(tmp_path / "other", collage))
    assert "v.npy is stale (corpus changed since); run `rootnote embeddings embed`" in text
    _, corpus = read_corpus(music / "corpus.parquet")
    _, provenance = read_vectors(music / "v.npy")
    later = replace(provenance, settings={**provenance.settings, "version": 0})
    with pytest.raises(RootnoteError, match=r"made with other settings of logmel \(version\); use the same, or run"):
        embedder_of(music / "v.npy", later, corpus, ModelOptions())
    unknown = replace(provenance, settings={"embedder": "none"})
    with pytest.raises(RootnoteError, match="there is no embedder 'none'"):
        embedder_of(music / "v.npy", unknown, corpus, ModelOptions())
    assert run_search(music, collage, "--approximate", "--store", "milvus:x.db").exit_code == 2


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_index_is_built_once_and_finds_the_same_tracks(
    music: Path, collage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setattr(faiss_index, "IVF_FROM", 0 if kind == "ivf" else 1000)
    folder = tmp_path / "copy"
    shutil.copytree(music, folder)
    built = run_search(folder, collage, "--top", 2, "--approximate")
    assert f"Built the {kind} index" in built.stderr
    assert "of the 10 nearest" in built.stderr
    written = (folder / f"v.{kind}.faiss").stat()
    again = found_by(folder, collage, "--top", 2, "--approximate")
    assert (again["exact"], again["index"], again["built_now"]) == (False, kind, False)
    assert again["recall"]["10"] >= 0.95
    assert (folder / f"v.{kind}.faiss").stat().st_mtime_ns == written.st_mtime_ns
    exact = found_by(folder, collage, "--top", 2)
    assert [one["path"] for one in again["tracks"]] == [one["path"] for one in exact["tracks"]]
    assert again["tracks"][0]["similarity"] == exact["tracks"][0]["similarity"]


def clustered(count: int, dim: int = 24, seed: int = 0) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, count // 40), dim))
    vectors = centres[rng.integers(0, len(centres), count)] + 0.5 * rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


MADE = Provenance("vectors", {"embedder": "none"}, {"corpus": "one"})


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_scores_are_exact_and_the_stated_recall_is_correct(tmp_path: Path, kind: Kind, dtype: str) -> None:
    vectors = clustered(2500).astype(dtype)
    index = open_index(tmp_path / "v.npy", vectors, MADE, kind=kind)
    queries = clustered(2600)[2500:]
    found = index.nearest(queries, 20)
    whole = queries @ vectors.T.astype(np.float32)
    assert np.take_along_axis(whole, found.rows, axis=1) == pytest.approx(found.scores, abs=1e-6)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert all(len(set(rows)) == 20 for rows in found.rows.tolist())
    least = -np.sort(-whole, axis=1)[:, 19:20]
    assert (found.scores >= least - 1e-6).mean() > 0.9
    # The recorded recall, computed again by brute force.
    rows = np.random.default_rng(1).permutation(2500)[:1000]
    own = vectors[rows].astype(np.float32) @ vectors.T.astype(np.float32)
    own[np.arange(1000), rows] = -np.inf
    got = index.nearest(vectors[rows].astype(np.float32), 101)
    for k, stated in index.recall.items():
        least = -np.sort(-own, axis=1)[:, k - 1 : k]
        hits = [
            np.count_nonzero((scores >= low - 1e-6) & (found != row))
            for scores, found, row, low in zip(got.scores, got.rows, rows, least, strict=True)
        ]
        assert np.minimum(hits, k).mean() / k == pytest.approx(stated, abs=0.002)
    assert index.recall[10] >= 0.95


def test_too_few_rows_in_the_searched_lists_are_completed(tmp_path: Path) -> None:
    vectors = clustered(4000)
    index = replace(open_index(tmp_path / "v.npy", vectors, MADE, kind="ivf"), effort=1)
    exact, found = nearest(vectors, vectors[:50], 500), index.nearest(vectors[:50], 500)
    assert (found.rows >= 0).all()
    assert found.scores == pytest.approx(exact.scores, abs=1e-6)


@pytest.mark.parametrize("spoil", ["bytes", "truncated", "gone", "notes", "notes gone", "other vectors", "hostile"])
def test_a_stale_or_damaged_index_is_built_again(tmp_path: Path, spoil: str) -> None:
    path, vectors, provenance = tmp_path / "v.npy", clustered(300), MADE
    assert open_index(path, vectors, provenance).built_now
    assert not open_index(path, vectors, provenance).built_now
    file, notes = tmp_path / "v.hnsw.faiss", tmp_path / "v.hnsw.json"
    content = file.read_bytes()
    if spoil == "bytes":
        file.write_bytes(content[:-50] + bytes(50))
    elif spoil == "truncated":
        file.write_bytes(content[:100])
    elif spoil == "gone":
        file.unlink()
    elif spoil == "notes":
        notes.write_text("[]")
    elif spoil == "notes gone":
        notes.unlink()
    elif spoil == "hostile":  # notes that vouch for bytes that faiss cannot read
        file.write_bytes(b"IxMp" + bytes(60))
        record = json.loads(notes.read_text())
        notes.write_text(json.dumps({**record, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}))
    else:
        provenance = replace(provenance, made_from={"corpus": "two"})
    again = open_index(path, vectors, provenance)
    assert again.built_now
    assert again.nearest(vectors[:5], 3).rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert not open_index(path, vectors, provenance).built_now
    assert sorted(one.name for one in tmp_path.iterdir()) == ["v.hnsw.faiss", "v.hnsw.json"]


@pytest.mark.parametrize("count", [1, 2, 11, 101])
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_tiny_corpora_have_an_index_too(tmp_path: Path, count: int, kind: Kind) -> None:
    vectors = clustered(count)
    index = open_index(tmp_path / "v.npy", vectors, MADE, kind=kind)
    assert sorted(index.recall) == [k for k in (10, 100) if k < count]
    assert index.nearest(vectors, 1).rows[:, 0].tolist() == list(range(count))


def test_errors_of_building_an_index_are_one_sentence(tmp_path: Path) -> None:
    vectors = clustered(50)
    vectors[7, 3] = np.nan
    with pytest.raises(RootnoteError, match="not finite"):
        open_index(tmp_path / "v.npy", vectors, MADE)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(
        RootnoteError, match=r"v\.hnsw\.faiss cannot be written .*; free some space, or leave --approximate"
    ):
        open_index(tmp_path / "file" / "v.npy", clustered(50), MADE)


@pytest.mark.slow
def test_a_store_finds_the_same(music: Path, collage: Path, tmp_path: Path) -> None:
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    stored = found_by(music, collage, "--top", 3, "--store", f"milvus:{tmp_path / 'store.db'}")
    assert stored.pop("store").startswith("milvus:")
    assert stored == found_by(music, collage, "--top", 3)
