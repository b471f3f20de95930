"""Ranks of a target and of its track, against the definition in float64; hit rates against statsmodels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from analysis.retrieval import ranking
from analysis.retrieval.corpora import open_corpora
from analysis.retrieval.ranking import TIE, hit_rate, ranks, share, sharing
from embeddings.errors import RootnoteError
from tests.analysis.retrieval.corpus import call, make_corpus
from tests.embeddings.models.test_clmr import plain, weights  # noqa: F401


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_definition(vectors, tracks, queries, targets):
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    clip, track = [], []
    for row, target in zip(scores, targets, strict=True):
        clip.append(1 + int((row > row[target] + TIE).sum()))
        best = {one: row[tracks == one].max() for one in np.unique(tracks)}
        own = best.pop(tracks[target])
        track.append(1 + sum(value > own + TIE for value in best.values()))
    return clip, track


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 6),
    st.sampled_from([2, 7, 8192]), st.sampled_from([np.float32, np.float16]),
)  # fmt: skip
def test_ranks_are_those_of_the_definition(seed, lengths, queries, block, dtype):
    rng = np.random.default_rng(seed)
    tracks = np.repeat(np.arange(len(lengths)), lengths)
    vectors = unit(rng.standard_normal((len(tracks), 8))).astype(dtype)
    targets = rng.integers(0, len(tracks), queries)
    asked = unit(vectors[targets].astype(float) + rng.normal(0, 0.7, (queries, 8)))
    before, ranking._BLOCK_ROWS = ranking._BLOCK_ROWS, block
    try:
        found = ranks(vectors, tracks, asked, targets)
    finally:
        ranking._BLOCK_ROWS = before
    clip, track = by_definition(vectors, tracks, asked, targets)
    assert found.rank.tolist() == clip
    assert found.track_rank.tolist() == track


def test_an_exact_copy_elsewhere_is_not_a_miss():
    vectors = unit(np.random.default_rng(0).standard_normal((20, 16)))
    vectors[3] = vectors[11]
    found = ranks(vectors, np.repeat(np.arange(10), 2), vectors[[11]], np.array([11]))
    assert (found.rank.tolist(), found.track_rank.tolist()) == ([1], [1])


def test_another_clip_of_the_track_lowers_the_clips_rank_but_not_the_tracks():
    vectors = unit(np.array([[1.0, 0.2], [1.0, 0.0], [0.0, 1.0]]))
    found = ranks(vectors, np.array([0, 0, 1]), vectors[[1]], np.array([0]))
    assert (found.rank.tolist(), found.track_rank.tolist()) == ([2], [1])


def overlapping(starts: list[list[float]]) -> pa.Table:
    rows = [(track, start, 3.0) for track, own in enumerate(starts) for start in own]
    return pa.table(dict(zip(("track", "start_s", "duration_s"), map(list, zip(*rows, strict=True)), strict=True)))


def test_clips_that_share_half_their_seconds_count_as_the_target():
    table = overlapping([[0, 1.5, 3.0], [0.5, 1.5, 2.75, 3.01, 9], [1.5]])
    first, last = sharing(table, np.array([0, 1, 3, 4, 7, 8]))
    assert [list(range(*ends)) for ends in zip(first, last, strict=True)] == [
        [0, 1], [0, 1, 2], [3, 4], [3, 4, 5], [7], [8],
    ]  # fmt: skip
    assert [list(range(*ends)) for ends in zip(*sharing(overlapping([[0, 3, 6]]), np.arange(3)), strict=True)] == [
        [0], [1], [2],
    ]  # fmt: skip


def test_the_best_of_the_overlapping_clips_has_the_targets_rank():
    vectors = unit(np.array([[1, 0.5, 0], [1, 0.1, 0], [1, 0.3, 0], [1, 0.2, 0], [0, 0, 1.0]]))
    tracks, query = np.array([0, 0, 0, 1, 1]), unit(np.array([[1.0, 0, 0]]))
    alone = ranks(vectors, tracks, query, np.array([0]))
    shared = ranks(vectors, tracks, query, np.array([0]), (np.array([0]), np.array([2])))
    assert (alone.rank.tolist(), shared.rank.tolist()) == ([4], [1])
    assert alone.track_rank.tolist() == shared.track_rank.tolist() == [1]
    assert alone.similarity == shared.similarity == pytest.approx(vectors[0] @ query[0])


def test_shapes_that_disagree_are_refused():
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="shapes that disagree"):
        ranks(vectors, np.arange(3), vectors[:, :2], np.arange(3))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_statsmodels(counts):
    hits, n = counts
    rate = share(hits, n)
    low, high = proportion_confint(hits, n, method="wilson")
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=1e-10)


def test_a_hit_is_a_rank_of_at_most_k():
    rate = hit_rate(np.array([1, 2, 5, 6]), 5)
    assert (rate.hits, rate.n, rate.rate) == (3, 4, 0.75)
    with pytest.raises(ValueError, match="n > 0"):
        hit_rate(np.array([], int), 1)


def test_the_checkpoint_in_study_toml_is_used(weights, tmp_path, monkeypatch):  # noqa: F811
    """study.toml names weights in its folder; the vectors were made with them, and no --checkpoint is given."""
    make_corpus(tmp_path, tracks=2, seconds=4)
    made = call("study", "init", tmp_path / "study", "--audio", tmp_path / "music")
    assert made.exit_code == 0, made.output
    study = tmp_path / "study"
    torch.save(plain(weights), study / "weights.pt")
    text = (study / "study.toml").read_text().replace('embedders = ["logmel"]', 'embedders = ["clmr"]')
    text = text.replace("# [embedding.clap]", "[embedding.clmr]\ncheckpoint = 'weights.pt'\nwindows = 'mean'\n\n#")
    (study / "study.toml").write_text(text)
    corpus, out = tmp_path / "corpus.parquet", study / "build" / "clmr.npy"
    out.parent.mkdir()
    corpus.rename(out.parent / "corpus.parquet")
    options = ("--embedder", "clmr", "--windows", "mean", "--checkpoint", study / "weights.pt", "--backend", "torch")
    done = call("embeddings", "embed", "--corpus", out.parent / "corpus.parquet", "--out", out, *options)
    assert done.exit_code == 0, (done.output, done.exception)
    monkeypatch.chdir(tmp_path)
    opened = open_corpora(Path("study"), None, (), backend="torch")
    assert [one.name for one in opened.subjects] == ["clmr"]
    with pytest.raises(RootnoteError, match="needs its weights"):
        (study / "weights.pt").rename(study / "other.pt")
        (study / "study.toml").write_text(text.replace("weights.pt", "nowhere.pt"))
        open_corpora(None, out.parent / "corpus.parquet", (out,), backend="torch")
