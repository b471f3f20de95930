"""Embedding a corpus: finished batches survive interruptions, and the final file is the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from embeddings import embed as pipeline
from embeddings.audio.corpus import CutSettings, cut, read_corpus, write_corpus
from embeddings.embed import embed_corpus, embed_rows
from embeddings.errors import RootnoteError
from embeddings.models.base import Projection, Vectors
from embeddings.vectors import read_vectors
from tests.commands import run
from tests.embeddings.sounds import melody, write

BATCH = 4
CLIPS = 21


class Spectrum:
    """A small embedder that counts its batches; each takes `pause` seconds."""

    name, dim, sample_rate, batch_size = "spectrum", 8, 8000, BATCH

    def __init__(self, fits: bool = False, pause: float = 0) -> None:
        self.fits, self.pause, self.batches = fits, pause, 0

    def settings(self) -> dict[str, Any]:
        return {"version": 1}

    def runtime(self) -> dict[str, str]:
        return {"backend": "numpy"}

    def embed(self, batch: Vectors) -> Vectors:
        self.batches += 1
        time.sleep(self.pause)
        return np.abs(np.fft.rfft(batch, axis=1)[:, 1:2001]).reshape(len(batch), 20, -1).mean(axis=2).astype(np.float32)

    def fit(self, features: Vectors) -> Projection | None:
        if not self.fits:
            raise AssertionError("not asked for")
        rng = np.random.default_rng(0)
        return Projection(features.mean(axis=0), rng.standard_normal((20, 8)).astype(np.float32))


class Plain(Spectrum):
    """The same without fitting."""

    dim = 20


SPECTRA = {"fitted": lambda pause=0.0: Spectrum(True, pause), "plain": lambda pause=0.0: Plain(False, pause)}


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for track in range(5):
        write(folder / "music" / f"{track}.flac", melody(3.5 * (track + 2), track))
    write_corpus(folder / "corpus.parquet", cut(folder / "music"))
    return folder


def embed(folder: Path, embedder: Spectrum, out: Path, **options: Any) -> Path:
    table, provenance = read_corpus(folder / "corpus.parquet")
    embed_corpus(table, provenance, folder / "music", embedder, out, **options)
    return out


KILLED = """
import sys
from pathlib import Path
from tests.embeddings.test_embed import SPECTRA, embed
embed(Path(sys.argv[1]), SPECTRA[sys.argv[2]](0.15), Path(sys.argv[3]))
"""


@pytest.mark.parametrize("kind", sorted(SPECTRA))
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_killed_run_loses_at_most_one_batch_and_ends_the_same(
    music: Path, tmp_path: Path, kind: str, after: int
) -> None:
    whole = embed(music, SPECTRA[kind](), tmp_path / "whole" / "v.npy")
    out = tmp_path / "out" / "v.npy"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(music), kind, str(out)])
    row = 4 * 20
    try:
        while sum(path.stat().st_size for path in out.parent.glob("*.part")) < after * BATCH * row:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists() and not out.with_suffix(".json").exists()
    embedder = SPECTRA[kind]()
    embed(music, embedder, out)
    assert out.read_bytes() == whole.read_bytes()
    batches = -(-CLIPS // BATCH)
    # One batch more is embedded of silence, to know how many features there are.
    assert embedder.batches <= batches - after + 1
    assert sorted(path.name for path in out.parent.iterdir()) == sorted(path.name for path in whole.parent.iterdir())


def test_another_model_does_not_continue_this_part(music: Path, tmp_path: Path) -> None:
    class Stops(Plain):
        def embed(self, batch: Vectors) -> Vectors:
            if self.batches == 2:
                raise RootnoteError("stopped")
            return super().embed(batch)

    class Other(Plain):
        def settings(self) -> dict[str, Any]:
            return {"version": 2}

    out = tmp_path / "v.npy"
    with pytest.raises(RootnoteError, match="stopped"):
        embed(music, Stops(), out)
    kept = list(tmp_path.iterdir())
    assert len(kept) == 1 and kept[0].suffix == ".part", "what was finished is kept"
    half = embed(music, Other(), tmp_path / "elsewhere" / "v.npy").read_bytes()
    other = Other()
    assert embed(music, other, out).read_bytes() == half
    assert other.batches == -(-CLIPS // BATCH), "it started again"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["v.json", "v.npy"]


@pytest.mark.parametrize("spoil", [b"", b"not a header", None])
def test_a_damaged_part_is_started_again(music: Path, tmp_path: Path, spoil: bytes | None) -> None:
    whole = embed(music, Plain(), tmp_path / "whole" / "v.npy").read_bytes()
    table, provenance = read_corpus(music / "corpus.parquet")
    run = pipeline.EmbeddingRun.of(table, provenance, Plain(), tmp_path / "v.npy", "float32")
    # A tail that was torn in the middle of a row counts for nothing.
    run.part.write_bytes(whole[: 128 + 4 * 20 * BATCH + 13] if spoil is None else spoil)
    embedder = Plain()
    assert embed(music, embedder, tmp_path / "v.npy").read_bytes() == whole
    assert embedder.batches == -(-CLIPS // BATCH) - (spoil is None)


def test_half_precision_needs_half_the_space(music: Path, tmp_path: Path) -> None:
    single, half = (embed(music, Plain(), tmp_path / f"{dtype}.npy", dtype=dtype) for dtype in pipeline.DTYPES)
    assert half.stat().st_size - 128 == (single.stat().st_size - 128) / 2
    vectors, _ = read_vectors(half)
    assert vectors.dtype == np.float16
    assert np.asarray(vectors, np.float32) == pytest.approx(np.load(single), abs=1e-3)
    record = json.loads(half.with_suffix(".json").read_text())
    assert record["dtype"] == "float16" and record["runtime"] == {"backend": "numpy"}


def test_any_range_of_rows_is_the_same_as_in_the_whole(music: Path, tmp_path: Path) -> None:
    whole = np.load(embed(music, Plain(), tmp_path / "v.npy"))
    table, _ = read_corpus(music / "corpus.parquet")
    for begin, end in ((0, 4), (4, 13), (8, 21), (20, 21)):
        rows = np.concatenate(list(embed_rows(table, music / "music", Plain(), None, begin, end)))
        assert (rows == whole[begin:end]).all()
    with pytest.raises(ValueError, match="multiple of 4"):
        next(embed_rows(table, music / "music", Plain(), None, 3, 8))


def test_a_value_that_is_not_finite_is_traced_to_its_clip(music: Path, tmp_path: Path) -> None:
    class Spoilt(Plain):
        def embed(self, batch: Vectors) -> Vectors:
            features = super().embed(batch)
            if self.batches == 2:
                features[1, 3] = np.nan
            return features

    with pytest.raises(RootnoteError, match=r"spectrum gave a value that is not finite for 2\.flac at 0 s"):
        embed(music, Spoilt(), tmp_path / "v.npy")


def test_a_full_disk_is_refused_before_the_work(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    embedder = Plain()
    with pytest.raises(RootnoteError, match=r"has 0\.0 GB free, but the vectors need"):
        embed(music, embedder, tmp_path / "v.npy")
    assert embedder.batches == 0
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, signal, sys
from pathlib import Path
from embeddings.errors import RootnoteError
from tests.embeddings.test_embed import Plain, embed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
try:
    embed(Path(sys.argv[1]), Plain(), Path(sys.argv[2]))
except RootnoteError as error:
    print(error)
    sys.exit(1)
"""


