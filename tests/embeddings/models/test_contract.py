"""The contract of embedders, `rootnote embeddings embed`, and what logmel must and must not detect."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import rootnote
from embeddings import embed as module
from embeddings.audio.corpus import cut, read_corpus, write_corpus
from embeddings.audio.decode import read_clip
from embeddings.embed import embed_corpus
from embeddings.errors import RootnoteError
from embeddings.models.base import Vectors, embed_clips
from embeddings.models.registry import EMBEDDERS, load_embedder
from embeddings.provenance import Provenance
from embeddings.vectors import read_projection, read_vectors
from tests.embeddings.sounds import melody, write


def clips(count: int, rate: int, seconds: float = 3.0) -> Vectors:
    return np.stack([melody(seconds, seed, rate) for seed in range(count)])


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five tracks of 2 to 7 clips and their corpus.parquet."""
    folder = tmp_path_factory.mktemp("corpus")
    for track in range(5):
        write(folder / "music" / f"{track}.{'flac' if track % 2 else 'wav'}", melody(3.5 * (track + 2), track))
    write_corpus(folder / "corpus.parquet", cut(folder / "music"))
    return folder


def run_embed(folder: Path, out: Path, *options: str, embedder: str = "logmel") -> Result:
    return CliRunner().invoke(
        rootnote.cli,
        [
            *["embeddings", "embed", "--corpus", str(folder / "corpus.parquet")],
            *["--embedder", embedder, "--out", str(out), *options],
        ],
    )


@pytest.mark.parametrize("name", sorted(EMBEDDERS))
def test_every_embedder_meets_the_contract(name: str) -> None:
    try:
        embedder = load_embedder(name)
    except RootnoteError as error:
        assert "rootnote embeddings fetch" in str(error)
        pytest.skip(f"{name} needs weights: it is tested by itself")
    batch = clips(20, embedder.sample_rate)
    features = embedder.embed(batch)
    projection = embedder.fit(features)
    vectors = embed_clips(embedder, projection, batch)
    assert vectors.shape == (20, embedder.dim)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    # The same again, in another order, one by one.
    assert (embed_clips(embedder, projection, batch) == vectors).all()
    alone = np.concatenate([embed_clips(embedder, projection, clip[None]) for clip in batch])
    assert alone == pytest.approx(vectors, abs=1e-4)
    backwards = embed_clips(embedder, projection, batch[::-1])[::-1]
    assert backwards == pytest.approx(vectors, abs=1e-4)
    json.dumps(embedder.settings())


def test_rows_of_vectors_are_rows_of_the_corpus(music: Path, tmp_path: Path) -> None:
    done = run_embed(music, tmp_path / "v.npy", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    table = pq.read_table(music / "corpus.parquet")
    assert summary["clips"] == table.num_rows == 21
    vectors, provenance = read_vectors(tmp_path / "v.npy")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert provenance.settings["embedder"] == "logmel"
    assert provenance.made_from == {"corpus": read_corpus(music / "corpus.parquet")[1].fingerprint}
    # New audio is embedded alike through what was fitted.
    embedder, projection = load_embedder("logmel"), read_projection(tmp_path / "v.npy")
    for row in (0, 7, 20):
        path, start = table["path"][row].as_py(), table["start_s"][row].as_py()
        clip = read_clip(music / "music" / path, start, 3.0, embedder.sample_rate)
        assert embed_clips(embedder, projection, clip[None])[0] == pytest.approx(vectors[row], abs=1e-4)
    run_embed(music, tmp_path / "again.npy")
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "v.npy").read_bytes()


def test_a_large_corpus_is_fitted_on_a_sample_of_its_tracks(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIT_CLIPS", 8)
    assert run_embed(music, tmp_path / "v.npy").exit_code == 0
    fitted = json.loads((tmp_path / "v.json").read_text())["fitted"]
    assert 8 <= fitted["clips"] < 21
    vectors, _ = read_vectors(tmp_path / "v.npy")
    assert vectors.shape == (21, 48)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("embedder", "options", "error_message"), [
    ("logmell", [], "there is no embedder 'logmell'; the known ones are: "),
    ("logmel", ["--checkpoint", "x.pt"], "takes no checkpoint"),
])  # fmt: skip
def test_wrong_embedders_are_refused(
    music: Path, tmp_path: Path, embedder: str, options: list[str], error_message: str
) -> None:
    done = run_embed(music, tmp_path / "v.npy", *options, embedder=embedder)
    assert done.exit_code != 0
    assert isinstance(done.exception, RootnoteError)
    assert error_message in str(done.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["gone", "changed", "spoilt"])
