"""The demo's sounds: notes by additive and frequency-modulation synthesis, drums from noise, and a small room.

Conventions: sounds are float64 mono, shape [samples] at `RATE`; pitches are MIDI numbers, times seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RATE = 22050
RELEASE = 0.06  # seconds for which a note sounds after its end
DRUM_NAMES = ("kick", "snare", "hat", "rim")
Sound = npt.NDArray[np.float64]

# A voice is a recipe: (harmonic amplitudes, decay per second, how much faster high harmonics die, attack s, vibrato).
VOICES: dict[str, tuple[tuple[float, ...], float, float, float, float]] = {
    "piano": ((1.0, 0.6, 0.35, 0.22, 0.12, 0.08, 0.05), 2.2, 0.9, 0.004, 0.0),
    "guitar": ((1.0, 0.8, 0.6, 0.45, 0.3, 0.22, 0.15, 0.1, 0.07), 3.0, 1.4, 0.002, 0.0),
    "harp": ((1.0, 0.3, 0.25, 0.08, 0.05), 2.6, 0.8, 0.002, 0.0),
    "organ": ((1.0, 0.9, 0.1, 0.6, 0.0, 0.15, 0.0, 0.35), 0.0, 0.0, 0.02, 0.002),
    "strings": ((1.0, 0.5, 0.45, 0.3, 0.25, 0.18, 0.12, 0.1, 0.07, 0.05), 0.0, 0.0, 0.09, 0.004),
    "flute": ((1.0, 0.28, 0.09, 0.03), 0.0, 0.0, 0.05, 0.006),
    "clarinet": ((1.0, 0.04, 0.55, 0.03, 0.3, 0.02, 0.12), 0.0, 0.0, 0.035, 0.003),
    "brass": ((1.0, 0.9, 0.75, 0.55, 0.4, 0.28, 0.18, 0.1), 0.3, 0.25, 0.04, 0.003),
    "square": ((1.0, 0.0, 0.33, 0.0, 0.2, 0.0, 0.14, 0.0, 0.11, 0.0, 0.09), 0.6, 0.0, 0.003, 0.004),
    "finger bass": ((1.0, 0.5, 0.25, 0.1, 0.05), 1.6, 0.7, 0.006, 0.0),
    "synth bass": ((1.0, 0.5, 0.33, 0.25, 0.2, 0.16, 0.14), 0.8, 0.8, 0.004, 0.0),
    "bowed bass": ((1.0, 0.6, 0.3, 0.2, 0.1), 0.0, 0.0, 0.08, 0.002),
}
# FM voices: (modulator ratio, index at the onset, decay of the index per second, decay per second).
FM_VOICES: dict[str, tuple[float, float, float, float]] = {
    "electric piano": (1.0, 1.6, 3.0, 1.6),
    "bells": (3.5, 2.2, 2.0, 1.8),
    "marimba": (4.0, 1.0, 25.0, 6.0),
}


@dataclass(frozen=True)
class Note:
    """One note; `level` is linear amplitude."""

    onset: float
    seconds: float
    pitch: float
    level: float
    voice: str


def render(notes: list[Note], samples: int) -> Sound:
    """Mix notes; each distinct note is synthesised once."""
    mix = np.zeros(samples)
    made: dict[tuple[str, float, int], Sound] = {}
    for note in notes:
        length = round((note.seconds + RELEASE) * RATE)
        key = (note.voice, note.pitch, length)
        if key not in made:
            made[key] = sound_note(note.voice, note.pitch, length)
        at = round(note.onset * RATE)
        piece = made[key][: max(0, samples - at)]
        mix[at : at + len(piece)] += note.level * piece
    return mix


def sound_note(voice: str, pitch: float, samples: int) -> Sound:
    """One note of a voice, by additive or frequency-modulation synthesis."""
    time = np.arange(samples) / RATE
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    end = np.clip((samples / RATE - time) / RELEASE, 0.0, 1.0)
    if voice in FM_VOICES:
        ratio, index, index_decay, decay = FM_VOICES[voice]
        modulator = index * np.exp(-index_decay * time) * np.sin(2 * np.pi * ratio * frequency * time)
        tone = np.sin(2 * np.pi * frequency * time + modulator) * np.exp(-decay * time)
        return np.asarray(tone * np.clip(time / 0.003, 0.0, 1.0) * end)
    harmonics, decay, damping, attack, vibrato = VOICES[voice]
    phase = 2 * np.pi * frequency * time
    if vibrato:
        phase = phase + vibrato * frequency / 5.2 * np.sin(2 * np.pi * 5.2 * time) * np.clip(time / 0.4, 0, 1)
    tone = np.zeros(samples)
    for number, amplitude in enumerate(harmonics, start=1):
        if amplitude == 0 or number * frequency > 0.45 * RATE:
            continue
        envelope = np.exp(-(decay + damping * (number - 1)) * time) if decay or damping else 1.0
        tone += amplitude * envelope * np.sin(number * phase)
    return np.asarray(tone / np.sqrt(np.sum(np.square(harmonics))) * np.clip(time / attack, 0.0, 1.0) * end)


def sound_drum(name: str, rng: np.random.Generator) -> Sound:
    time = np.arange(round(0.3 * RATE)) / RATE
    noise = rng.normal(0, 1, len(time))
    tune = rng.uniform(0.9, 1.1)
    if name == "kick":
        return np.asarray(np.sin(2 * np.pi * tune * (48 * time - 5.0 * np.exp(-time * 28))) * np.exp(-time * 13) * 1.3)
    if name == "snare":
        body = np.sin(2 * np.pi * 190 * tune * time) * np.exp(-time * 28)
        return np.asarray(0.5 * body + 0.35 * noise * np.exp(-time * 20))
    if name == "rim":
        return np.asarray(0.7 * np.sin(2 * np.pi * 1100 * tune * time) * np.exp(-time * 70))
    bright = np.diff(np.diff(noise, prepend=0.0), prepend=0.0)
    return np.asarray(0.09 * bright * np.exp(-time * 45))


def add_room(sound: Sound, hand: np.random.Generator) -> Sound:
    """Add a small random room to the sound: a decaying noise tail."""
    length = round(0.5 * RATE)
    tail = hand.normal(0, 1, length) * np.exp(-np.arange(length) / RATE / hand.uniform(0.06, 0.14))
    tail *= hand.uniform(0.10, 0.22) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    size = 1 << (len(sound) + length - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]
    wet += hand.normal(0, 3e-4, len(sound))
    return np.asarray(wet)
