"""The listening prescreen: count the tones.

An item is a short sound with some tones in it; the listener writes how many. An attempt is a few items and
passes when every one is right. Sounds are mono, so that they are the same on headphones and loudspeakers.
Conventions: samples are float32 in [-1, 1], shape [samples]; an item lasts the same however many tones it has,
and is served as PCM, so that neither length nor size tells the count.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from study.config import PrescreenConfig

SAMPLE_RATE = 22050
TONE_SECONDS = 0.22
GAP_SECONDS = 0.20  # the least silence between two tones: below about 0.1 s people begin to miscount
SLOT_SECONDS = 0.55
EDGE_SECONDS = 0.35
RAMP_SECONDS = 0.01
LEVEL = 0.2  # peak of a tone

Sound = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ToneItem:
    """What an item sounds like: `count` tones at times and pitches drawn from `seed`, in `slots` slots of time."""

    count: int
    slots: int
    seed: int


def draw_item(rng: np.random.Generator, config: PrescreenConfig) -> ToneItem:
    """Draw a fresh item; every count from `min_tones` to `max_tones` is equally likely."""
    count = int(rng.integers(config.min_tones, config.max_tones, endpoint=True))
    return ToneItem(count, config.max_tones, int(rng.integers(0, 2**53)))


def draw_attempt(rng: np.random.Generator, config: PrescreenConfig) -> list[ToneItem]:
    """Draw the items of one attempt."""
    return [draw_item(rng, config) for _ in range(config.items)]


def synthesise(item: ToneItem, sample_rate: int = SAMPLE_RATE) -> Sound:
    """Make the sound of an item, float32 [samples]; its length depends on `item.slots` alone."""
    rng = np.random.default_rng(item.seed)
    room = item.slots * SLOT_SECONDS
    sound = np.zeros(round((room + 2 * EDGE_SECONDS) * sample_rate), dtype=np.float32)
    # What the tones and their least gaps leave of the room is dealt out at random between them.
    slack = room - item.count * (TONE_SECONDS + GAP_SECONDS)
    cuts = np.sort(rng.uniform(0.0, slack, item.count))
    for index, cut in enumerate(cuts):
        onset = round((EDGE_SECONDS + cut + index * (TONE_SECONDS + GAP_SECONDS)) * sample_rate)
        tone = _tone(440.0 * 2 ** (int(rng.integers(-2, 12)) / 12), sample_rate)
        sound[onset : onset + len(tone)] += tone
    return sound


def _tone(frequency: float, sample_rate: int) -> Sound:
    time = np.arange(round(TONE_SECONDS * sample_rate)) / sample_rate
    ramp = np.clip(np.minimum(time, time[-1] - time) / RAMP_SECONDS, 0.0, 1.0)
    envelope = 0.5 - 0.5 * np.cos(np.pi * ramp)
    return np.asarray(LEVEL * envelope * np.sin(2 * np.pi * frequency * time), dtype=np.float32)


def grade(items: Sequence[ToneItem], answers: Sequence[int]) -> bool:
    """Whether an attempt passes: every item answered, every answer right.

    Raises:
        ValueError: where items and answers differ in number.
    """
    return all(answer == item.count for item, answer in zip(items, answers, strict=True))


def chance_of_guessing(config: PrescreenConfig) -> float:
    """The probability of passing by answering at random within the range."""
    choices = config.max_tones - config.min_tones + 1
    return float(1 - (1 - (1 / choices) ** config.items) ** config.attempts)


def volume_sound(loudness_dbfs: float, sample_rate: int = SAMPLE_RATE, seconds: float = 4.0) -> Sound:
    """A soft broken chord to set the volume by, float32 [samples], at about the loudness of the clips.

    Between 200 and 800 Hz the K-weighting of ITU-R BS.1770 is nearly flat, so RMS in dBFS stands for LUFS.
    """
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    sound = np.zeros(len(time))
    notes = (261.63, 329.63, 392.00, 523.25, 392.00, 329.63, 261.63, 392.00)
    for index, frequency in enumerate(notes):
        since = time - index * seconds / len(notes)
        sounding = since >= 0
        envelope = np.where(sounding, np.minimum(since / RAMP_SECONDS, 1.0) * np.exp(-np.maximum(since, 0) / 0.9), 0)
        for harmonic, weight in ((1, 1.0), (2, 0.35), (3, 0.12)):
            sound += envelope * weight * np.sin(2 * np.pi * frequency * harmonic * since)
    sound *= np.clip((seconds - time) / 0.05, 0.0, 1.0)
    return np.asarray(sound * 10 ** (loudness_dbfs / 20) / np.sqrt(np.mean(sound**2)), dtype=np.float32)


def encode_wav(sound: Sound, sample_rate: int = SAMPLE_RATE) -> bytes:
    """16-bit mono PCM; the number of bytes depends on the number of samples alone."""
    pcm = np.round(np.clip(sound, -1.0, 1.0) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()
