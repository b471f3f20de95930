"""Nearest clips equal a float64 brute force except for ties, whatever the block size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.errors import RootnoteError
from embeddings.search.exact import nearest


def unit_rows(count: int, dim: int, seed: int) -> npt.NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(2, 300),
    dim=st.integers(2, 24),
    share=st.floats(0, 1),
    leave_out=st.sampled_from(["none", "own", "some"]),
    duplicates=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equal_to_brute_force(count: int, dim: int, share: float, leave_out: str, duplicates: bool, seed: int) -> None:
    vectors = unit_rows(count, dim, seed)
    if duplicates:
        vectors[count // 2 :] = vectors[: count - count // 2]
    prompts = np.random.default_rng(seed).permutation(count)[:10]
    exclude = {"none": None, "own": prompts, "some": np.where(prompts % 2, prompts, -1)}[leave_out]
    k = max(1, round(share * (count - 1)))
    found = nearest(vectors, vectors[prompts], k, exclude=exclude)
    assert found.scores.dtype == np.float32
    assert found.rows.dtype == np.int64
    assert found.scores.shape == found.rows.shape == (len(prompts), k)
    exact = vectors[prompts].astype(np.float64) @ vectors.T.astype(np.float64)
    truth = exact.copy()
    if exclude is not None:
        truth[np.arange(len(prompts)), exclude] = np.where(
            exclude >= 0, -np.inf, truth[np.arange(len(prompts)), exclude]
        )
        assert not (found.rows == np.where(exclude >= 0, exclude, -2)[:, None]).any()
    assert found.scores == pytest.approx(-np.sort(-truth, axis=1)[:, :k], abs=1e-6)
    assert np.take_along_axis(exact, found.rows, axis=1) == pytest.approx(found.scores, abs=1e-6)
    assert all(len(set(rows)) == k for rows in found.rows.tolist())
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_a_memory_mapped_file_gives_the_same(tmp_path: Path) -> None:
    vectors = unit_rows(5000, 16, 0)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    whole = nearest(vectors, vectors[:30], 700)
    blocks = nearest(mapped, vectors[:30], 700)
    assert (whole.rows == blocks.rows).all()
    assert whole.scores == pytest.approx(blocks.scores, abs=1e-6)


def test_invalid_queries_are_refused() -> None:
    vectors = unit_rows(5, 4, 0)
    with pytest.raises(RootnoteError, match="5 neighbours requested, but there are only 4 clips"):
        nearest(vectors, vectors[:2], 5, exclude=[0, 1])
    with pytest.raises(RootnoteError, match="at least 1"):
        nearest(vectors, vectors[:2], 0)
    with pytest.raises(RootnoteError, match="one row for each of the 2 queries"):
        nearest(vectors, vectors[:2], 1, exclude=[0])
    with pytest.raises(RootnoteError, match="outside 0 to 4"):
        nearest(vectors, vectors[:2], 1, exclude=[0, 5])
    with pytest.raises(RootnoteError, match="different dimensions"):
        nearest(vectors, vectors[:2, :3], 1)
    damaged = vectors.copy()
    damaged[3, 1] = np.nan
    with pytest.raises(RootnoteError, match="not finite"):
        nearest(damaged, vectors[:2], 1)
    with pytest.raises(RootnoteError, match="query"):
        nearest(vectors, damaged, 1)
    assert nearest(vectors, vectors[:0], 3).rows.shape == (0, 3)
