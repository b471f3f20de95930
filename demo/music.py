"""A small corpus of synthetic music with graded similarity.

A family is a piece: its progression, melody, metre, tempo, drums and instruments. A version is a sub-family of
it: as written, transposed and at another tempo, or with other instruments. A performance is one Track: the notes of its
version with a player's own timing, touch, ornaments, balance and room. So two tracks are another performance
of the same version, another version of the same piece, or unrelated.
Conventions: samples are float32 in [-1, 1], mono; pitches are MIDI numbers; times are seconds, notes are placed
in beats. Everything is drawn from (seed, family, version, performance), so a track is the same however many there are.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from embeddings.artefacts import replacing

RATE = 22050
VERSIONS = 3
RELEASE = 0.06  # seconds a note rings on after its end
Sound = npt.NDArray[np.float32]

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)
DORIAN = (0, 2, 3, 5, 7, 9, 10)

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
# A drum pattern is a bar of steps a drum: 'x' loud, 'o' soft, '.' rest.
DRUMS: dict[str, dict[str, str]] = {
    "none": {},
    "four": {"kick": "x...x...x...x...", "snare": "....x.......x...", "hat": "..x...x...x...x."},
    "rock": {"kick": "x.....x.x.......", "snare": "....x.......x...", "hat": "x.o.x.o.x.o.x.o."},
    "break": {"kick": "x..x......x..x..", "snare": "....x..o.o..x..o", "hat": "x.xxx.x.x.xxx.x."},
    "bossa": {"kick": "x..ox..ox..ox..o", "rim": "x..x..x...x..x..", "hat": "oooooooooooooooo"},
    "march": {"kick": "x.......x.......", "snare": "x..xx.x.x..xxxxx"},
    "half": {"kick": "x.........x.....", "snare": "........x.......", "hat": "o.o.o.o.o.o.o.oo"},
    "waltz": {"kick": "x...........", "rim": "....x...x...", "hat": "....o...o..."},
    "brush": {"hat": "x..ox..ox..ox..o", "snare": "....o.......o..."},
    "swing": {"kick": "x.......o.......", "hat": "x...x..ox...x..o", "rim": "............x..."},
}


@dataclass(frozen=True)
class Piece:
    """A family: what makes its versions and performances one piece. Chords are degrees of the scale, one a bar."""

    title: str
    genre: str
    tempo: float
    key: int
    scale: tuple[int, ...]
    chords: tuple[int, ...]
    voices: tuple[str, str, str]  # chords, bass, melody
    other_voices: tuple[str, str, str]
    drums: str
    comp: str  # how chords are played: "block", "arpeggio", "offbeat", "sustain", "pulse"
    beats: int = 4
    density: float = 0.6  # how many of the melody's steps are notes


PIECES: tuple[Piece, ...] = (
    Piece("Paper Boats", "waltz", 138, 55, MAJOR, (0, 5, 3, 4, 0, 2, 3, 4), ("piano", "bowed bass", "flute"), ("harp", "finger bass", "clarinet"), "waltz", "block", beats=3),
    Piece("Night Tram", "house", 124, 57, MINOR, (0, 5, 2, 6), ("organ", "synth bass", "square"), ("strings", "synth bass", "bells"), "four", "offbeat"),
    Piece("Salt Road", "folk", 104, 50, DORIAN, (0, 6, 3, 0, 0, 3, 6, 0), ("guitar", "finger bass", "flute"), ("harp", "bowed bass", "clarinet"), "none", "arpeggio", density=0.75),
    Piece("Iron Garden", "rock", 142, 52, MINOR, (0, 0, 5, 6, 0, 0, 3, 4), ("brass", "synth bass", "square"), ("organ", "finger bass", "brass"), "rock", "pulse", density=0.5),
    Piece("Lantern Bay", "bossa nova", 128, 53, MAJOR, (0, 5, 1, 4, 2, 5, 1, 4), ("electric piano", "finger bass", "clarinet"), ("guitar", "finger bass", "flute"), "bossa", "offbeat"),
    Piece("Winter Gate", "ambient", 66, 48, MAJOR, (0, 3, 5, 3), ("strings", "bowed bass", "bells"), ("organ", "bowed bass", "harp"), "none", "sustain", density=0.3),
    Piece("Copper Clock", "minimal", 112, 60, MAJOR, (0, 0, 3, 3, 4, 4, 3, 3), ("marimba", "bowed bass", "marimba"), ("piano", "bowed bass", "bells"), "none", "arpeggio", density=0.9),
    Piece("Low Tide Parade", "march", 116, 58, MAJOR, (0, 4, 0, 3, 0, 4, 1, 4), ("brass", "bowed bass", "brass"), ("clarinet", "bowed bass", "flute"), "march", "block"),
    Piece("Glass Alley", "drum and bass", 168, 50, MINOR, (0, 0, 5, 5, 3, 3, 4, 4), ("strings", "synth bass", "electric piano"), ("organ", "synth bass", "square"), "break", "sustain", density=0.4),
    Piece("Sunday Mile", "soul", 92, 55, DORIAN, (0, 3, 0, 3, 5, 3, 1, 4), ("electric piano", "finger bass", "brass"), ("organ", "finger bass", "clarinet"), "half", "pulse"),
    Piece("Blue Ladder", "swing", 150, 58, MAJOR, (0, 0, 3, 0, 4, 3, 0, 4), ("piano", "finger bass", "clarinet"), ("guitar", "finger bass", "brass"), "swing", "block", density=0.65),
    Piece("Moss Lullaby", "lullaby", 78, 60, MAJOR, (0, 4, 5, 3, 0, 4, 3, 0), ("harp", "bowed bass", "harp"), ("bells", "bowed bass", "flute"), "brush", "arpeggio", density=0.45),
)  # fmt: skip
ENSEMBLES = ("The Synthetic Quintet", "Orchestra of Sines", "Noise Burst Trio", "Additive Society")


@dataclass(frozen=True)
class Note:
    """One sounding note; `level` is linear."""

    onset: float
    seconds: float
    pitch: float
    level: float
    voice: str


@dataclass(frozen=True)
class Take:
    """One track to be made: which performance of which version of which piece, and where it goes."""

    seed: int
    family: int
    version: int
    performance: int
    seconds: float
    path: Path


def synthesise(folder: Path, seed: int, tracks: int = 144, seconds: float = 30.0) -> list[Path]:
    """Write `tracks` pieces of music of `seconds` each as FLAC into `folder`, with a metadata.csv; the files.

    A file that exists is kept, so that a second call costs nothing.

    Raises:
        ValueError: unless there is at least one track and one second.
    """
    if tracks < 1 or seconds < 1:
        raise ValueError("a corpus needs at least one track of one second")
    takes = list(plan(folder, seed, tracks, seconds))
    missing = [take for take in takes if not take.path.is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    if len(missing) > 8:
        # An executor, not a Pool: where a worker cannot start, it says so instead of starting others for ever.
        workers, context = min(os.cpu_count() or 1, 8), multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(workers, mp_context=context) as executor:
            for _ in executor.map(write_take, missing, chunksize=4):
                pass
    else:
        for take in missing:
            write_take(take)
    _write_metadata(folder, takes)
    return [take.path for take in takes]


def plan(folder: Path, seed: int, tracks: int, seconds: float) -> Iterator[Take]:
    """The takes of a corpus: families in turn, so that any number of tracks has as many families as it can."""
    for number in range(tracks):
        family, nth = number % len(PIECES), number // len(PIECES)
        version, performance = nth % VERSIONS, nth // VERSIONS
        piece = PIECES[family]
        name = f"{piece.title.lower().replace(' ', '-')}-{version + 1}-{performance + 1}.flac"
        yield Take(seed, family, version, performance, seconds, folder / name)


def write_take(take: Take) -> None:
    """Perform a take and write it, 16-bit FLAC."""
    sound = perform(take)
    with replacing(take.path) as temporary:
        soundfile.write(temporary, sound, RATE, subtype="PCM_16", format="FLAC")


def _write_metadata(folder: Path, takes: list[Take]) -> None:
    with (
        replacing(folder / "metadata.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["path", "title", "artist", "album", "genre", "year", "licence"])
        for take in takes:
            piece = PIECES[take.family]
            title = f"{piece.title}, version {take.version + 1} (take {take.performance + 1})"
            artist = ENSEMBLES[take.performance % len(ENSEMBLES)]
            writer.writerow(
                [take.path.name, title, artist, piece.title, piece.genre, 2000 + take.version, "CC0-1.0"]
            )


def perform(take: Take) -> Sound:
    """The sound of a take, float32 [seconds * RATE]."""
    piece = arrange(PIECES[take.family], take.version)
    hand = np.random.default_rng([take.seed, take.family, take.version, take.performance])
    notes = list(compose(piece, take, hand))
    samples = round(take.seconds * RATE)
    # Not a whole track's rubato: each performance drifts a little and keeps its own tempo within half a percent.
    stretch = 1 + hand.normal(0, 0.002)
    tuning = hand.normal(0, 0.04)
    sound = render([replace(n, onset=n.onset * stretch, pitch=n.pitch + tuning) for n in notes], samples)
    sound += render_drums(piece, take, hand, stretch, samples)
    sound = add_room(sound, hand)
    return (0.8 * sound / (np.abs(sound).max() + 1e-9)).astype(np.float32)


def arrange(piece: Piece, version: int) -> Piece:
    """A version of a piece: 0 as written, 1 transposed and at another tempo, 2 with other instruments."""
    if version == 1:
        shift = (-3, 2, -2, 3)[len(piece.title) % 4]
        return replace(piece, key=piece.key + shift, tempo=piece.tempo * (1.04 if shift > 0 else 0.96))
    if version == 2:
        return replace(piece, voices=piece.other_voices)
    return piece


def compose(piece: Piece, take: Take, hand: np.random.Generator) -> Iterator[Note]:
    """The notes of a take: chords, bass and melody. The melody is the family's, its ornaments the performer's."""
    beat = 60 / piece.tempo
    bar = beat * piece.beats
    melody = _melody(piece, np.random.default_rng([take.seed, take.family]))
    balance = 10 ** (hand.normal(0, 1.5, 3) / 20)
    swing = hand.normal(0, 0.004)
    for number in range(int(take.seconds / bar) + 1):
        start = number * bar
        degree = piece.chords[number % len(piece.chords)]
        chord = [_pitch(piece, degree + step) for step in (0, 2, 4)]
        parts = [
            (list(_comp(piece, chord)), piece.voices[0], 0.20 * balance[0]),
            (list(_bass(piece, chord[0] - 12)), piece.voices[1], 0.42 * balance[1]),
            (melody[number % len(melody)] if number >= 1 else [], piece.voices[2], 0.34 * balance[2]),
        ]
        for events, voice, level in parts:
            for at, length, pitch in events:
                when = start + at * beat + swing + hand.normal(0, 0.006)
                touch = level * 10 ** (hand.normal(0, 1.0) / 20)
                yield Note(max(0.0, when), length * beat, pitch, float(touch), voice)
        if hand.random() < 0.15 and parts[2][0]:
            at, length, pitch = parts[2][0][0]  # an ornament: the first note of the bar again, from above
            yield Note(start + max(0.0, at - 0.12) * beat, 0.12 * beat, pitch + 2, 0.2, piece.voices[2])


def _pitch(piece: Piece, degree: int) -> int:
    octave, step = divmod(degree, len(piece.scale))
    return piece.key + 12 * octave + piece.scale[step]


Event = tuple[float, float, float]  # beat in the bar, length in beats, pitch


def _melody(piece: Piece, rng: np.random.Generator) -> list[list[Event]]:
    """Eight bars: a motif of two, answered and varied, that walks by steps and rests on notes of the chord."""
    motif = [_phrase(piece, rng) for _ in range(3)]
    order = (0, 1, 0, 2, 0, 1, 2, 2)
    bars = []
    degree = 7
    for number, which in enumerate(order):
        root = piece.chords[number % len(piece.chords)]
        degree = 7 + root if root < 4 else root
        bars.append([(at, length, float(_pitch(piece, degree + step))) for at, length, step in motif[which]])
    return bars


def _phrase(piece: Piece, rng: np.random.Generator) -> list[tuple[float, float, int]]:
    steps = piece.beats * 2
    starts = [0, *(step for step in range(1, steps) if rng.random() < piece.density)]
    walk = np.cumsum(rng.choice([-2, -1, -1, 0, 1, 1, 2], len(starts)))
    walk = np.clip(walk - walk[0] + rng.choice([0, 2, 4]), -3, 7)
    ends = [*starts[1:], steps]
    return [(s / 2, (e - s) / 2 * 0.92, int(w)) for s, e, w in zip(starts, ends, walk, strict=True)]


def _comp(piece: Piece, chord: list[int]) -> Iterator[Event]:
    beats = piece.beats
    if piece.comp == "sustain":
        for pitch in (*chord, chord[0] + 12):
            yield 0.0, beats * 0.97, pitch
    elif piece.comp == "arpeggio":
        pattern = (chord[0], chord[1], chord[2], chord[0] + 12, chord[2], chord[1])
        for step, pitch in zip(range(beats * 2), islice(cycle(pattern), beats * 2), strict=True):
            yield step / 2, 0.9, pitch
    else:
        hits = {
            "block": [(b, 0.7) for b in ((1, 2) if beats == 3 else (0, 2))],
            "offbeat": [(b + 0.5, 0.35) for b in range(beats)],
            "pulse": [(b / 2, 0.4) for b in range(beats * 2)],
        }[piece.comp]
        for at, length in hits:
            for pitch in chord:
                yield at, length, pitch


def _bass(piece: Piece, root: int) -> Iterator[Event]:
    pattern = {
        "swing": [(b, 0.9, (0, 4, 7, 9)[b]) for b in range(4)],
        "four": [(b + 0.5, 0.4, 0) for b in range(4)],
        "break": [(0, 1.4, 0), (1.5, 0.9, 0), (2.5, 1.4, 7)],
        "bossa": [(0, 1.3, 0), (1.5, 0.4, 7), (2, 1.3, 7), (3.5, 0.4, 0)],
        "rock": [(b / 2, 0.45, 0) for b in range(8)],
    }.get(piece.drums, [(0, piece.beats * 0.9, 0)])
    for at, length, interval in pattern:
        yield at, length, root + interval


def render(notes: list[Note], samples: int) -> npt.NDArray[np.float64]:
    """Mix notes, float64 [samples]; each distinct note is made once."""
    mix = np.zeros(samples)
    made: dict[tuple[str, float, int], npt.NDArray[np.float64]] = {}
    for note in notes:
        length = round((note.seconds + RELEASE) * RATE)
        key = (note.voice, note.pitch, length)
        if key not in made:
            made[key] = sound_note(note.voice, note.pitch, length)
        at = round(note.onset * RATE)
        piece = made[key][: max(0, samples - at)]
        mix[at : at + len(piece)] += note.level * piece
    return mix


def sound_note(voice: str, pitch: float, samples: int) -> npt.NDArray[np.float64]:
    """One note of a voice, float64 [samples], additive or by frequency modulation."""
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


def render_drums(
    piece: Piece, take: Take, hand: np.random.Generator, stretch: float, samples: int
) -> npt.NDArray[np.float64]:
    """The drum track, float64 [samples]; the kit is tuned by the version, its level is the performer's."""
    mix = np.zeros(samples)
    kit = {
        name: _drum(name, np.random.default_rng([take.seed, take.family, take.version]))
        for name in DRUM_NAMES
    }
    level = 0.5 * 10 ** (hand.normal(0, 1.5) / 20)
    bar = 60 / piece.tempo * piece.beats * stretch
    for number in range(int(take.seconds / bar) + 1):
        for name, steps in DRUMS[piece.drums].items():
            for step, mark in enumerate(steps):
                if mark == ".":
                    continue
                when = (number + step / len(steps)) * bar + abs(hand.normal(0, 0.004))
                at = round(when * RATE)
                hit = kit[name][: max(0, samples - at)]
                mix[at : at + len(hit)] += (
                    hit * level * (1.0 if mark == "x" else 0.45) * hand.uniform(0.85, 1.1)
                )
    return mix


