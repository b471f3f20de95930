"""A cluster writes the same bytes as one machine, even if workers or the driver die."""

from __future__ import annotations

import functools
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

from embeddings import embed as pipeline
from embeddings.audio.corpus import cut, read_corpus, write_corpus
from embeddings.distributed import embed as cluster
from embeddings.distributed import pool
from embeddings.distributed.embed import embed_on_cluster
from embeddings.distributed.ray_connection import QUIET
from embeddings.embed import embed_corpus
from embeddings.errors import RootnoteError
from embeddings.models.base import ModelOptions, Vectors
from embeddings.models.registry import load_embedder
from tests.embeddings.sounds import melody, write

pytestmark = [
    pytest.mark.slow,
    # Ray's own settings warn of each other as they are made.
    pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray"),
]

BATCH, SHARD, CLIPS = 4, 8, 27
ROW = 4 * 20


class Spectrum:
    """A small embedder; it writes a line to `log` for each batch and calls `before` with the batch."""

    name, dim, sample_rate, batch_size, fits, light = "spectrum", 20, 8000, BATCH, False, True

    def __init__(self, log: Path, before: Callable[[Vectors], None] | None = None, version: int = 1) -> None:
        self._log, self._before, self._version = log, before, version

    def settings(self) -> dict[str, Any]:
        return {"version": 1}

    def runtime(self) -> dict[str, str]:
        return {"backend": "numpy", "version": str(self._version)}

    def embed(self, batch: Vectors) -> Vectors:
        if self._before:
            self._before(batch)
        with self._log.open("a") as log:
            log.write(f"{len(batch)}\n")
        return np.abs(np.fft.rfft(batch, axis=1)[:, 1:2001]).reshape(len(batch), 20, -1).mean(axis=2).astype(np.float32)

    def fit(self, features: Vectors) -> None:
        raise AssertionError("not asked for")


# What workers load: functions, which they find in this module by name.


def plain(log: Path, name: str, options: ModelOptions) -> Spectrum:
    return Spectrum(log)


def slow(log: Path, name: str, options: ModelOptions) -> Spectrum:
    return Spectrum(log, lambda _: time.sleep(0.25))


def dies_once(log: Path, name: str, options: ModelOptions) -> Spectrum:
    def die(_: Vectors) -> None:
        if log.exists() and len(log.read_text().splitlines()) >= 3 and not log.with_suffix(".died").exists():
            log.with_suffix(".died").touch()
            os._exit(1)

    return Spectrum(log, die)


def _is_second_track(batch: Vectors) -> bool:
    """The second track has another loudness, see `music`."""
    return bool((np.abs(batch).max(axis=1) > 0.9).any())


def dies_of_one_clip(log: Path, name: str, options: ModelOptions) -> Spectrum:
    return Spectrum(log, lambda batch: os._exit(1) if _is_second_track(batch) else None)


def refuses_one_clip(log: Path, name: str, options: ModelOptions) -> Spectrum:
    def refuse(batch: Vectors) -> None:
        if _is_second_track(batch):
            raise RootnoteError("the loud one is refused.")

    return Spectrum(log, refuse)


def differs_by_process(log: Path, name: str, options: ModelOptions) -> Spectrum:
    return Spectrum(log, version=os.getpid())


def loses_storage(log: Path, name: str, options: ModelOptions) -> Spectrum:
    return Spectrum(log, lambda _: [path.unlink(missing_ok=True) for path in log.parent.glob("*.shards/run")] and None)


def cannot_load(log: Path, name: str, options: ModelOptions) -> Spectrum:
    raise RootnoteError("there is no checkpoint.")


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    # The paths of Ray's sockets must be short.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    with pytest.MonkeyPatch.context() as environment:
        # A token in the environment keeps Ray from writing one to the home folder.
        for name, value in {**QUIET, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}.items():
            environment.setenv(name, value)
        import ray

        context = ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 << 20,
            _temp_dir=folder,
        )
        yield context.address_info["address"]
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for track in range(6):
        samples = melody(3.2 * (track + 2), track)
        loud = 0.99 if track == 1 else 0.5
        write(folder / "music" / f"{track}.wav", samples / np.abs(samples).max() * np.float32(loud))
    corpus = cut(folder / "music")
    assert corpus.table.num_rows == CLIPS
    write_corpus(folder / "corpus.parquet", corpus)
    return folder


