"""The tone counting prescreen, on its rendered sound."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from study.config import PrescreenConfig
from study.prescreen import (
    SAMPLE_RATE,
    ToneItem,
    chance_of_guessing,
    draw_attempt,
    encode_wav,
    grade,
    synthesise,
    volume_sound,
)

DEFAULT = PrescreenConfig()


def count_tones(sound: np.ndarray) -> int:
    frames = np.abs(sound[: len(sound) // 441 * 441]).reshape(-1, 441).max(axis=1) > 0.02
    return int(np.sum(frames[1:] & ~frames[:-1]))


@settings(max_examples=80, deadline=None)
@given(slots=st.integers(2, 16), seed=st.integers(0, 2**53 - 1), data=st.data())
def test_the_sound_has_as_many_tones_as_it_says(slots: int, seed: int, data: st.DataObject) -> None:
    item = ToneItem(data.draw(st.integers(1, slots)), slots, seed)
    sound = synthesise(item)
    assert count_tones(sound) == item.count
    assert sound.dtype == np.float32
    assert np.abs(sound).max() <= 0.2 + 1e-6
    assert np.array_equal(sound, synthesise(item))
    # Nothing but the tones tells the count.
    assert len(encode_wav(sound)) == len(encode_wav(synthesise(ToneItem(slots, slots, 0))))


def test_every_count_is_equally_likely() -> None:
    rng = np.random.default_rng(3)
    counts = [item.count for _ in range(1000) for item in draw_attempt(rng, DEFAULT)]
    assert set(counts) == {4, 5, 6, 7, 8}
    assert np.bincount(counts)[4:].min() > 330


def test_grading_needs_every_item_right() -> None:
    items = [ToneItem(4, 8, 1), ToneItem(7, 8, 2)]
    assert grade(items, [4, 7])
    assert not grade(items, [4, 6])
    with pytest.raises(ValueError, match="zip"):
        grade(items, [4])


def test_guessing() -> None:
    rng = np.random.default_rng(5)
    passed = 0
    for _ in range(4000):
        attempts = [draw_attempt(rng, DEFAULT) for _ in range(DEFAULT.attempts)]
        passed += any(grade(items, list(rng.integers(4, 9, len(items)))) for items in attempts)
    assert chance_of_guessing(DEFAULT) == pytest.approx(1 - (1 - 1 / 25) ** 2)
    assert passed / 4000 == pytest.approx(chance_of_guessing(DEFAULT), abs=0.015)


def test_the_wav_can_be_read_back() -> None:
    sound = synthesise(ToneItem(5, 8, 9))
    samples, rate = soundfile.read(io.BytesIO(encode_wav(sound)))
    assert rate == SAMPLE_RATE
    assert samples.shape == sound.shape
    assert np.abs(samples - sound).max() < 1e-4


def test_the_volume_sound_is_as_loud_as_the_clips() -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    sound = volume_sound(-23.0)
    assert pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(sound.astype(float)) == pytest.approx(-23, abs=1.5)
    assert np.abs(sound).max() < 0.9
