"""A Milvus store gives the same bytes as a search of the file, or a one-sentence error.

The store is the embedded one, which uses the same client as a cluster.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from milvus_lite.db import MilvusLite
from milvus_lite.server_manager import server_manager_instance
from pymilvus import DataType, MilvusClient

from embeddings.errors import RootnoteError
from embeddings.provenance import Provenance
from embeddings.search import milvus, milvus_store
from embeddings.search.exact import nearest
from embeddings.search.milvus import nearest_in, put_vectors

pytestmark = pytest.mark.slow

DIM, ROWS, BLOCK = 32, 3000, 700
PROVENANCE = Provenance("vectors", {"embedder": "test"}, {"corpus": "one"})


def unit(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(seed: int = 0, rows: int = ROWS) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, DIM))
    return unit(centres[rng.integers(0, 20, rows)] + 0.4 * rng.standard_normal((rows, DIM)))


def same(found: Any, expected: Any) -> None:
    assert found.rows.dtype == expected.rows.dtype and found.scores.dtype == expected.scores.dtype
    assert (found.rows == expected.rows).all()
    assert found.scores.tobytes() == expected.scores.tobytes()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_store, "_INSERT_BYTES", 4 * DIM * BLOCK)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"milvus:{tmp_path_factory.mktemp('milvus')}/vectors.db"


@pytest.fixture
def own(tmp_path: Path) -> str:
    return f"milvus:{tmp_path}/own.db"


@contextlib.contextmanager
def looking_into(store: str) -> Iterator[MilvusClient]:
    path = store.removeprefix("milvus:")
    client = MilvusClient(path)
    try:
        yield client
    finally:
        client.close()
        server_manager_instance.release_server(path)


class Steps:
    """A progress function that records its calls and can stop the work."""

    def __init__(self, stop_after: int = 1 << 60) -> None:
        self.seen: list[int] = []
        self._stop_after = stop_after

    def __call__(self, done: int, total: int) -> None:
        self.seen.append(done)
        if len(self.seen) >= self._stop_after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("k", [1, 10, 600])
def test_the_neighbours_are_those_of_the_file(store: str, k: int) -> None:
    vectors = clustered()
    queries = np.concatenate([vectors[:7], clustered(1, 6)])
    same(nearest_in(store, PROVENANCE, vectors, queries, k), nearest(vectors, queries, k))


def test_vectors_of_half_precision_too(store: str, tmp_path: Path) -> None:
    half = clustered().astype(np.float16)
    np.save(tmp_path / "half.npy", half)
    mapped = np.load(tmp_path / "half.npy", mmap_mode="r")
    same(
        nearest_in(store, PROVENANCE, mapped, clustered(1, 5), 20),
        nearest(half.astype(np.float32), clustered(1, 5), 20),
    )


def test_k_can_be_all_rows(store: str) -> None:
    vectors = clustered(2, 40)
    same(nearest_in(store, PROVENANCE, vectors, vectors[:3], 40), nearest(vectors, vectors[:3], 40))


def duplicated() -> npt.NDArray[np.float32]:
    """Rows 100 to 1,699 are copies of row 5, so 1,601 rows tie as nearest to it."""
    vectors = clustered(3)
    vectors[100:1700] = vectors[5]
    return vectors


def test_ties_at_the_last_place_are_broken_by_row(store: str) -> None:
    vectors = duplicated()
    found = nearest_in(store, PROVENANCE, vectors, vectors[4:7], 30)
    assert found.rows[1].tolist() == [5, *range(100, 129)]
    assert found.scores.tobytes() == nearest(vectors, vectors[4:7], 30).scores.tobytes()


def test_more_ties_than_milvus_returns_are_resolved_from_the_file(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    propose = milvus_store.Collection.propose

    def noting(self: Any, queries: Any, limit: int) -> Any:
        asked.append(limit)
        return propose(self, queries, limit)

    monkeypatch.setattr(milvus, "LARGEST_K", 500)
    monkeypatch.setattr(milvus_store.Collection, "propose", noting)
    vectors = duplicated()
    found = nearest_in(store, PROVENANCE, vectors, vectors[5:6], 30)
    assert asked == [63, 252, 500]
    assert found.scores.tobytes() == nearest(vectors, vectors[5:6], 30).scores.tobytes()
    assert (vectors[found.rows[0]] == vectors[5]).all() and len(set(found.rows[0].tolist())) == 30


def test_interrupted_filling_continues_where_it_stopped(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered()
    with pytest.raises(KeyboardInterrupt):
        put_vectors(own, vectors, PROVENANCE, progress=Steps(stop_after=3))
    replaced: list[int] = []
    upsert = MilvusClient.upsert

    def noting(self: Any, name: str, data: list[dict[str, Any]], **options: Any) -> Any:
        replaced.extend((data[0]["row"], data[-1]["row"] + 1))
        return upsert(self, name, data, **options)

    monkeypatch.setattr(MilvusClient, "upsert", noting)
    again = Steps()
    put_vectors(own, vectors, PROVENANCE, progress=again)
    assert again.seen == [3 * BLOCK, 4 * BLOCK, ROWS], "the last block is written again, because it may be incomplete"
    assert replaced == [2 * BLOCK, 3 * BLOCK, 3 * BLOCK, 4 * BLOCK], "a server keeps what is inserted twice"
    idle = Steps()
    put_vectors(own, vectors, PROVENANCE, progress=idle)
    assert idle.seen == []
    same(nearest_in(own, PROVENANCE, vectors, vectors[:5], 20), nearest(vectors, vectors[:5], 20))


def test_a_store_that_disappears_midway_keeps_copied_rows(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_store, "_CALL_SECONDS", 2)
    vectors = clustered()

    def leave(done: int, total: int) -> None:
        if done == 2 * BLOCK:
            server_manager_instance.release_server(own.removeprefix("milvus:"))

    with pytest.raises(
        RootnoteError,
        match=r"^Milvus at .*own\.db stopped answering .*; run the command again",
    ):
        put_vectors(own, vectors, PROVENANCE, progress=leave)
    again = Steps()
    put_vectors(own, vectors, PROVENANCE, progress=again)
    assert again.seen[0] == 2 * BLOCK
    same(nearest_in(own, PROVENANCE, vectors, vectors[:5], 20), nearest(vectors, vectors[:5], 20))


KILLED = """
import sys, time
from embeddings.search import milvus_store
from embeddings.search.milvus import put_vectors
from tests.embeddings.search.test_milvus import BLOCK, DIM, PROVENANCE, clustered
milvus_store._INSERT_BYTES = 4 * DIM * BLOCK
def slowly(done, total):
    print(done, flush=True)
    time.sleep(0.3 if done < 2 * BLOCK else 60)