def test_a_write_that_fails_midway_keeps_the_batches_before_it(music: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    done = subprocess.run([sys.executable, "-c", FULL, str(music), str(out)], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "cannot be written (File too large); run the same command again." in done.stdout
    embedder = Plain()
    embed(music, embedder, out)
    assert embedder.batches == -(-CLIPS // BATCH) - 2, "900 bytes held the header and two batches"
    assert (tmp_path / "v.json").exists()


def test_a_second_process_is_refused(music: Path, tmp_path: Path) -> None:
    table, provenance = read_corpus(music / "corpus.parquet")
    run = pipeline.EmbeddingRun.of(table, provenance, Plain(), tmp_path / "v.npy", "float32")
    with run.locked(), pytest.raises(RootnoteError, match="being written by another process"):
        embed(music, Plain(), tmp_path / "v.npy")


def test_a_file_that_disappears_midway_is_named_and_finished_rows_are_kept(tmp_path: Path) -> None:
    for track in range(8):
        write(tmp_path / "music" / f"{track}.wav", melody(12.5, track))
    write_corpus(tmp_path / "corpus.parquet", cut(tmp_path / "music"))

    class Removes(Plain):
        def embed(self, batch: Vectors) -> Vectors:
            (tmp_path / "music" / "7.wav").unlink(missing_ok=True)
            return super().embed(batch)

    out = tmp_path / "out" / "v.npy"
    with pytest.raises(RootnoteError, match=r"7\.wav cannot be decoded: no such file or directory"):
        embed(tmp_path, Removes(), out, workers=1)
    write(tmp_path / "music" / "7.wav", melody(12.5, 7))
    record = tmp_path / "corpus.parquet"
    status = json.loads(read_corpus(record)[0].schema.metadata[b"audio_files"])[7]
    os.utime(tmp_path / "music" / "7.wav", ns=(status[2], status[2]))
    again = Plain()
    embed(tmp_path, again, out)
    assert again.batches == 1


@pytest.mark.slow
def test_a_three_hour_file(tmp_path: Path) -> None:
    hours, rate = 3, 4000
    second = melody(60, seed=3, rate=rate)
    with soundfile.SoundFile(tmp_path / "long.flac", "w", rate, 1, "PCM_16") as file:
        for minute in range(60 * hours):
            file.write(second * (0.2 + 0.8 * minute / (60 * hours)))
    corpus = cut(tmp_path, CutSettings(3.0, 3.0, -90.0))
    assert corpus.table.num_rows == 1200 * hours
    assert corpus.table["start_s"][-1].as_py() == 3600 * hours - 3
    embed_corpus(corpus.table, corpus.provenance, tmp_path, Plain(), tmp_path / "v.npy")
    vectors, _ = read_vectors(tmp_path / "v.npy")
    # Every minute is the same music, only louder: the last clip of all is the last of the first minute.
    assert vectors[-1] @ vectors[19] > 0.9999
    assert vectors[-1] @ vectors[18] < 0.9999


@pytest.mark.parametrize(("rate", "channels"), [(192_000, 8), (8000, 1)])
def test_many_channels_and_unusual_rates(rate: int, channels: int, tmp_path: Path) -> None:
    sound = melody(6, seed=1, rate=rate)
    soundfile.write(tmp_path / "a.flac", np.stack([sound] * channels, axis=1), rate, subtype="PCM_24")
    write(tmp_path / "b.flac", melody(6, seed=1, rate=44_100))
    corpus, out = tmp_path / "corpus.parquet", tmp_path / "v.npy"
    assert run("embeddings", "cut", tmp_path, "--out", corpus).returncode == 0
    assert run("embeddings", "embed", "--corpus", corpus, "--embedder", "logmel", "--out", out).returncode == 0
    table, _ = read_corpus(corpus)
    assert table["path"].to_pylist() == ["a.flac"] * 2 + ["b.flac"] * 2
    assert np.isfinite(np.load(out)).all()
