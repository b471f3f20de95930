"""Stimuli: measured on the rendered files with independent implementations."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample

from study.config_sections import StimuliConfig
from study.stimuli.flac import fill_up, size_for_all
from study.stimuli.render import ClipSource, render, render_all

RATE = 44_100
CONFIG = StimuliConfig()


def decode(flac: bytes) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="float64")
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
    assert pyloudnorm.Meter(RATE).integrated_loudness(decode(rendered.flac)) == pytest.approx(-23, abs=0.1)


def test_true_peak_wins_over_loudness() -> None:
    clicks = 1e-4 * music(2)
    clicks[RATE :: RATE // 2] = 0.9
    samples = decode(render(clicks, CONFIG, np.random.default_rng(1)).flac)
    peak = 20 * np.log10(np.abs(resample(samples, 4 * len(samples))).max())
    assert -1.6 < peak <= -1.0
    assert pyloudnorm.Meter(RATE).integrated_loudness(samples) < -23


def test_clips_without_a_gated_loudness_are_matched_by_rms() -> None:
    short = render(music(3, seconds=0.3), CONFIG, np.random.default_rng(1))
    quiet = render(music(3, level=1e-5), CONFIG, np.random.default_rng(1))
    for rendered in (short, quiet):
        assert rendered.loudness == "RMS"
        rms = 20 * np.log10(np.sqrt(np.mean(decode(rendered.flac) ** 2)))
        assert rms == pytest.approx(-23, abs=0.1)


def test_fades_begin_and_end_in_silence() -> None:
    samples = decode(render(0.1 * np.ones(3 * RATE) + music(4), CONFIG, np.random.default_rng(1)).flac)
    assert np.abs(samples[[0, 1, -2, -1]]).max() < 2e-3
    assert np.abs(samples[441:-441]).max() > 0.05


def test_files_have_no_metadata_and_equal_sizes(tmp_path: Path) -> None:
    sources = []
    for number in range(3):
        path = tmp_path / f"track{number}.wav"
        soundfile.write(path, np.concatenate([music(number), music(number + 9)]).astype(np.float32), RATE)
        sources += [ClipSource(2 * number, path, 0.0), ClipSource(2 * number + 1, path, 3.0)]
    out = tmp_path / "build" / "stimuli"
    first = render_all(out, sources, {3}, CONFIG, 3.0)
    assert sorted(first) == ["0", "1", "2", "3", "3/catch", "4", "5"]
    assert {path.name for path in out.iterdir()} == {entry["file"] for entry in first.values()}
    for entry in first.values():
        assert len(entry["file"]) == len("0123456789abcdef.flac")
        info = soundfile.info(out / entry["file"])
        assert (info.frames, info.samplerate, info.channels, info.subtype) == (3 * RATE, RATE, 1, "PCM_16")
        assert b"track" not in (out / entry["file"]).read_bytes()
    assert len({(out / entry["file"]).stat().st_size for entry in first.values()}) == 1
    # A catch trial's copy of X sounds the same and is another file byte by byte.
    x, copy = ((out / first[key]["file"]).read_bytes() for key in ("3", "3/catch"))
    assert first["3"]["sha256"] != first["3/catch"]["sha256"]
    assert np.abs(decode(x) - decode(copy)).max() < 1e-4
    # Rendering again replaces all: nothing of the first time is left.
    second = render_all(out, sources[:2], set(), CONFIG, 3.0)
    assert {path.name for path in out.iterdir()} == {entry["file"] for entry in second.values()}
    assert [path.name for path in out.parent.iterdir()] == ["stimuli"]


# ------------------------------------------------------------------ files of one size


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), loudness=st.floats(0, 0.5), more=st.integers(0, 5000))
def test_padding_keeps_the_sound_and_removes_traces(seed: int, loudness: float, more: int) -> None:
    flac = render(loudness * music(seed, seconds=0.05), CONFIG, np.random.default_rng(seed)).flac
    size = size_for_all([len(flac), len(flac) // 2]) + more
    filled = fill_up(flac, size)
    assert len(filled) == size
    assert np.array_equal(decode(filled), decode(flac))
    info = flac[: len(b"fLaC") + 4 + 34]
    output = [index for index, (one, other) in enumerate(zip(filled, info, strict=False)) if one != other]
    assert set(output) <= {4, *range(12, 18), *range(26, 42)}
    assert not any(filled[12:18]), "sizes of frames"
    assert not any(filled[26:42]), "checksum of the samples"
    assert fill_up(filled, size + 4).startswith(filled[:4]), "once more is harmless"


def test_files_that_cannot_be_padded_are_refused() -> None:
    flac = render(music(1, seconds=0.05), CONFIG, np.random.default_rng(1)).flac
    for data, size in ((b"RIFF" + flac, 10**6), (flac[:20], 10**6), (flac, len(flac) + 3), (flac, 1 << 25)):
        with pytest.raises(ValueError, match=r"not a FLAC file|cannot be filled up"):
            fill_up(data, size)