put_vectors(sys.argv[1], clustered(), PROVENANCE, progress=slowly)
"""


def test_nothing_is_lost_when_filling_is_killed(tmp_path: Path) -> None:
    store = f"milvus:{tmp_path}/killed.db"
    process = subprocess.Popen([sys.executable, "-c", KILLED, store], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as lines:
        assert [int(next(lines)) for _ in range(2)] == [BLOCK, 2 * BLOCK]
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = Steps()
    vectors = clustered()
    found = nearest_in(store, PROVENANCE, vectors, vectors[:5], 20, progress=again)
    same(found, nearest(vectors, vectors[:5], 20))
    assert again.seen[0] == 2 * BLOCK


def test_a_partial_collection_with_a_gap_is_refilled(own: str) -> None:
    vectors = clustered()
    with pytest.raises(KeyboardInterrupt):
        put_vectors(own, vectors, PROVENANCE, progress=Steps(stop_after=3))
    with looking_into(own) as client:
        (part,) = client.list_collections()
        client.load_collection(part)
        client.delete(part, filter="row >= 10 and row < 13")
    again = Steps()
    put_vectors(own, vectors, PROVENANCE, progress=again)
    assert again.seen[0] == BLOCK
    same(nearest_in(own, PROVENANCE, vectors, vectors[8:14], 20), nearest(vectors, vectors[8:14], 20))


def test_other_vectors_get_another_collection(own: str) -> None:
    vectors, other = clustered(), clustered(9)
    put_vectors(own, vectors, PROVENANCE)
    newer = Provenance("vectors", {"embedder": "test"}, {"corpus": "two"})
    for provenance, rows in ((newer, vectors), (PROVENANCE, other), (PROVENANCE, vectors.astype(np.float16))):
        steps = Steps()
        put_vectors(own, rows, provenance, progress=steps)
        assert steps.seen, "the existing collection was reused"
    same(nearest_in(own, PROVENANCE, other, other[:5], 20), nearest(other, other[:5], 20))
    same(nearest_in(own, PROVENANCE, vectors, vectors[:5], 20), nearest(vectors, vectors[:5], 20))


def test_a_collection_with_another_schema_is_refused(own: str) -> None:
    vectors = clustered()
    put_vectors(own, vectors, PROVENANCE)
    with looking_into(own) as client:
        (name,) = client.list_collections()
        client.drop_collection(name)
        schema = client.create_schema(auto_id=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="L2")
        client.create_collection(name, schema=schema, index_params=index)
    with pytest.raises(RootnoteError, match=rf"^the collection {name} of Milvus at .*own\.db does not contain these"):
        nearest_in(own, PROVENANCE, vectors, vectors[:2], 3)


def test_rows_that_differ_from_the_file_are_detected(store: str) -> None:
    vectors = clustered(4)
    put_vectors(store, vectors, PROVENANCE)
    damaged = vectors.copy()
    damaged[1001] = unit(damaged[1001:1002] + 0.01)[0]
    with pytest.raises(RootnoteError, match="does not contain these vectors"):
        nearest_in(store, PROVENANCE, damaged, damaged[1001:1002], 5)


def test_a_value_that_is_not_finite_is_not_copied(own: str) -> None:
    vectors = clustered()
    vectors[1000, 3] = np.nan
    with pytest.raises(RootnoteError, match=f"not finite, at row {BLOCK} or later"):
        put_vectors(own, vectors, PROVENANCE)


@pytest.mark.parametrize(
    ("k", "sentence"),
    [
        (16_385, "^16,385 neighbours .* at most 16,384"),
        (ROWS + 1, "3,001 neighbours .* only 3,000 clips"),
        (0, "at least 1"),
    ],
)
def test_invalid_queries_are_refused(k: int, sentence: str) -> None:
    vectors = clustered()
    with pytest.raises(RootnoteError, match=sentence):
        nearest_in("milvus:http://127.0.0.1:9", PROVENANCE, vectors, vectors[:2], k)


def test_a_store_that_does_not_answer_is_named_without_its_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(RootnoteError) as caught:
        put_vectors(f"milvus:http://ann:secret@127.0.0.1:{port}", clustered(), PROVENANCE)
    assert time.monotonic() - began < 10
    where = f"http://127.0.0.1:{port}"
    assert f"Milvus at {where} does not answer" in str(caught.value)
    assert "--store" in str(caught.value)


def test_a_server_other_than_milvus_fails_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_store, "_CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(RootnoteError, match="does not answer"):
            put_vectors(f"milvus:http://127.0.0.1:{silent.getsockname()[1]}", clustered(), PROVENANCE)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("store", ["vectors.db", "milvus:vectors.sqlite", "milvus:http://", "faiss:vectors.db"])
def test_an_invalid_store_is_refused(store: str) -> None:
    with pytest.raises(RootnoteError, match=r"give milvus:FILE\.db or milvus:http://HOST:PORT\.$"):
        put_vectors(store, clustered(), PROVENANCE)


def test_a_store_that_another_process_has_open_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        MilvusLite(str(tmp_path / "held.db")),
        pytest.raises(RootnoteError, match=r"held\.db cannot be opened as a Milvus store: another process has it"),
    ):
        put_vectors(f"milvus:{tmp_path}/held.db", clustered(), PROVENANCE)
    assert capfd.readouterr().err == ""


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(RootnoteError, match=r"pymilvus is missing; run `pip install 'rootnote\[cluster\]'`"):
        put_vectors(f"milvus:{tmp_path}/v.db", clustered(), PROVENANCE)
