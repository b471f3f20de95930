"""A small corpus of synthetic music with graded similarity.

A family is a piece: its progression, melody, metre, tempo, drums and instruments. A version of a piece is as written,
transposed and at another tempo, or with other instruments. A performance is one track: the notes of its version with
its own timing, touch, ornaments, balance and room. So two tracks are performances of the same version, different
versions of the same piece, or unrelated.
Conventions: pitches are MIDI numbers, times are seconds, positions of notes are beats. Random numbers depend only on
(seed, family, version, performance), so a track is the same whatever the number of tracks.
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
import soundfile

from demo.pieces import DRUMS, PIECES, DemoPiece
from demo.sound import DRUM_NAMES, RATE, Note, Sound, add_room, render, sound_drum
from embeddings.provenance import replacing

VERSIONS = 3
Event = tuple[float, float, float]  # beat in the bar, length in beats, pitch
ENSEMBLES = ("The Synthetic Quintet", "Orchestra of Sines", "Noise Burst Trio", "Additive Society")


@dataclass(frozen=True)
class Take:
    """One track: its piece, version and performance, and its file."""

    seed: int
    family: int
    version: int
    performance: int
    seconds: float
    path: Path


def synthesise(folder: Path, seed: int, tracks: int = 144, seconds: float = 30.0) -> list[Path]:
    """Write `tracks` tracks of `seconds` each as FLAC into `folder`, with a metadata.csv; returns the files.

    Existing files are kept, so a second call costs nothing.

    Raises:
        ValueError: if `tracks` or `seconds` is below 1.
    """
    if tracks < 1 or seconds < 1:
        raise ValueError("a corpus needs at least one track of one second")
    takes = list(plan(folder, seed, tracks, seconds))
    missing = [take for take in takes if not take.path.is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    if len(missing) > 8:
        # An executor, not a Pool: if a worker cannot start, it fails instead of starting others forever.
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
    """The takes of a corpus, families in turn, so that any number of tracks has as many families as possible."""
    for number in range(tracks):
        family, nth = number % len(PIECES), number // len(PIECES)
        version, performance = nth % VERSIONS, nth // VERSIONS
        piece = PIECES[family]
        name = f"{piece.title.lower().replace(' ', '-')}-{version + 1}-{performance + 1}.flac"
        yield Take(seed, family, version, performance, seconds, folder / name)


def write_take(take: Take) -> None:
    """Perform a take and write it as 16-bit FLAC."""
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
            writer.writerow([take.path.name, title, artist, piece.title, piece.genre, 2000 + take.version, "CC0-1.0"])


def perform(take: Take) -> Sound:
    """The sound of a take, [seconds * RATE], peak 0.8."""
    piece = arrange(PIECES[take.family], take.version)
    hand = np.random.default_rng([take.seed, take.family, take.version, take.performance])
    notes = list(compose(piece, take, hand))
    samples = round(take.seconds * RATE)
    # Performances differ slightly in tempo and tuning.
    stretch = 1 + hand.normal(0, 0.002)
    tuning = hand.normal(0, 0.04)
    sound = render([replace(n, onset=n.onset * stretch, pitch=n.pitch + tuning) for n in notes], samples)
    sound += render_drums(piece, take, hand, stretch, samples)
    sound = add_room(sound, hand)
    return np.asarray(0.8 * sound / (np.abs(sound).max() + 1e-9))


def arrange(piece: DemoPiece, version: int) -> DemoPiece:
    """A version of a piece: 0 as written, 1 transposed and at another tempo, 2 with other instruments."""
    if version == 1:
        shift = (-3, 2, -2, 3)[len(piece.title) % 4]
        return replace(piece, key=piece.key + shift, tempo=piece.tempo * (1.04 if shift > 0 else 0.96))
    if version == 2:
        return replace(piece, voices=piece.other_voices)
    return piece


def compose(piece: DemoPiece, take: Take, hand: np.random.Generator) -> Iterator[Note]:
    """The notes of a take: chords, bass and melody. The melody depends on the family, its ornaments on the take."""
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


def _pitch(piece: DemoPiece, degree: int) -> int:
    octave, step = divmod(degree, len(piece.scale))
    return piece.key + 12 * octave + piece.scale[step]


def _melody(piece: DemoPiece, rng: np.random.Generator) -> list[list[Event]]:
    """Eight bars: a motif of two bars, answered and varied, that moves in steps and rests on notes of the chord."""
    motif = [_phrase(piece, rng) for _ in range(3)]
    order = (0, 1, 0, 2, 0, 1, 2, 2)
    bars = []
    for number, which in enumerate(order):
        root = piece.chords[number % len(piece.chords)]
        degree = 7 + root if root < 4 else root
        bars.append([(at, length, float(_pitch(piece, degree + step))) for at, length, step in motif[which]])
    return bars


def _phrase(piece: DemoPiece, rng: np.random.Generator) -> list[tuple[float, float, int]]:
    steps = piece.beats * 2
    starts = [0, *(step for step in range(1, steps) if rng.random() < piece.density)]
    walk = np.cumsum(rng.choice([-2, -1, -1, 0, 1, 1, 2], len(starts)))
    walk = np.clip(walk - walk[0] + rng.choice([0, 2, 4]), -3, 7)
    ends = [*starts[1:], steps]
    return [(s / 2, (e - s) / 2 * 0.92, int(w)) for s, e, w in zip(starts, ends, walk, strict=True)]


def _comp(piece: DemoPiece, chord: list[int]) -> Iterator[Event]:
    beats = piece.beats
    if piece.comp == "sustain":
        for pitch in (*chord, chord[0] + 12):
            yield 0.0, beats * 0.97, pitch
    elif piece.comp == "arpeggio":
        pattern = (chord[0], chord[1], chord[2], chord[0] + 12, chord[2], chord[1])
        for step, pitch in zip(range(beats * 2), islice(cycle(pattern), beats * 2), strict=True):
            yield step / 2, 0.9, pitch
    else:
        comps: dict[str, list[tuple[float, float]]] = {
            "block": [(1, 0.7), (2, 0.7)] if beats == 3 else [(0, 0.7), (2, 0.7)],
            "offbeat": [(b + 0.5, 0.35) for b in range(beats)],
            "pulse": [(b / 2, 0.4) for b in range(beats * 2)],
        }
        hits = comps[piece.comp]
        for at, length in hits:
            for pitch in chord:
                yield at, length, pitch


def _bass(piece: DemoPiece, root: int) -> Iterator[Event]:
    patterns: dict[str, list[tuple[float, float, int]]] = {
        "swing": [(b, 0.9, (0, 4, 7, 9)[b]) for b in range(4)],
        "four": [(b + 0.5, 0.4, 0) for b in range(4)],
        "break": [(0, 1.4, 0), (1.5, 0.9, 0), (2.5, 1.4, 7)],
        "bossa": [(0, 1.3, 0), (1.5, 0.4, 7), (2, 1.3, 7), (3.5, 0.4, 0)],
        "rock": [(b / 2, 0.45, 0) for b in range(8)],
    }
    for at, length, interval in patterns.get(piece.drums, [(0, piece.beats * 0.9, 0)]):
        yield at, length, root + interval


def render_drums(piece: DemoPiece, take: Take, hand: np.random.Generator, stretch: float, samples: int) -> Sound:
    """The drum track; the tuning of the kit depends on the version, its level on the performance."""
    mix = np.zeros(samples)
    kit = {name: sound_drum(name, np.random.default_rng([take.seed, take.family, take.version])) for name in DRUM_NAMES}
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
                mix[at : at + len(hit)] += hit * level * (1.0 if mark == "x" else 0.45) * hand.uniform(0.85, 1.1)
    return mix
