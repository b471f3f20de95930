"""`rootnote embeddings duplicates`: every copy is found, grouped and can be left out; pairs as by brute force."""

from __future__ import annotations

import csv
import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import rootnote
from embeddings.audio.content_hash import content_hashes
from embeddings.audio.corpus import CutSettings, cut, read_corpus, write_corpus
from embeddings.errors import RootnoteError
from embeddings.search.duplicates import COLUMNS, find_duplicates, read_left_out
from embeddings.search.near_pairs import Likeness, join_near
from tests.embeddings.sounds import melody, write

Vectors = npt.NDArray[np.floating]


def run(command: str, *options: object) -> Result:
    return CliRunner().invoke(rootnote.cli, ["embeddings", command, *map(str, options)])


def run_duplicates(folder: Path, *options: object) -> Result:
    return run("duplicates", "--corpus", folder / "corpus.parquet", *options)


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty different tracks, copies of one (the same samples) and of another (with loss), and one that repeats."""
    folder = tmp_path_factory.mktemp("corpus")
    audio = folder / "music"
    for seed in range(40):
        write(audio / f"different {seed}.wav", melody(6.5, seed))
    shutil.copy(audio / "different 1.wav", audio / "copy.wav")
    soundfile.write(audio / "lossless.flac", *soundfile.read(audio / "copy.wav", dtype="int16"))
    write(audio / "lossy.ogg", melody(6.5, 2))
    write(audio / "loop.wav", np.tile(melody(3, 9), 3))
    write_corpus(folder / "corpus.parquet", cut(audio))
    assert run(
        "embed", "--corpus", folder / "corpus.parquet", "--embedder", "logmel", "--out", folder / "v.npy"
    ).exit_code == 0  # fmt: skip
    return folder


@pytest.mark.slow
def test_copies_are_grouped_and_all_but_the_first_are_left_out(music: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.csv"
    done = run_duplicates(music, "--vectors", music / "v.npy", "--out", out)
    assert done.exit_code == 0, done.output
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    groups: dict[str, list[tuple[str, float, str]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append((row["path"], float(row["start_s"]), row["kind"]))
    copies = ["copy.wav", "different 1.wav", "lossless.flac"]
    assert list(groups.values())[:2] == [
        [(path, start, kind) for path, kind in zip(copies, ["first", "exact", "exact"], strict=True)]
        for start in (0.0, 3.0)
    ]
    assert [("different 2.wav", 3.0 * n, "first") for n in (0, 1)] == [groups["3"][0], groups["4"][0]]
    assert [("lossy.ogg", 3.0 * n, "near") for n in (0, 1)] == [groups["3"][1], groups["4"][1]]
    assert groups["5"] == [("loop.wav", 0.0, "first"), ("loop.wav", 3.0, "exact"), ("loop.wav", 6.0, "exact")]
    assert len(groups) == 5
    assert all(float(row["similarity"]) == 1 for row in rows if row["kind"] != "near")
    assert all(0.98 <= float(row["similarity"]) < 1 for row in rows if row["kind"] == "near")
    table, _ = read_corpus(music / "corpus.parquet")
    left_out = read_left_out(out, table)
    assert left_out == {int(row["clip"]) for row in rows if row["kind"] != "first"}
    assert len(left_out) == 8
    # The same as JSON, twice with the same bytes.
    for name in ("one.json", "two.json"):
        assert run_duplicates(music, "--vectors", music / "v.npy", "--out", tmp_path / name).exit_code == 0
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert read_left_out(tmp_path / "one.json", table) == left_out


def test_the_summary_counts_and_names(music: Path) -> None:
    text = run_duplicates(music, "--vectors", music / "v.npy").stdout
    assert "5 groups of duplicates with 8 copies (6 with the same samples, 2 near-ident" in text
    assert "copy.wav at 3 s: different 1.wav at 3 s (exact), lossless.flac at 3 s (exact)" in text
    summary = json.loads(run_duplicates(music, "--json").stdout)
    assert (summary["groups"], summary["exact"], summary["near"]) == (3, 6, 0)
    assert [row["path"] for row in summary["duplicates"]][:3] == ["copy.wav", "different 1.wav", "lossless.flac"]
    across = json.loads(run_duplicates(music, "--across-tracks", "--json").stdout)
    assert (across["groups"], across["clips"]) == (2, 6)


def test_several_vectors_must_agree_unless_any_is_enough(music: Path, tmp_path: Path) -> None:
    table, _ = read_corpus(music / "corpus.parquet")
    hashes = content_hashes(table, music / "music")
    one, other = np.eye(table.num_rows), np.eye(table.num_rows)
    # By the one the clips of "different 0" and "3" are alike, by the other those of "different 0" and "different 1".
    paths = table["path"].to_pylist()
    rows = {name: paths.index(f"{name}.wav") for name in ("different 0", "different 1", "different 3", "copy")}
    one[rows["different 3"]] = one[rows["different 0"]]
    other[rows["copy"]] = other[rows["different 0"]]
    likenesses = [Likeness(one, 0.9), Likeness(other, 0.9)]

    def near(match_any: bool, given: list[Likeness]) -> list[list[int]]:
        groups = find_duplicates(table, hashes, given, match_any=match_any)
        return [group.clips for group in groups if any(member.kind == "near" for member in group.members)]

    assert near(False, likenesses) == []
    assert near(False, likenesses[:1]) == [[rows["different 0"], rows["different 3"]]]
    copies = [row for row, path in enumerate(paths) if path in ("copy.wav", "different 1.wav", "lossless.flac")]
    joined = sorted([*copies[::2], rows["different 0"], rows["different 3"]])
    assert near(True, likenesses) == [joined]
    assert near(False, [likenesses[0], Likeness(one, 1.0)]) == [[rows["different 0"], rows["different 3"]]]


def brute_groups(likenesses: list[Likeness], match_any: bool) -> list[int]:
    """The first row of each row's group, from the whole float64 matrix of cosines."""
    passed = []
    for one in likenesses:
        vectors = one.vectors.astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / np.where(norms > 0, norms, 1)
        passed.append(unit @ unit.T >= one.threshold - 1e-9)
    near = np.logical_or.reduce(passed) if match_any else np.logical_and.reduce(passed)
    firsts = list(range(len(near)))
    for row in range(len(near)):
        for other in np.flatnonzero(near[row]):
            low, high = sorted((firsts[row], firsts[other]))
            firsts = [low if first == high else first for first in firsts]
    return firsts


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 150),
    dims=st.lists(st.sampled_from([1, 2, 5, 24, 80]), min_size=1, max_size=2),
    threshold=st.sampled_from([0.3, 0.9, 0.98, 0.9999, 1.0]),
    crowding=st.floats(0, 1),
    half=st.booleans(),
    match_any=st.booleans(),
    strip=st.integers(7, 20_000),
    block=st.integers(7, 200),
    seed=st.integers(0, 10_000),
)
def test_groups_are_those_of_brute_force(
    count: int,
    dims: list[int],
    threshold: float,
    crowding: float,
    half: bool,
    match_any: bool,
    strip: int,
    block: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    likenesses = []
    # Rows about few centres, at distances around the threshold, some of them equal.
    nearest_centre = rng.integers(0, max(1, round(count * (1 - crowding))), count)
    for dim in dims:
        centres = rng.standard_normal((count, dim)) * np.linspace(2, 0.1, dim)
        angle = np.sqrt(1 - threshold) * rng.uniform(0, 2, (count, 1))
        vectors = centres[nearest_centre] + angle * rng.standard_normal((count, dim)) / np.sqrt(dim)
        vectors[rng.integers(0, count, count // 3)] = vectors[0]
        vectors[rng.integers(0, count, count // 20)] = 0
        likenesses.append(Likeness(vectors.astype(np.float16 if half else np.float32), threshold))
    found = join_near(np.arange(count), likenesses, match_any=match_any, strip_bytes=strip, block_rows=block)
    assert found.tolist() == brute_groups(likenesses, match_any)


def test_a_wide_corpus_is_compared_on_few_axes_and_loses_nothing() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3000, 300)) / np.arange(1, 301)
    vectors[1500:1600] = vectors[:100] + 0.05 * rng.standard_normal((100, 300)) / np.arange(1, 301)
    likeness = Likeness(vectors.astype(np.float32), 0.995)
    found = join_near(np.arange(3000), [likeness], strip_bytes=60_000, block_rows=500)
    assert found.tolist() == brute_groups([likeness], match_any=False)
    assert (found[1500:1600] == np.arange(100)).sum() > 50


@pytest.mark.parametrize("exact", [True, False])
def test_many_copies_need_little_memory(music: Path, exact: bool) -> None:
    count = 20_000
    vectors = np.ones((count, 16), np.float32)
    vectors[:, 0] += 0 if exact else np.random.default_rng(0).uniform(0, 0.01, count).astype(np.float32)
    tracemalloc.start()
    found = join_near(np.arange(count), [Likeness(vectors, 0.98)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found == 0).all()
    assert peak < 200e6  # the pairs alone would be 3 GB


def test_hashes_depend_on_the_samples_only(tmp_path: Path) -> None:
    audio = tmp_path / "music"
    audio.mkdir()
    music = (2**15 * melody(3.2, 1)).astype(np.int16)
    soundfile.write(audio / "a.wav", music, 44_100)
    soundfile.write(audio / "b.wav", (music / 2**15).astype(np.float32), 44_100, subtype="FLOAT")
    soundfile.write(audio / "c.flac", np.stack([music, music], axis=1), 44_100)
    for name, sample in (("d", 0), ("g", 3 * 44_100 - 1), ("h", 3 * 44_100)):  # the last one is in no clip
        soundfile.write(audio / f"{name}.wav", np.where(np.arange(len(music)) == sample, music + 1, music), 44_100)
    soundfile.write(audio / "e.wav", music, 44_101)
    soundfile.write(audio / "f.wav", (music / 400).astype(np.float32), 44_100, subtype="FLOAT")
    corpus = cut(audio)
    hashes = [tuple(row) for row in content_hashes(corpus.table, audio)]
    assert hashes[0] == hashes[1] == hashes[2] == hashes[7]
    assert len(set(hashes)) == 5
    assert [tuple(row) for row in content_hashes(corpus.table, audio, workers=1)] == hashes


def test_overlapping_clips_are_hashed_from_their_start(tmp_path: Path) -> None:
    beat = melody(1, 3)
    write(tmp_path / "music" / "loop.wav", np.tile(beat, 6))
    corpus = cut(tmp_path / "music", CutSettings(hop_seconds=0.5))
    groups = find_duplicates(corpus.table, content_hashes(corpus.table, tmp_path / "music"))
    assert [group.clips for group in groups] == [[0, 2, 4, 6], [1, 3, 5]]


def test_bad_input_is_named(music: Path, tmp_path: Path) -> None:
    def error_message(*options: object) -> str:
        done = run_duplicates(music, *options)
        assert isinstance(done.exception, RootnoteError), done.output
        return str(done.exception)

    vectors = np.load(music / "v.npy")
    for name in ("v.npy", "v.json"):
        shutil.copy(music / name, tmp_path / name)
    vectors[0, 3] = np.nan
    np.save(tmp_path / "v.npy", vectors)
    assert "v.npy has a value that is not finite in row 0" in error_message("--vectors", tmp_path / "v.npy")
    assert "missing; run `rootnote embeddings embed`" in error_message("--vectors", tmp_path / "none.npy")
    assert "must end in .csv or .json" in error_message("--out", tmp_path / "found.txt")
    moved = tmp_path / "moved"
    moved.mkdir()
    assert "is missing since the corpus was cut" in error_message("--audio", moved)
    other = tmp_path / "other"
    write(other / "music" / "a.wav", melody(7))
    write_corpus(other / "corpus.parquet", cut(other / "music"))
    done = run_duplicates(other, "--vectors", music / "v.npy")
    assert "v.npy is stale (corpus changed since); run `rootnote embeddings embed`" in str(done.exception)
    assert run_duplicates(music, "--threshold", 0).exit_code == 2
    assert run_duplicates(music, "--vectors", music / "v.npy", *["--threshold", 0.9] * 2).exit_code == 2
    assert not list(tmp_path.glob("*.csv"))


def test_invalid_files_of_duplicates_are_refused(music: Path, tmp_path: Path) -> None:
    table, _ = read_corpus(music / "corpus.parquet")
    good = tmp_path / "good.csv"
    assert run_duplicates(music, "--out", good).exit_code == 0
    assert len(read_left_out(good)) == 6
    with pytest.raises(RootnoteError, match="missing; run `rootnote embeddings duplicates`"):
        read_left_out(tmp_path / "none.csv")
    with pytest.raises(RootnoteError, match=r"must end in \.csv or \.json"):
        read_left_out(tmp_path / "none.txt")
    other = cut(write(tmp_path / "music" / "a.wav", melody(7)).parent).table
    for corpus in (other, table.slice(1)):
        with pytest.raises(RootnoteError, match="duplicates of another corpus"):
            read_left_out(good, corpus)
    bad = tmp_path / "bad.csv"
    for content in (b"group,kind\n1,first\n", b"\xff\xfe", good.read_bytes().replace(b"exact,", b"exact,x", 1)):
        bad.write_bytes(content)
        with pytest.raises(RootnoteError, match=r"bad\.csv"):
            read_left_out(bad, table)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(RootnoteError, match=r"bad\.json"):
        read_left_out(tmp_path / "bad.json")


def test_a_corpus_without_duplicates_gives_an_empty_file(tmp_path: Path) -> None:
    write(tmp_path / "music" / "a.wav", melody(3))
    write_corpus(tmp_path / "corpus.parquet", cut(tmp_path / "music"))
    out = tmp_path / "none.csv"
    done = run_duplicates(tmp_path, "--out", out)
    assert "0 groups of duplicates" in done.stdout
    assert out.read_text().splitlines() == [",".join(COLUMNS)]
    assert read_left_out(out, read_corpus(tmp_path / "corpus.parquet")[0]) == set()
