"""Tables 2 and 3 and influence from constructed similarities, computed by hand; and the command on real pieces."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from analysis.presentation.audio_excerpts import write_excerpt
from analysis.retrieval.attribution.tables import (
    Attributed,
    best_of,
    describe,
    gini,
    grouped,
    influence,
    paper_table2,
    paper_table3,
    place_in_bins,
    prompt_places,
    prompt_similarity,
    table2,
    table3,
    thresholds_of,
    top_share,
)
from analysis.retrieval.metadata import UNKNOWN, values_of
from analysis.statistics.bins import Bins
from embeddings.audio.corpus import read_corpus
from embeddings.errors import RootnoteError
from embeddings.search.exact import Neighbours, nearest
from tests.analysis.paper_bins import paper_bins
from tests.analysis.retrieval.corpus import call, make_corpus
from tests.embeddings.sounds import melody, write

BINS = Bins("clmr", 0.7, 0.1, 0.02, {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.2})
# Three tracks of two clips each.
TRACKS = np.repeat(np.arange(3), 2)


def planted() -> Attributed:
    """Two generations with two clips and one with one clip, with given similarities to six clips."""
    scores = np.array(
        [
            [0.95, 0.10, 0.90, 0.20, 0.00, 0.30],  # generation 0
            [0.50, 0.92, 0.91, 0.10, 0.00, 0.20],
            [0.10, 0.20, 0.30, 0.89, 0.40, 0.50],  # generation 1
            [0.60, 0.10, 0.20, 0.93, 0.00, 0.10],
            [0.10, 0.20, 0.97, 0.30, 0.96, 0.40],  # generation 2
        ]
    )
    order = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    found = Neighbours(np.take_along_axis(scores, order, axis=1).astype(np.float32), order.astype(np.int64))
    rows, best, clips = best_of(np.array([0, 0, 1, 1, 2]), found, 3, 3)
    return Attributed("clmr", rows, best, clips, np.array([0.4, np.nan, 0.2]))


def test_the_nearest_clips_of_a_generation_are_the_best_of_its_clips():
    found = planted()
    assert found.rows.tolist() == [[0, 1, 2], [3, 0, 5], [2, 4, 5]]
    assert found.scores == pytest.approx(np.array([[0.95, 0.92, 0.91], [0.93, 0.6, 0.5], [0.97, 0.96, 0.4]]))
    assert found.clips.tolist() == [[0, 1, 1], [3, 3, 2], [4, 4, 4]]


def test_table_2_by_hand():
    tables = table2(planted())
    near, prompt = tables["nearest"], tables["prompt"]
    assert (near.n, near.mean, near.median) == (3, pytest.approx(0.95), pytest.approx(0.95))
    assert near.sd == pytest.approx(0.02)
    assert (prompt.n, prompt.mean, prompt.median) == (2, pytest.approx(0.3), pytest.approx(0.3))
    assert prompt.sd == pytest.approx(np.sqrt(0.02))
    assert describe(np.array([np.nan])) is None


def test_table_3_by_hand():
    found = table3(planted(), [0.9, 0.92, 0.94], ks=(1, 3)).set_index(["threshold", "k"])
    counts = {key: (row["count"], row["n"]) for key, row in found.iterrows()}
    assert counts == {
        (0.94, 1): (2, 3), (0.94, 3): (3, 9),
        (0.92, 1): (3, 3), (0.92, 3): (5, 9),
        (0.90, 1): (3, 3), (0.90, 3): (6, 9),
    }  # fmt: skip
    assert found.loc[(0.94, 3), "share"] == pytest.approx(3 / 9)
    assert np.isnan(found.loc[(0.94, 3), "low"])


def test_influence_by_hand():
    found = influence(planted(), TRACKS, k=3).set_index("track")
    assert dict(found["nearest"]) == {1: 2, 0: 1, 2: 0}
    # Generation 0 has two clips of track 0 among its three: that is one.
    assert dict(found["among"]) == {1: 3, 0: 2, 2: 2}
    high = influence(planted(), TRACKS, threshold=0.94, k=3)
    assert high.to_dict(orient="records") == [
        {"track": 0, "nearest": 1, "among": 1}, {"track": 1, "nearest": 1, "among": 1},
        {"track": 2, "nearest": 0, "among": 1},
    ]  # fmt: skip


def test_the_rank_of_the_prompts_track():
    # Generation 0's prompt is of track 1 (its third clip), generation 2's of track 0 (not there); 1's is elsewhere.
    assert prompt_places(planted(), TRACKS, np.array([1, -1, 0]), ks=(1, 3)) == {1: 0, 3: 1}


def test_the_similarity_with_the_prompt_is_that_of_the_best_pair_of_clips():
    axes = np.eye(3, dtype=np.float32)
    mixed = np.array([[0.6, 0.8, 0]], np.float32)
    found = prompt_similarity(np.array([0, 0, 2]), np.vstack([axes[:2], mixed]), np.array([0, 1]), axes[1:], 3)
    assert found[0] == pytest.approx(1.0)
    assert np.isnan(found[1:]).all()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any))
def test_gini_is_half_the_relative_mean_difference(counts):
    values = np.array(counts, float)
    expected = np.abs(values[:, None] - values).mean() / (2 * values.mean())
    assert gini(values) == pytest.approx(expected)
    x, y = top_share(values)
    assert (x[0], y[0], x[-1]) == (0, 0, 1)
    assert y[-1] == pytest.approx(1)
    assert (np.diff(y) >= -1e-12).all()
    # The area between the curve and the diagonal is half of Gini's coefficient.
    assert 2 * np.trapezoid(y, x) - 1 == pytest.approx(expected)


def test_gini_without_counts_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        gini(np.zeros(3))


@pytest.mark.parametrize(
    ("similarity", "words"),
    [(0.99, "above bin 1"), (0.9, "in bin 1"), (0.85, "between bins 2 and 1"), (0.21, "in bin 4"),
     (0.5, "between bins 4 and 3"), (-0.3, "below bin 4")],
)  # fmt: skip
def test_a_place_among_the_bins(similarity, words):
    assert place_in_bins(similarity, BINS) == words


def test_the_thresholds_of_the_papers_bins_are_the_papers():
    assert thresholds_of(paper_bins()["CLMR"]) == [0.875, 0.895, 0.915, 0.935, 0.955]
    assert thresholds_of(paper_bins()["CLAP"]) == [0.955, 0.975, 0.995]


def test_the_papers_tables_as_printed():
    shares = {(row.threshold, row.k): f"{100 * row.share:.2f}" for row in paper_table3().itertuples()}
    assert shares[0.875, 1] == "32.01"
    assert shares[0.955, 10] == "0.25"
    assert paper_table2().query("embedder == 'CLMR'")["mean"].tolist() == [0.166, 0.846]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 6))
def test_the_best_of_a_generation_equals_brute_force(seed, count, k):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((12, 5))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    owner = np.sort(rng.integers(0, count, 9))
    queries = vectors[rng.integers(0, 12, 9)] + rng.normal(0, 0.3, (9, 5)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    rows, scores, clips = best_of(owner, nearest(vectors, queries, k), count, k)
    exact = queries.astype(float) @ vectors.T.astype(float)
    for one in range(count):
        if not (owner == one).any():
            assert (rows[one] == -1).all()
            continue
        best = exact[owner == one].max(axis=0)
        assert scores[one] == pytest.approx(np.sort(best)[::-1][:k], abs=1e-6)
        assert best[rows[one]] == pytest.approx(scores[one], abs=1e-6)
        assert (owner[clips[one]] == one).all()


def test_tables_by_a_column_by_hand_with_intervals():
    """The nearest clips are 0, 3 and 2: folk, jazz, jazz; scores 0.95, 0.93, 0.97; prompts 0.4, none, 0.2."""
    values = np.array(["folk", "folk", "jazz", "jazz", UNKNOWN, UNKNOWN], dtype=object)
    frame = grouped(planted(), values, [0.94]).set_index("value")
    assert frame["n"].to_dict() == {"jazz": 2, "folk": 1}
    jazz, folk = frame.loc["jazz"], frame.loc["folk"]
    assert (jazz["mean"], jazz["median"], jazz["sd"]) == pytest.approx((0.95, 0.95, 0.02 * 2**0.5))
    low, high = stats.t.interval(0.95, 1, loc=0.95, scale=0.02)
    assert (jazz["mean_low"], jazz["mean_high"]) == pytest.approx((low, high))
    assert np.isnan(folk["mean_low"])
    assert (jazz["prompt_n"], jazz["prompt_mean"], folk["prompt_mean"]) == (1, 0.2, 0.4)
    assert (jazz["share_0.940"], folk["share_0.940"]) == (0.5, 1)
    assert (jazz["low_0.940"], jazz["high_0.940"]) == pytest.approx(proportion_confint(1, 2, method="wilson"))
    # Of the three nearest clips of each: 0.93, 0.6, 0.5 and 0.97, 0.96, 0.4.
    assert jazz["share10_0.940"] == pytest.approx(2 / 6)


def test_values_come_from_the_corpus_or_from_a_file(corpus, tmp_path):
    table, _ = read_corpus(corpus / "corpus.parquet")
    assert list(values_of(table, "genre")[[0, 5]]) == ["folk", "jazz"]
    (tmp_path / "m.csv").write_text("path,mood\n0.flac,glad\n1.flac,\n")
    assert list(values_of(table, "mood", tmp_path / "m.csv")[[0, 5, 10]]) == ["glad", UNKNOWN, UNKNOWN]
    for column, content, words in (
        ("mood", None, "has no column 'mood', only"),
        ("mood", "path,x\n0.flac,1\n", "lacks the column 'mood'"),
        ("mood", "path,mood\nz.flac,1\n", "has no track of the corpus"),
        ("rank", "path,rank\n0.flac,1\n", "used for a column"),
    ):
        (tmp_path / "m.csv").write_text(content or "")
        with pytest.raises(RootnoteError, match=words):
            values_of(table, column, tmp_path / "m.csv" if content else None)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("attribution"))


@pytest.fixture
def generated(corpus: Path, tmp_path: Path) -> Path:
    """Three generations: an excerpt of track 3 after a prompt from track 0; other music; a damaged file."""
    folder = tmp_path / "generated"
    prompt, other = (soundfile.read(corpus / "music" / f"{number}.flac")[0] for number in (0, 3))
    rate = 44_100
    write(folder / "a.flac", np.concatenate([prompt[: 3 * rate], other[6 * rate : 12 * rate]]).astype(np.float32))
    write(folder / "b.flac", melody(7, 50))
    (folder / "c.flac").write_bytes(b"fLaC nothing")
    lines = [
        "generation_id,path,prompt_path,prompt_offset_s,prompt_duration_s,prefix_s,model",
        f"first,a.flac,{corpus / 'music' / '0.flac'},0,6,3,m",
        f"second,b.flac,{corpus / 'music' / '1.flac'},,,,",
        "third,c.flac,,,,,",
    ]
    (folder / "generations.csv").write_text("\n".join(lines) + "\n")
    return folder


def run(corpus: Path, generated: Path, out: Path, *options: object):
    given = ("--corpus", corpus / "corpus.parquet", "--vectors", corpus / "v.npy", "--out", out)
    return call("analysis", "attribution", generated, *given, *options)


def test_an_excerpt_is_located_and_the_prompts_seconds_are_excluded(corpus, generated, tmp_path):
    out = tmp_path / "out"
    done = run(corpus, generated, out, "--threshold", "0.9", "--by", "genre", "--examples", "2")
    assert done.exit_code == 0, (done.output, done.exception)
    rows = pd.read_csv(out / "attribution.csv")
    first = rows[rows["generation_id"] == "first"]
    best = first.iloc[0]
    assert (best["path"], best["track_start_s"], best["start_s"]) in {("3.flac", 6.0, 3.0), ("3.flac", 9.0, 6.0)}
    assert best["similarity"] == pytest.approx(1, abs=1e-4)
    assert first["start_s"].min() == 3.0
    data = json.loads((out / "attribution.json").read_text())["embedders"]["logmel"]
    assert data["left_out"]["third"].endswith("it is not an audio file, or damaged")
    assert data["table2"]["nearest"]["n"] == 2
    assert data["table2"]["prompt"]["n"] == 2
    assert [row["count"] for row in data["table3"] if row["k"] == 1] == [1]
    assert data["prompt_in_corpus"] == 2
    assert {row["value"] for row in data["by"]} <= {"folk", "jazz"}
    influential = pd.read_csv(out / "influence.csv")
    assert influential["nearest"].sum() == 2
    page = (out / "attribution.html").read_text()
    assert page.count("<audio") == 2 * 2 * 3
    for name in (out / "audio").iterdir():
        assert soundfile.info(name).duration == pytest.approx(3, abs=0.01)
        assert f"audio/{name.name}" in page
    assert "1 piece skipped, for example third" in done.output


def test_bins_and_evidence_come_with_the_thresholds(corpus, generated, tmp_path):
    from embeddings.provenance import Provenance, write_json

    content = {"embedder": "logmel", "mu": 0.6, "sigma": 0.1, "half_width": 0.02,
               "centres": {"1": 0.8, "2": 0.7, "3": 0.6, "4": 0.0}}  # fmt: skip
    write_json(tmp_path / "logmel.bins.json", content, Provenance("bins"))
    pairs = {"1-2": {"agreed": 45, "n": 50}, "1-3": {"agreed": 52, "n": 50 + 3}, "1-4": {"agreed": 0, "n": 0}}
    evidence = {"logmel": {"rehearsed": True, "pairs": pairs, "totals": {"1": {"agreed": 97, "n": 103}}}}
    (tmp_path / "table1.json").write_text(json.dumps(evidence))
    out = tmp_path / "out"
    done = run(
        corpus,
        generated,
        out,
        "--bins",
        tmp_path / "logmel.bins.json",
        "--evidence",
        tmp_path / "table1.json",
        "--json",
    )
    assert done.exit_code == 0, (done.output, done.exception)
    data = json.loads(done.stdout)["embedders"]["logmel"]
    assert sorted({row["threshold"] for row in data["table3"]}) == [0.8, 0.82, 0.84, 0.86, 0.88]
    assert "simulated listeners judged" in data["evidence"]
    assert "94.2 % of 103 trials (than bin 2 in 90 %, than bin 3 in 98 %)" in data["evidence"]
    assert [(one["than_bin"], one["n"]) for one in data["heard"]] == [(2, 50), (3, 53), (None, 103)]
    evidence = {row["threshold"]: row["listeners"] for row in data["table3"]}
    judged = "judged by simulated listeners more similar than bin 2 in 90 %, bin 3 in 98 % of trials"
    assert evidence[0.8] == f"bin 1, {judged}"
    assert evidence[0.84] == f"above bin 1, which was {judged}"
    page = (out / "attribution.html").read_text()
    for words in ("94.2 % of 103 trials", judged, "Listeners’ judgements of each bin", "90.0 [78.2, 96.7]"):
        assert words in page
    assert f"above bin 1, which was {judged}" in set(pd.read_csv(out / "attribution.csv")["listeners"])
    assert set(pd.read_csv(out / "attribution.csv")["bin"]) & {"above bin 1"}


def test_without_bins_there_is_no_table_3_and_the_page_says_so(corpus, generated, tmp_path):
    done = run(corpus, generated, tmp_path / "out", "--examples", "0")
    assert done.exit_code == 0
    assert "There are no bins for logmel" in (tmp_path / "out" / "attribution.html").read_text()


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["generation_id", "x"], "lacks the column path"),
        (["generation_id,path,colour", "a,a.flac,red"], "has an unknown column 'colour'"),
        (["generation_id,path", "a,a.flac", "a,b.flac"], "row 3: generation_id 'a' is listed twice"),
        (["generation_id,path", "a,gone.flac"], "row 2: the file"),
        (["generation_id,path", ",a.flac"], "row 2: generation_id and path must not be empty"),
        (["generation_id,path,prefix_s", "a,a.flac,soon"], "row 2: prefix_s must be a number of seconds"),
        (["generation_id,path,prefix_s", "a,a.flac,-1"], "row 2: prefix_s must be a number of seconds"),
        (["generation_id,path", "a,a.flac,more"], "row 2: it has more fields than the header"),
        (["generation_id,path,sha256", f"a,a.flac,{hashlib.sha256(b'').hexdigest()}"], "SHA-256"),
        (["generation_id,path"], "lists no generations"),
        (["generation_id,path,prompt_path", "a,a.flac,gone.flac"], "the prompt"),
        ([], "lacks the columns generation_id and path"),
    ],
)
def test_a_wrong_manifest_is_one_sentence(corpus, generated, tmp_path, lines, sentence):
    (generated / "generations.csv").write_text("\n".join(lines))
    done = run(corpus, generated, tmp_path / "out")
    assert isinstance(done.exception, RootnoteError), done.output
    assert sentence in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_manifest_must_be_text(corpus, generated, tmp_path):
    (generated / "generations.csv").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in str(run(corpus, generated, tmp_path / "out").exception)


def test_a_folder_without_manifest_or_usable_pieces(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no audio files" in str(run(corpus, tmp_path / "empty", tmp_path / "out").exception)
    assert "is not a directory" in str(run(corpus, tmp_path / "gone", tmp_path / "out").exception)
    write(tmp_path / "short" / "a.flac", melody(2, 1))
    assert "has less than 3 s without its prompt" in str(run(corpus, tmp_path / "short", tmp_path / "out").exception)
    write(tmp_path / "silent" / "a.flac", np.zeros(44_100 * 4, np.float32))
    assert "is silent" in str(run(corpus, tmp_path / "silent", tmp_path / "out").exception)


def test_invalid_evidence_is_refused(corpus, generated, tmp_path):
    for content in ("[1]", '{"m": {"totals": 3}}', '{"m": {"totals": {"1": {"n": 2, "agreed": 3}}}}', "{"):
        (tmp_path / "table1.json").write_text(content)
        done = run(corpus, generated, tmp_path / "out", "--evidence", tmp_path / "table1.json")
        assert "is not a table1.json" in str(done.exception)


def test_an_exact_copy_is_in_the_histogram_and_no_similarity_is_above_one():
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((200, 48)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = nearest(vectors, vectors, 1)
    assert (found.scores > 1).any(), "float32 rounds up now and then, or this test shows nothing"
    _, scores, _ = best_of(np.arange(200), found, 200, 1)
    assert scores.max() == 1
    assert prompt_similarity(np.arange(200), vectors, np.arange(200), vectors, 200).max() == 1


def test_an_excerpt_is_from_the_current_music(tmp_path):
    source = tmp_path / "a.wav"
    for frequency in (220, 440):
        soundfile.write(source, 0.5 * np.sin(2 * np.pi * frequency * np.arange(44_100) / 44_100), 44_100)
        assert write_excerpt(source, 0.0, 1.0, tmp_path, "x.flac") == "audio/x.flac"
        sound, rate = soundfile.read(tmp_path / "audio" / "x.flac")
        assert np.argmax(np.abs(np.fft.rfft(sound))) * rate / len(sound) == pytest.approx(frequency, abs=2)
    source.unlink()
    assert write_excerpt(source, 0.0, 1.0, tmp_path, "x.flac") is None
