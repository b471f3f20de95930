"""`rootnote analysis robustness` through the command line: found clips, resuming, and errors."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from click.testing import Result

from analysis.retrieval.ranking import ranks
from analysis.retrieval.robustness import run as robustness
from analysis.retrieval.robustness import workers as perturbing
from analysis.retrieval.robustness.registry import PERTURBATIONS
from embeddings.audio.corpus import read_corpus
from embeddings.errors import RootnoteError
from tests.analysis.retrieval.corpus import call, make_corpus
from tests.embeddings.sounds import melody, write
from tests.scale import is_soak


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("robustness"))


def run(corpus: Path, out: Path, *options: object) -> Result:
    given = ("--corpus", corpus / "corpus.parquet", "--vectors", corpus / "v.npy", "--out", out, "--targets", 8)
    return call("analysis", "robustness", *given, *options)


def names(*chosen: str) -> list[str]:
    return [part for name in chosen for part in ("--perturbation", name)]


def table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "robustness.csv").set_index(["perturbation", "level"])


@pytest.mark.slow
def test_slightly_changed_clips_are_found_and_drowned_ones_are_not(corpus, tmp_path):
    done = run(corpus, tmp_path, *names("gain", "noise", "mix"), "--save", "1", "--by", "genre")
    assert done.exit_code == 0, (done.output, done.exception)
    found = table(tmp_path)
    assert found.loc[("gain", -12.0), "hit1"] == 1
    assert found.loc[("gain", -12.0), "mean_similarity"] == pytest.approx(1, abs=1e-3)
    assert found.loc[("noise", 30.0), "hit1"] < 0.5
    assert found["targets"].eq(8).all()
    assert (found["hit1"] <= found["hit5"]).all()
    assert (found["hit5"] <= found["hit10"]).all()
    ranks = pd.read_parquet(tmp_path / "robustness.parquet")
    share = (ranks.query("perturbation == 'mix' and level == 6")["rank"] <= 5).mean()
    assert found.loc[("mix", 6.0), "hit5"] == pytest.approx(share)
    genres = pd.read_csv(tmp_path / "robustness_by_genre.csv")
    assert set(genres["genre"]) == {"folk", "jazz"}
    for key, rows in genres.groupby(["perturbation", "level"]):
        assert rows["targets"].sum() == 8
        assert (rows["hit1"] * rows["targets"]).sum() / 8 == pytest.approx(found.loc[key, "hit1"])
    data = json.loads((tmp_path / "robustness.json").read_text())
    assert (data["by"]["column"], len(data["by"]["cells"])) == ("genre", len(genres))
    assert "Hit at 1 by genre" in (tmp_path / "robustness.html").read_text()
    assert (data["clips"], data["tracks"]) == (30, 6)
    page = (tmp_path / "robustness.html").read_text()
    assert "<svg" in page
    assert "<script" not in page
    assert {path.name for path in (tmp_path / "examples" / "gain").glob("*/*")} == {
        "target.flac", "-24.flac", "-12.flac", "-6.flac", "6.flac", "12.flac",
    }  # fmt: skip
    assert not list(tmp_path.glob("*.part"))
    assert "100.0" in done.output


@pytest.mark.slow
def test_partners_from_other_music_and_generations(corpus, tmp_path):
    write(tmp_path / "other" / "o.flac", melody(9, 99))
    (tmp_path / "gen").mkdir()
    write(tmp_path / "gen" / "g.flac", melody(8, 77))
    prompt = corpus / "music" / "2.flac"
    lines = ["generation_id,path,prompt_path,prompt_offset_s,prefix_s", f"g,g.flac,{prompt},6,2"]
    (tmp_path / "gen" / "generations.csv").write_text("\n".join(lines))
    chosen = names("mashup-outside", "mashup-generation")
    out = tmp_path / "out"
    done = run(
        corpus, out, *chosen, "--outside", tmp_path / "other", "--generations", tmp_path / "gen" / "generations.csv"
    )
    assert done.exit_code == 0, (done.output, done.exception)
    found = table(out)
    assert found.loc[("mashup-outside", 95.0), "hit1"] >= 0.75
    assert found.loc[("mashup-generation", 95.0), "hit1"] == 1
    ranks = pd.read_parquet(out / "robustness.parquet").query("perturbation == 'mashup-generation'")
    clips, _ = read_corpus(corpus / "corpus.parquet")
    (target,) = ranks["target"].unique()
    assert (clips["path"][int(target)].as_py(), clips["start_s"][int(target)].as_py()) == ("2.flac", 6.0)


@pytest.mark.slow
def test_missing_partners_are_reported(corpus, tmp_path):
    done = run(corpus, tmp_path, *names("gain", "mashup-outside"))
    assert done.exit_code == 0
    assert "mashup-outside was skipped: no folder of other music was given (--outside)." in done.output


@pytest.mark.slow
def test_a_killed_run_continues_and_gives_the_same_numbers(corpus, tmp_path, monkeypatch):
    out, whole = tmp_path / "killed", tmp_path / "whole"
    kinds = ("noise", "mp3", "resynthesis") if is_soak() else ("noise", "mp3")
    tasks = sum(len(PERTURBATIONS[kind].levels) for kind in kinds)
    chosen = [*names(*kinds), "--targets", "3"]
    options = [
        "analysis", "robustness", "--corpus", corpus / "corpus.parquet", "--vectors", corpus / "v.npy", "--out", out,
        *chosen,
    ]  # fmt: skip
    command = [sys.executable, "-m", "rootnote", *map(str, options)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("*.part/noise_*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(map(is_at_work, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) >= 2 and not any(map(is_at_work, workers)), "none is left behind"
    done = len([path for path in out.glob("*.part/*.json") if not path.name.startswith(".")])  # "." is half-written
    assert 0 < done < tasks
    computed = []
    monkeypatch.setattr(robustness, "ranks", lambda *given: computed.append(1) or ranks(*given))
    assert run(corpus, out, *chosen).exit_code == 0
    assert len(computed) == tasks - done
    assert run(corpus, whole, *chosen).exit_code == 0
    assert (out / "robustness.csv").read_bytes() == (whole / "robustness.csv").read_bytes()


def is_at_work(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_dead_process_is_reported_and_finished_cells_are_kept(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(perturbing, "_do", _die)
    done = run(corpus, tmp_path, *names("gain"))
    assert isinstance(done.exception, RootnoteError)
    assert "worker process died; run the same command again" in str(done.exception)
    monkeypatch.undo()
    assert run(corpus, tmp_path, *names("gain")).exit_code == 0


def _die(task: object) -> None:
    import os

    os._exit(1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--checkpoint", "clmr"), "--checkpoint takes EMBEDDER=PATH"),
        (("--checkpoint", "clmr=x.pt"), "--checkpoint names 'clmr', but none of the vectors are from it."),
        (("--outside", "nowhere", "--perturbation", "mashup-outside"), "nowhere"),
        (("--generations", "nowhere.csv"), "nowhere.csv cannot be read"),
    ],
)
def test_errors_are_one_sentence(corpus, tmp_path, options, sentence):
    done = run(corpus, tmp_path, *options)
    assert isinstance(done.exception, RootnoteError), done.output
    assert sentence in str(done.exception)


def test_missing_inputs_are_usage_errors(tmp_path):
    done = call("analysis", "robustness", "--out", tmp_path)
    assert "give a study folder with --study" in str(done.exception)


def test_vectors_of_another_corpus_are_refused(corpus, tmp_path):
    other = make_corpus(tmp_path, tracks=2, seconds=7)
    done = call(
        "analysis", "robustness", "--corpus", other / "corpus.parquet", "--vectors", corpus / "v.npy", "--out", tmp_path
    )
    assert "is stale (corpus changed since)" in str(done.exception)


@pytest.mark.slow
def test_a_late_clip_is_found_in_an_overlapping_corpus_and_the_rule_is_stated(corpus, tmp_path):
    given = ("--corpus", tmp_path / "corpus.parquet")
    made = [call("embeddings", "cut", corpus / "music", "--out", given[1], "--hop-seconds", 0.75),
            call("embeddings", "embed", *given, "--embedder", "logmel", "--out", tmp_path / "v.npy")]  # fmt: skip
    assert [done.exit_code for done in made] == [0, 0]
    options = ("--vectors", tmp_path / "v.npy", "--out", tmp_path, "--targets", 8, *names("late"))
    done = call("analysis", "robustness", *given, *options)
    assert done.exit_code == 0, (done.output, done.exception)
    assert table(tmp_path).loc[("late", 0.7), "hit1"] == 1
    assert json.loads((tmp_path / "robustness.json").read_text())["hop_seconds"] == 0.75
    assert "share at least half their seconds" in (tmp_path / "robustness.html").read_text()
    run(corpus, tmp_path / "apart", *names("gain"))
    assert "share at least half" not in (tmp_path / "apart" / "robustness.html").read_text()


def test_the_list_names_every_perturbation():
    done = call("analysis", "robustness", "--list")
    assert done.exit_code == 0
    assert "mashup-generation" in done.output
    assert "-12, -9, -6" in done.output


def test_targets_are_clips_whose_recording_continues(corpus):
    from analysis.retrieval.targets import choose, partners

    clips, _ = read_corpus(corpus / "corpus.parquet")
    rows = choose(clips, 100, 0)
    assert len(rows) == 24  # five clips a track; the last one has nothing after it
    tracks = clips["track"].to_numpy()
    assert (tracks[rows] == tracks[rows + 1]).all()
    other = partners(clips, rows, 0)
    assert (tracks[rows[other]] != tracks[rows]).all()
    assert np.array_equal(rows, np.sort(rows))