def test_missing_or_changed_audio_is_named(tmp_path: Path, change: str) -> None:
    for name in "ab":
        write(tmp_path / "music" / f"{name}.wav", melody(7))
    write_corpus(tmp_path / "corpus.parquet", cut(tmp_path / "music"))
    path = tmp_path / "music" / "b.wav"
    if change == "gone":
        path.unlink()
    elif change == "changed":
        write(path, melody(4))
    else:
        status = path.stat()
        path.write_bytes(b"x" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = run_embed(tmp_path, tmp_path / "out" / "v.npy")
    assert isinstance(done.exception, RootnoteError)
    assert str(path) in str(done.exception)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_vectors_that_do_not_belong_together_are_refused(music: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    assert run_embed(music, out).exit_code == 0
    np.save(out, np.load(out)[:-1])
    with pytest.raises(RootnoteError, match=r"v\.npy does not match v\.json"):
        read_vectors(out)
    (tmp_path / "v.fitted.npz").write_bytes(b"other")
    with pytest.raises(RootnoteError, match=r"v\.fitted\.npz was not made with"):
        read_projection(out)
    out.unlink()
    with pytest.raises(RootnoteError, match=r"v\.npy is missing; run"):
        read_vectors(out)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("same", [False, True])
def test_tiny_corpora_do_not_crash(tmp_path: Path, count: int, same: bool) -> None:
    for track in range(count):
        write(tmp_path / "music" / f"{track}.wav", melody(3, 0 if same else track))
    corpus = cut(tmp_path / "music")
    embed_corpus(corpus.table, corpus.provenance, tmp_path / "music", load_embedder("logmel"), tmp_path / "v.npy")
    vectors, _ = read_vectors(tmp_path / "v.npy")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    if same:
        assert vectors @ vectors.T == pytest.approx(1, abs=1e-4)


def test_an_embedder_without_a_fit_is_normalised_and_streamed(music: Path, tmp_path: Path) -> None:
    class Loudness:
        name, dim, sample_rate, fits, batch_size = "loudness", 2, 8000, False, 8

        def settings(self) -> dict[str, int]:
            return {}

        def runtime(self) -> dict[str, str]:
            return {}

        def embed(self, batch: Vectors) -> Vectors:
            return np.stack([np.abs(batch).mean(axis=1), batch.std(axis=1)], axis=1)

        def fit(self, features: Vectors) -> None:
            raise AssertionError("not asked for")

    table, provenance = read_corpus(music / "corpus.parquet")
    seen: list[tuple[int, int]] = []
    made = embed_corpus(
        table, provenance, music / "music", Loudness(), tmp_path / "v.npy", progress=lambda *now: seen.append(now)
    )
    assert isinstance(made, Provenance)
    assert seen[-1] == (21, 21)
    assert read_projection(tmp_path / "v.npy") is None
    assert np.linalg.norm(np.load(tmp_path / "v.npy"), axis=1) == pytest.approx(1, abs=1e-6)


def test_logmel_finds_the_original_of_an_altered_clip() -> None:
    embedder = load_embedder("logmel")
    rate, rng = embedder.sample_rate, np.random.default_rng(1)
    batch = clips(60, rate)
    projection = embedder.fit(embedder.embed(batch))
    vectors = embed_clips(embedder, projection, batch)
    noise = rng.standard_normal(batch.shape) * np.sqrt(np.square(batch).mean(axis=1, keepdims=True))
    faster = np.stack(
        [np.interp(np.arange(len(clip)) * 2 ** (1 / 12) % len(clip), np.arange(len(clip)), clip) for clip in batch]
    )
    altered = {"noise": batch + noise * 10 ** (-18 / 20), "louder": batch * 2, "a semitone up": faster}
    for name, queries in altered.items():
        found = embed_clips(embedder, projection, queries.astype(np.float32)) @ vectors.T
        assert (found.argmax(axis=1) == np.arange(60)).mean() >= 0.95, name
