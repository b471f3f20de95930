"""The fused scan: the exact best rows, in both forms, on easy and on adversarial data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from embeddings.errors import RootnoteError
from embeddings.search import scan_bounds as module
from embeddings.search.scan_bounds import Form, fastest_form
from embeddings.search.scan_cpu import scan
from embeddings.search.scan_gpu import scan_on

Vectors = npt.NDArray[np.float32]
COUNT, DIM = 30_000, 64
FORMS: tuple[Form, ...] = ("bf16", "fp32")


def unit(rows: npt.NDArray[np.floating]) -> Vectors:  # type: ignore[type-arg]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(count: int = COUNT, seed: int = 0) -> Vectors:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((200, DIM))
    return unit(centres[rng.integers(0, 200, count)] + 0.7 * rng.standard_normal((count, DIM)) + 0.5)


def _duplicates() -> Vectors:
    return np.repeat(clustered(COUNT // 30), 30, axis=0)


def _near_ties() -> Vectors:
    rng = np.random.default_rng(1)
    return unit(rng.standard_normal(DIM) + 1e-6 * rng.standard_normal((COUNT, DIM)))


def _two_values() -> Vectors:
    return np.eye(DIM, dtype=np.float32)[np.arange(COUNT) % 2]


def _sorted_by_score() -> Vectors:
    # The best rows come last, so a bound that follows the rows found so far is raised repeatedly.
    angles = np.linspace(np.pi, 0, COUNT)
    rows = np.zeros((COUNT, DIM), np.float32)
    rows[:, 0], rows[:, 1] = np.cos(angles), np.sin(angles)
    return rows


def _opposed() -> Vectors:
    rows = clustered()
    rows[::2] *= -1
    return rows


DATA = {
    "clustered": clustered,
    "duplicates": _duplicates,
    "near ties": _near_ties,
    "all equal": lambda: np.tile(clustered(1), (COUNT, 1)),
    "two values": _two_values,
    "sorted": _sorted_by_score,
    "opposed": _opposed,
    "tiny and huge": lambda: np.asarray(clustered() * np.logspace(-15, 10, COUNT)[:, None], np.float32),
}


def truth(vectors: Vectors, queries: Vectors, k: int) -> npt.NDArray[np.float64]:
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    return -np.sort(-scores, axis=1)[:, :k]


@pytest.mark.parametrize("kind", sorted(DATA))
@pytest.mark.parametrize("k", [1, 300, 12_000])
def test_equal_to_float64_in_both_forms(kind: str, k: int) -> None:
    vectors = DATA[kind]()
    queries = vectors[[0, 1, 17, 14_000, 29_999]]
    expected = truth(vectors, queries, k)
    # What a sum of DIM products in float32 may be off by.
    error = 2 * DIM * 2.0**-24 * np.linalg.norm(queries, axis=1, keepdims=True) * np.linalg.norm(vectors, axis=1).max()
    (scores, rows), (other_scores, other_rows) = (scan(vectors, queries, k, form) for form in FORMS)
    assert scores.tobytes() == other_scores.tobytes() and rows.tobytes() == other_rows.tobytes()
    assert (np.abs(scores - expected) <= error + 1e-30).all()
    again = np.einsum("qd,qkd->qk", queries.astype(np.float64), vectors[rows].astype(np.float64))
    assert (np.abs(again - scores) <= error + 1e-30).all()
    assert all(len(set(line)) == k for line in rows.tolist())
    same = np.diff(scores, axis=1) == 0
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (np.diff(rows, axis=1)[same] > 0).all(), "equal scores are in the order of their rows"


def test_ties_are_broken_by_row() -> None:
    vectors = np.tile(clustered(1), (COUNT, 1))
    _, rows = scan(vectors, vectors[:3], 500)
    assert (rows == np.arange(500)).all()


@pytest.mark.parametrize("k", [COUNT, COUNT - 1, 20_000])
def test_k_can_be_almost_all_rows(k: int) -> None:
    vectors = clustered()
    scores, rows = scan(vectors, vectors[:2], k)
    assert scores == pytest.approx(truth(vectors, vectors[:2], k), abs=1e-5)
    assert all(len(set(line)) == k for line in rows.tolist())


def test_a_bound_that_is_too_high_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered()
    queries = vectors[:8]
    expected = scan(vectors, queries, 100)
    bounds = module.CoarseQueries.bounds

    def too_high(self: module.CoarseQueries, sample: module.Sample) -> Vectors:
        found = bounds(self, sample)
        found[::2] = 0.9999
        return found

    monkeypatch.setattr(module.CoarseQueries, "bounds", too_high)
    for form in FORMS:
        found = scan(vectors, queries, 100, form)
        assert all((one == other).all() for one, other in zip(found, expected, strict=True))


def test_a_coarse_product_with_too_large_an_error_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered()
    expected = scan(vectors, vectors[:8], 100, "fp32")
    scores = module.CoarseBlock.scores

    def sloppy(self: module.CoarseBlock, *given: Any, **options: Any) -> torch.Tensor:
        found = scores(self, *given, **options)
        if found.dtype == torch.bfloat16:
            found -= 0.3
        return found

    monkeypatch.setattr(module.CoarseBlock, "scores", sloppy)
    found = scan(vectors, vectors[:8], 100, "bf16")
    assert all((one == other).all() for one, other in zip(found, expected, strict=True))


def test_half_precision_and_files(tmp_path: Path) -> None:
    vectors = clustered().astype(np.float16)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    queries = vectors[:5].astype(np.float32)
    queries.flags.writeable = False
    found = scan(mapped, queries, 700)
    whole = scan(vectors.astype(np.float32), queries, 700)
    assert all((one == other).all() for one, other in zip(found, whole, strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(form: Form, value: float) -> None:
    vectors = clustered()
    vectors[29_990, 3] = value
    with pytest.raises(RootnoteError, match="not finite in row 29990"):
        scan(vectors, vectors[:5], 10, form)


@pytest.mark.parametrize("kind", sorted(DATA))
@pytest.mark.parametrize("k", [1, 300, 12_000])
def test_the_torch_scan_finds_the_same(kind: str, k: int) -> None:
    """The GPU's scan, run on the CPU."""
    vectors = DATA[kind]()
    queries = vectors[[0, 17, 29_999]]
    scores, rows = scan_on("cpu", vectors, queries, k)
    lengths = np.linalg.norm(queries, axis=1, keepdims=True) * np.linalg.norm(vectors, axis=1).max()
    assert (abs(scores - truth(vectors, queries, k)) <= 1e-6 * np.maximum(lengths, 1e-30)).all()
    assert all(len(set(line)) == k for line in rows.tolist())
    given = np.take_along_axis(queries.astype(np.float64) @ vectors.T.astype(np.float64), rows, axis=1)
    assert (abs(given - scores) <= 1e-6 * np.maximum(lengths, 1e-30)).all()
    tied = (np.diff(scores, axis=1) == 0) & (np.diff(rows, axis=1) <= 0)
    assert not tied.any()


def test_the_torch_scan_names_a_value_that_is_not_finite() -> None:
    vectors = clustered()
    vectors[29_990, 3] = np.nan
    with pytest.raises(RootnoteError, match="not finite in row 29990"):
        scan_on("cpu", vectors, vectors[:5], 10)


def test_the_form_is_chosen_by_measurement() -> None:
    assert fastest_form() in FORMS
    assert torch.get_num_threads() >= 1