DRUM_NAMES = ("kick", "snare", "hat", "rim")


def _drum(name: str, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    time = np.arange(round(0.3 * RATE)) / RATE
    noise = rng.normal(0, 1, len(time))
    tune = rng.uniform(0.9, 1.1)
    if name == "kick":
        return np.asarray(
            np.sin(2 * np.pi * tune * (48 * time - 5.0 * np.exp(-time * 28))) * np.exp(-time * 13) * 1.3
        )
    if name == "snare":
        body = np.sin(2 * np.pi * 190 * tune * time) * np.exp(-time * 28)
        return np.asarray(0.5 * body + 0.35 * noise * np.exp(-time * 20))
    if name == "rim":
        return np.asarray(0.7 * np.sin(2 * np.pi * 1100 * tune * time) * np.exp(-time * 70))
    bright = np.diff(np.diff(noise, prepend=0.0), prepend=0.0)
    return np.asarray(0.09 * bright * np.exp(-time * 45))


def add_room(sound: npt.NDArray[np.float64], hand: np.random.Generator) -> npt.NDArray[np.float64]:
    """The sound in a small room of the performance's own: a decaying noise tail, float64 [samples]."""
    length = round(0.5 * RATE)
    tail = hand.normal(0, 1, length) * np.exp(-np.arange(length) / RATE / hand.uniform(0.06, 0.14))
    tail *= hand.uniform(0.10, 0.22) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    size = 1 << (len(sound) + length - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]
    wet += hand.normal(0, 3e-4, len(sound))
    return np.asarray(wet)
