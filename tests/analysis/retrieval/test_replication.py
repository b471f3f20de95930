"""Scores compared with their formulas in float64, the threshold, and copies found through the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from analysis.retrieval.replication.scores import (
    SCORES,
    Parameters,
    Scored,
    look_up,
    of_pieces,
    roc,
    threshold_of_null,
)
from embeddings.errors import RootnoteError
from tests.analysis.retrieval.corpus import call, make_corpus
from tests.embeddings.sounds import melody, write

RATE = 44_100


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]), st.booleans())
def test_scores_are_their_formulas(seed, parts, left_out):
    rng = np.random.default_rng(seed)
    vectors, queries = unit(rng.standard_normal((40, 8))), unit(rng.standard_normal((5, 8)))
    parameters = Parameters(beta=0.7, bias_k=6, alpha=0.4, ratio_n=9, parts=parts)
    out = np.tile([10, 15], (5, 1)) if left_out else None
    kept = np.setdiff1d(np.arange(40), np.arange(10, 15)) if left_out else np.arange(40)
    exact = queries.astype(float) @ vectors[kept].T.astype(float)
    ordered = -np.sort(-exact, axis=1)
    distance = np.sqrt(2 - 2 * ordered[:, :9])
    width = 8 // parts
    own, reference = queries.reshape(5, parts, width), vectors[kept].reshape(-1, parts, width)
    products = np.einsum("qiw,rjw->qrij", own.astype(float), reference.astype(float))
    expected = {
        "cosine": ordered[:, 0],
        "bias": ordered[:, 0] - 0.7 * ordered[:, :6].mean(axis=1),
        "ratio": 1 - distance[:, 0] / (0.4 * distance.mean(axis=1)),
        "split": np.einsum("qrii->qri", products).max(axis=(1, 2)),
        "cross": products.max(axis=(1, 2, 3)),
    }
    near = look_up(vectors, queries, parameters.depth, out)
    for name, score in SCORES.items():
        found = score(vectors, near, parameters, out)
        assert found.score == pytest.approx(expected[name], abs=1e-5)
        assert set(found.row) <= set(kept)
    assert SCORES["cosine"](vectors, near, parameters, out).row.tolist() == kept[exact.argmax(axis=1)].tolist()


def test_a_piece_has_the_score_of_its_best_clip_if_it_has_clips():
    scored = Scored(np.array([0.2, 0.9, 0.5]), np.array([7, 8, 9]))
    best, clips = of_pieces(scored, np.array([0, 0, 2]), 3)
    assert best.score.tolist()[0::2] == [0.9, 0.5]
    assert math.isnan(best.score[1])
    assert (best.row.tolist(), clips.tolist()) == ([8, -1, 9], [1, -1, 2])


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_the_threshold_flags_at_most_the_stated_share_of_pieces_without_copies(share):
    rng = np.random.default_rng(1)
    flagged = []
    for _ in range(400):
        drawn = rng.standard_normal(101 + 1000)
        flagged.append((drawn[101:] > threshold_of_null(drawn[:101], share)).mean())
    assert np.mean(flagged) <= share + 3 * np.std(flagged) / 20
    assert np.mean(flagged) >= 0.7 * share


def test_too_few_null_pieces_flag_nothing():
    assert threshold_of_null(np.arange(50.0), 0.01) == math.inf
    assert threshold_of_null(np.arange(99.0), 0.01) == 98
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold_of_null(np.arange(3.0), 0)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60).filter(
        lambda rows: len({copy for _, copy in rows}) == 2
    ),
    st.sampled_from([0.01, 0.1, 0.3]),
)
def test_the_point_on_the_roc_is_the_best_allowed(rows, allowed):
    scores, copies = np.array([score for score, _ in rows], float), np.array([copy for _, copy in rows])
    curve = roc(scores, copies, allowed)
    flagged = scores > curve.threshold
    assert (flagged[~copies].mean(), flagged[copies].mean()) == pytest.approx(curve.at)
    assert curve.at[0] <= allowed
    for threshold in np.unique(scores):
        other = scores >= threshold
        assert other[~copies].mean() > allowed or other[copies].mean() <= curve.at[1] + 1e-12
    assert curve.auc == pytest.approx(roc_auc_score(copies, scores))


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    """Sixteen training tracks, and pieces in mp3, half of which copy five seconds of a track."""
    folder = make_corpus(tmp_path_factory.mktemp("replication"), tracks=16, seconds=18.2)
    for embedder in ("melspec",):
        options = ("--corpus", folder / "corpus.parquet", "--embedder", embedder, "--out", folder / f"{embedder}.npy")
        assert call("embeddings", "embed", *options).exit_code == 0
    for number in range(8):
        piece = melody(12, 100 + number)
        if number % 2:
            source, _ = soundfile.read(folder / "music" / f"{number}.flac", dtype="float32")
            piece[3 * RATE : 8 * RATE] = source[5 * RATE : 10 * RATE]
        write(folder / "generated" / f"{number}.mp3", piece)
    return folder


def run(music: Path, out: Path, *options: object):
    given = ("--corpus", music / "corpus.parquet", "--vectors", music / "melspec.npy", "--out", out)
    return call("analysis", "replication", music / "generated", *given, *options)


@pytest.fixture(scope="module")
def done(music, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out")
    result = run(music, out, "--null", "60", "--false-alarms", "0.05", "--duplicates", "0.999")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "8 pieces compared with 96 clips: 4 near-identical, 4 none (decided by melspec:bias)." in result.output
    return out


@pytest.mark.slow
def test_copies_are_found_with_their_source_and_the_others_are_not(done):
    rows = pd.read_csv(done / "replication.csv").set_index("generation_id")
    assert [rows.loc[f"{number}.mp3", "verdict"] for number in range(8)] == ["none", "near-identical"] * 4
    for number in (1, 3, 5, 7):
        row = rows.loc[f"{number}.mp3"]
        assert row["path"] == f"{number}.flac"
        # Five seconds of the source, from 5 s on, stand at 3 s.
        assert row["start_s"] - row["track_start_s"] == pytest.approx(-2, abs=0.3)
    scores = pd.read_csv(done / "replication_scores.csv")
    assert set(scores["score_name"]) == set(SCORES)
    assert len(scores) == 8 * len(SCORES)


def test_the_page_and_the_data_agree(done):
    data = json.loads((done / "replication.json").read_text())
    assert data["near_identical"]["rate"] == 0.5
    assert data["duplicates"]["groups"] == 0
    page = (done / "replication.html").read_text()
    assert "<b>" not in page
    assert page.count("<audio") == 16
    assert "50.0" in page


def test_a_share_by_the_size_of_the_corpus(music, done, tmp_path):
    result = run(music, tmp_path, "--null", "20", "--compare", done / "replication.json", "--examples", "0")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "By the size of the training corpus" in (tmp_path / "replication.html").read_text()
    # Twenty pieces cannot set a threshold for 1 %: nothing is flagged, and the page says so.
    assert "∞" in result.output
    assert json.loads((tmp_path / "replication.json").read_text())["verdicts"]["near-identical"] == 0


def test_a_threshold_from_labelled_pairs(music, tmp_path):
    lines = ["piece,reference,copy"]
    lines += [f"generated/{one}.mp3,music/{one}.flac,{one % 2}" for one in range(8)]
    (music / "pairs.csv").write_text("\n".join(lines))
    result = run(music, tmp_path, "--pairs", music / "pairs.csv", "--decide", "melspec:cosine", "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    data = json.loads(result.stdout)
    cosine = next(one for one in data["scores"] if one["score"] == "cosine")
    assert cosine["roc"] == {"auc": 1.0, "false_alarms": 0.0, "found": 1.0}
    assert data["verdicts"]["near-identical"] == 4


@pytest.mark.slow
def test_a_folder_of_training_music_is_indexed_once(music, tmp_path):
    options = ("--training", music / "music", "--embedder", "melspec", "--null", "30", "--false-alarms", "0.1")
    for _ in range(2):
        result = call("analysis", "replication", music / "generated", "--out", tmp_path, *options, "--examples", "0")
        assert result.exit_code == 0, (result.output, result.exception)
    # The second time nothing is cut or embedded but the pieces.
    assert "Embedding melspec" not in result.stderr
    assert "4 near-identical" in result.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--decide", "clap:bias"), "clap:bias cannot decide"),
        (("--decide", "melspec:magic"), "melspec:magic cannot decide"),
        (("--compare", "nowhere.json"), "nowhere.json is not a replication.json"),
        (("--pairs", "nowhere.csv"), "nowhere.csv cannot be read as CSV"),
        (("--bins", "nowhere.json"), "nowhere.json is missing"),
    ],
)
def test_errors_are_one_sentence(music, tmp_path, options, sentence):
    result = run(music, tmp_path / "out", "--null", "10", *options)
    assert isinstance(result.exception, RootnoteError), result.output
    assert sentence in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("piece,copy\n", "needs the columns piece, reference and copy"),
        ("piece,reference,copy\na,b,maybe\n", "row 2: copy must be 0 or 1"),
        ("piece,reference,copy\na,b,1\n", "row 2: the file"),
        ("piece,reference,copy\n", "needs both pairs that are copies"),
    ],
)
def test_wrong_pairs_are_one_sentence(music, tmp_path, text, sentence):
    (tmp_path / "pairs.csv").write_text(text)
    result = run(music, tmp_path / "out", "--pairs", tmp_path / "pairs.csv")
    assert sentence in str(result.exception)


def test_training_and_corpus_exclude_each_other(music, tmp_path):
    result = run(music, tmp_path, "--training", music / "music")
    assert result.exit_code == 2
    assert "--training" in result.output and "not both" in result.output
