"""The demo: its music, and a complete run through the public commands."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.cli import MARK
from demo.music import VERSIONS, Take, perform, plan, synthesise
from demo.pieces import PIECES
from demo.sound import RATE


def rootnote(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rootnote", *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    return result


def test_a_corpus_has_tracks_and_metadata_and_is_reused(tmp_path: Path) -> None:
    files = synthesise(tmp_path / "music", seed=4, tracks=5, seconds=2.0)
    assert len(files) == 5
    for path in files:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.frames, info.format) == (RATE, 1, 2 * RATE, "FLAC")
    with (tmp_path / "music" / "metadata.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [path.name for path in files]
    assert {row["licence"] for row in rows} == {"CC0-1.0"}
    before = {path: path.stat().st_mtime_ns for path in files}
    assert synthesise(tmp_path / "music", seed=4, tracks=5, seconds=2.0) == files
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_the_full_corpus_has_families_versions_and_performances(tmp_path: Path) -> None:
    takes = list(plan(tmp_path, seed=1, tracks=144, seconds=30.0))
    assert len({take.path for take in takes}) == 144
    assert len({(take.family, take.version) for take in takes}) == len(PIECES) * VERSIONS
    assert {take.performance for take in takes} == {0, 1, 2, 3}


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.integers(0, len(PIECES) - 1), st.integers(0, VERSIONS - 1), st.integers(0, 9))
def test_every_take_is_music_of_full_scale_and_repeatable(
    seed: int, family: int, version: int, performance: int
) -> None:
    take = Take(seed, family, version, performance, 3.0, Path("unused.flac"))
    sound = perform(take)
    assert sound.shape == (3 * RATE,)
    assert np.abs(sound).max() == pytest.approx(0.8, abs=1e-3)
    assert np.sqrt(np.mean(sound**2)) > 0.02
    np.testing.assert_array_equal(sound, perform(take))


def test_a_folder_not_made_by_the_demo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = rootnote("demo", "--dir", str(tmp_path), status=1)
    assert f"{tmp_path} is not empty" in result.stderr and "--dir" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_demo_of_another_seed_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".rootnote-demo.json").write_text('{"seed": 3}')
    result = rootnote("demo", "--dir", str(tmp_path), "--seed", "4", status=1)
    assert "the demo with --seed 3" in result.stderr


@pytest.mark.slow
def test_the_whole_demo_and_a_second_run(tmp_path: Path, demo_music: Path) -> None:
    folder = tmp_path / "demo"
    (folder / "music").mkdir(parents=True)
    (folder / MARK).write_text('{"seed": 1}')  # as when the demo was interrupted after it had made the music
    for file in demo_music.iterdir():
        (folder / "music" / file.name).hardlink_to(file)
    output = rootnote("demo", "--dir", str(folder)).stdout
    assert "simulated" in output and "Bin 1" in output and "$ rootnote study build" in output
    report = folder / "rehearsal" / "report"
    assert str(report / "report.html") in output.replace("\n", "")
    pairs = json.loads((report / "table1.json").read_text())["logmel"]["pairs"]
    assert {pair: cell["n"] for pair, cell in pairs.items()} == dict.fromkeys(
        ("1-2", "1-3", "1-4", "2-3", "2-4", "3-4"), 150
    )
    assert all(cell["rate"] > 0.55 for cell in pairs.values()), "similarity is graded, and simulated listeners hear it"
    built = (folder / "build" / "schedule.parquet").stat().st_mtime_ns
    again = rootnote("demo", "--dir", str(folder), "--listeners", "6").stdout
    assert "up to date" in again and "6 finished" in again
    assert (folder / "build" / "schedule.parquet").stat().st_mtime_ns == built