@pytest.fixture
def on_cluster(ray_address: str, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Embed the corpus of `music` to tmp_path/v.npy with a loader of this module."""

    def embed(load: Callable[..., Spectrum], **options: Any) -> Path:
        monkeypatch.setattr(cluster, "load_embedder", functools.partial(load, tmp_path / "log"))
        table, provenance = read_corpus(music / "corpus.parquet")
        out = tmp_path / "v.npy"
        given = {"address": "auto", "shard_rows": SHARD, "cores_per_worker": 1, **options}
        embed_on_cluster(table, provenance, music / "music", "spectrum", ModelOptions(), out, **given)
        return out

    return embed


def on_one(music: Path, out: Path, **options: Any) -> Path:
    table, provenance = read_corpus(music / "corpus.parquet")
    embed_corpus(table, provenance, music / "music", Spectrum(out.parent / "log"), out, **options)
    return out


@pytest.fixture(scope="module")
def expected(music: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return on_one(music, tmp_path_factory.mktemp("one") / "v.npy").read_bytes()


def batches(folder: Path) -> int:
    return len((folder / "log").read_text().splitlines())


def test_logmel_gives_the_bytes_of_one_machine(
    ray_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for track in range(5):
        write(tmp_path / "music" / f"{track}.wav", melody(100, track, 8000), 8000)
    corpus = cut(tmp_path / "music")
    assert corpus.table.num_rows == 165, "two whole shards of 64 clips and a short one"
    monkeypatch.setattr(pipeline, "FIT_CLIPS", 50)
    one, many = tmp_path / "one" / "v.npy", tmp_path / "many" / "v.npy"
    embed_corpus(corpus.table, corpus.provenance, tmp_path / "music", load_embedder("logmel"), one)
    seen: list[int] = []
    made = embed_on_cluster(
        corpus.table,
        corpus.provenance,
        tmp_path / "music",
        "logmel",
        ModelOptions(),
        many,
        address="auto",
        shard_rows=64,
        cores_per_worker=1,
        progress=lambda done, total: seen.append(done) if total == 165 else None,
    )
    assert sorted(path.name for path in many.parent.iterdir()) == ["v.fitted.npz", "v.json", "v.npy"]
    for name in ("v.fitted.npz", "v.json", "v.npy"):
        assert (many.parent / name).read_bytes() == (one.parent / name).read_bytes(), name
    assert made.settings["embedder"] == "logmel"
    assert seen == sorted(seen) and seen[-1] == 165


@pytest.mark.soak  # as float32 does, above
def test_half_precision_gives_the_bytes_of_one_machine(
    on_cluster: Callable[..., Path], music: Path, tmp_path: Path
) -> None:
    one = on_one(music, tmp_path / "one.npy", dtype="float16")
    assert on_cluster(plain, dtype="float16").read_bytes() == one.read_bytes()


def test_a_driver_outside_the_cluster_gets_the_same(
    on_cluster: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, expected: bytes
) -> None:
    monkeypatch.setattr(pool, "_is_outside", lambda _: True)
    assert on_cluster(plain).read_bytes() == expected


def test_a_worker_that_dies_midway_is_replaced(
    on_cluster: Callable[..., Path], tmp_path: Path, expected: bytes
) -> None:
    assert on_cluster(dies_once).read_bytes() == expected
    assert (tmp_path / "log.died").exists()
    assert batches(tmp_path) <= 7 + 1, "at most the batches of the shard it was at are embedded twice"


def test_a_shard_that_kills_every_worker_is_named_and_the_others_are_kept(
    on_cluster: Callable[..., Path], tmp_path: Path, expected: bytes
) -> None:
    with pytest.raises(
        RootnoteError, match=r"^rows 0 to 8 \(from 0\.wav\) crashed the worker 3 times, .* same command"
    ):
        on_cluster(dies_of_one_clip)
    before = batches(tmp_path)
    assert on_cluster(plain).read_bytes() == expected
    assert batches(tmp_path) == before + 2, "only its own two batches were left"


def test_a_failed_shard_is_named_and_a_damaged_one_is_embedded_again(
    on_cluster: Callable[..., Path], tmp_path: Path, expected: bytes
) -> None:
    with pytest.raises(RootnoteError, match=r"^on node \S+: the loud one is refused; .* run the same command again"):
        on_cluster(refuses_one_clip)
    (folder,) = tmp_path.glob("v.*.shards")
    waiting = sorted(folder.glob("*.rows"))
    assert [path.name for path in waiting] == [f"{begin:012}-{min(begin + 8, 27):012}.rows" for begin in (8, 16, 24)]
    content = bytearray(waiting[1].read_bytes())
    content[100] ^= 1
    waiting[1].write_bytes(content)
    waiting[2].write_bytes(waiting[2].read_bytes()[:-1])
    before = batches(tmp_path)
    assert on_cluster(plain).read_bytes() == expected
    assert batches(tmp_path) == before + 2 + 2 + 1
    assert sorted(path.name for path in tmp_path.glob("v.*")) == ["v.json", "v.npy"]


def test_it_continues_where_one_machine_stopped(
    on_cluster: Callable[..., Path], music: Path, tmp_path: Path, expected: bytes
) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 3 * BATCH:
            raise StoppedError

    with pytest.raises(StoppedError):
        on_one(music, tmp_path / "v.npy", progress=stop)
    (tmp_path / "log").unlink()
    assert on_cluster(plain).read_bytes() == expected
    assert batches(tmp_path) == 2 + 2 + 1, "the shard of which half is there is embedded whole"


KILLED = """
import sys, functools
from pathlib import Path
from embeddings.distributed import embed as cluster
from embeddings.audio.corpus import read_corpus
from embeddings.models.base import ModelOptions
from tests.embeddings.distributed.test_embed import SHARD, slow
address, music, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
cluster.load_embedder = functools.partial(slow, out.parent / "log")
table, provenance = read_corpus(music / "corpus.parquet")
cluster.embed_on_cluster(table, provenance, music / "music", "spectrum", ModelOptions(), out, address=address,
                         shard_rows=SHARD, cores_per_worker=1)
"""


def test_a_killed_driver_loses_no_finished_shard(
    on_cluster: Callable[..., Path], ray_address: str, music: Path, tmp_path: Path, expected: bytes
) -> None:
    out = tmp_path / "v.npy"
    process = subprocess.Popen([sys.executable, "-c", KILLED, ray_address, str(music), str(out)])
    try:
        while not kept(tmp_path):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(1)  # workers of a driver that is gone end
    done, before = kept(tmp_path), batches(tmp_path)
    assert not out.exists() and 1 <= done < 4
    assert on_cluster(slow).read_bytes() == expected
    assert batches(tmp_path) - before == sum(-(-min(SHARD, CLIPS - begin) // BATCH) for begin in missing(done))


def kept(folder: Path) -> int:
    """The finished shards: merged ones and waiting ones."""
    merged = sum(max(0, path.stat().st_size - 128) // (SHARD * ROW) for path in folder.glob("v.*.part"))
    return merged + len(list(folder.glob("v.*.shards/0*.rows")))


def missing(done: int) -> list[int]:
    return list(range(0, CLIPS, SHARD))[done:]


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        (differs_by_process, r"^on node \S+: it would run spectrum with .*; install the same versions on all nodes"),
        pytest.param(
            loses_storage,
            r"^on node \S+: it does not see \S+\.shards; music and output must be on storage",
            marks=pytest.mark.soak,
        ),
        (cannot_load, r"^on node \S+: there is no checkpoint\.$"),
    ],
)
def test_a_node_that_cannot_embed_is_named(
    on_cluster: Callable[..., Path], load: Callable[..., Spectrum], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(RootnoteError, match=sentence):
        on_cluster(load)


def test_cuda_without_a_gpu_in_the_cluster_is_refused(
    ray_address: str, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, provenance = read_corpus(music / "corpus.parquet")
    with pytest.raises(RootnoteError, match=r"^--backend cuda: no node of the cluster has a GPU"):
        embed_on_cluster(
            table, provenance, music / "music", "clap", ModelOptions(backend="cuda"), tmp_path / "v.npy", address="auto"
        )


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:9", "^--cluster 127.0.0.1:9: no Ray cluster was reached there"),
        ("ray://127.0.0.1:9", "^--cluster ray://127.0.0.1:9: no Ray cluster was reached there"),
        ("cluster", "^--cluster cluster: give auto, local, HOST:PORT or ray://HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_named(music: Path, tmp_path: Path, address: str, sentence: str) -> None:
    table, provenance = read_corpus(music / "corpus.parquet")
    with pytest.raises(RootnoteError, match=sentence):
        embed_on_cluster(
            table, provenance, music / "music", "logmel", ModelOptions(), tmp_path / "v.npy", address=address
        )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    table, provenance = read_corpus(music / "corpus.parquet")
    with pytest.raises(RootnoteError, match=r"ray is missing; run `pip install 'rootnote\[cluster\]'`"):
        embed_on_cluster(
            table, provenance, music / "music", "logmel", ModelOptions(), tmp_path / "v.npy", address="auto"
        )
