"""Stimuli: measured on the rendered files with independent implementations."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import soundfile
from scipy.signal import resample

from study.config_sections import StimuliConfig
from study.secret_key import SecretKey, draw_key
from study.stimuli.render import ClipSource, render, render_all

RATE = 44_100
CONFIG = StimuliConfig()


def decode(wav: bytes) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float64")
    assert rate == RATE
    assert samples.ndim == 1
    return samples


def music(seed: int, level: float = 0.1, seconds: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * f * time + rng.uniform(0, 6)) for f in rng.uniform(100, 4000, 5))
    return level * np.asarray(tones + rng.normal(0, 0.1, len(time)))


@pytest.mark.parametrize("level", [0.001, 0.05, 0.3])
def test_loudness_is_the_target(level: float) -> None:
    rendered = render(music(1, level), CONFIG, np.random.default_rng(1))
    assert rendered.loudness == "BS.1770"
    assert pyloudnorm.Meter(RATE).integrated_loudness(decode(rendered.wav)) == pytest.approx(-23, abs=0.1)


def test_true_peak_wins_over_loudness() -> None:
    clicks = 1e-4 * music(2)
    clicks[RATE :: RATE // 2] = 0.9
    samples = decode(render(clicks, CONFIG, np.random.default_rng(1)).wav)
    peak = 20 * np.log10(np.abs(resample(samples, 4 * len(samples))).max())
    assert -1.6 < peak <= -1.0
    assert pyloudnorm.Meter(RATE).integrated_loudness(samples) < -23


def test_clips_without_a_gated_loudness_are_matched_by_rms() -> None:
    short = render(music(3, seconds=0.3), CONFIG, np.random.default_rng(1))
    quiet = render(music(3, level=1e-5), CONFIG, np.random.default_rng(1))
    for rendered in (short, quiet):
        assert rendered.loudness == "RMS"
        rms = 20 * np.log10(np.sqrt(np.mean(decode(rendered.wav) ** 2)))
        assert rms == pytest.approx(-23, abs=0.1)


def test_fades_begin_and_end_in_silence() -> None:
    samples = decode(render(0.1 * np.ones(3 * RATE) + music(4), CONFIG, np.random.default_rng(1)).wav)
    assert np.abs(samples[[0, 1, -2, -1]]).max() < 2e-3
    assert np.abs(samples[441:-441]).max() > 0.05


KEY = SecretKey(bytes(range(32)))


def write_tracks(folder: Path) -> list[ClipSource]:
    sources = []
    for number in range(3):
        path = folder / f"track{number}.wav"
        soundfile.write(path, np.concatenate([music(number), music(number + 9)]).astype(np.float32), RATE)
        sources += [ClipSource(2 * number, path, 0.0), ClipSource(2 * number + 1, path, 3.0)]
    return sources


def test_files_are_alike_but_for_their_samples(tmp_path: Path) -> None:
    out, sources = tmp_path / "build" / "stimuli", write_tracks(tmp_path)
    first = render_all(out, sources, {3}, CONFIG, 3.0, KEY)
    assert sorted(first) == ["0", "1", "2", "3", "3/catch", "4", "5"]
    assert {path.name for path in out.iterdir()} == {entry["file"] for entry in first.values()}
    files = {key: (out / entry["file"]).read_bytes() for key, entry in first.items()}
    for entry in first.values():
        info = soundfile.info(out / entry["file"])
        assert (info.frames, info.samplerate, info.channels, info.subtype) == (3 * RATE, RATE, 1, "PCM_16")
    assert {len(data) for data in files.values()} == {44 + 2 * 3 * RATE}
    (header,) = {data[:44] for data in files.values()}
    assert (header[:4], header[8:16], header[36:40]) == (b"RIFF", b"WAVEfmt ", b"data")
    # A catch trial's copy of X sounds the same and is another file byte by byte.
    assert files["3"] != files["3/catch"]
    assert np.abs(decode(files["3"]) - decode(files["3/catch"])).max() < 1e-4
    # Rendering again replaces all: nothing of the first time is left.
    second = render_all(out, sources[:2], set(), CONFIG, 3.0, KEY)
    assert {path.name for path in out.iterdir()} == {entry["file"] for entry in second.values()}
    assert [path.name for path in out.parent.iterdir()] == ["stimuli"]


def test_the_key_decides_names_and_bytes(tmp_path: Path) -> None:
    sources = write_tracks(tmp_path)
    made = [render_all(tmp_path / name, sources, {1}, CONFIG, 3.0, KEY) for name in ("one", "same")]
    other = render_all(tmp_path / "other", sources, {1}, CONFIG, 3.0, draw_key())
    assert made[0] == made[1]
    for key, entry in made[0].items():
        assert entry["file"] != other[key]["file"]
        assert entry["sha256"] != other[key]["sha256"]
        assert entry["gain_db"] == other[key]["gain_db"]
    names = [entry["file"] for _, entry in sorted(made[0].items())]
    assert names != sorted(names), "the order of the names does not follow the rows"
