"""A reader of sound files that looks at everything except the samples: chunks, blocks, sizes, offsets of frames.

It knows WAV and FLAC, so that it also finds what a compressed format would reveal. Whoever plays a sound can of course
hear which one is more similar, so the samples themselves are left out.
"""

from __future__ import annotations

import io
import itertools

import numpy as np
import soundfile

NUMBERS = 48  # a layout always has as many


def layout(data: bytes) -> list[float]:
    """The layout of a file as numbers: first its size, then kind, size and offset of each part."""
    parts = _flac_parts(data) if data[:4] == b"fLaC" else _wav_parts(data)
    numbers = [float(len(data)), float(len(parts)), *(float(number) for part in parts for number in part)]
    return (numbers + [0.0] * NUMBERS)[:NUMBERS]


def outside_samples(data: bytes) -> bytes:
    """Every byte that is not a sample: headers, and whatever else a file has before or after its samples."""
    if data[:4] == b"fLaC":
        begin = _frames(data)[0]
        return data[:begin]
    begin, size = next((offset, size) for kind, size, offset in _wav_parts(data) if kind == _number(b"data"))
    return data[:begin] + data[begin + size :]


def _wav_parts(data: bytes) -> list[tuple[int, int, int]]:
    """Kind, size and offset of each chunk; at last what follows them."""
    assert data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    parts, at = [], 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        parts.append((_number(data[at : at + 4]), size, at + 8))
        at += 8 + size + size % 2
    return [*parts, (0, len(data) - at, at)]


def _flac_parts(data: bytes) -> list[tuple[int, int, int]]:
    """Kind, size and offset of each metadata block and of the first frames; at last the bytes of all frames."""
    parts, at = [], 4
    while True:
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 4], "big")
        parts.append((kind & 0x7F, size, at + 4))
        at += 4 + size
        if kind & 0x80:
            break
    frames = [*_frames(data), len(data)]
    sizes = [(1, end - begin, begin) for begin, end in itertools.pairwise(frames)]
    return [(2, len(data) - at, at), *parts[:6], *sizes]


def _frames(data: bytes) -> list[int]:
    """The offsets of FLAC's frames: a sync code whose coded number is the next one."""
    at = 4
    while not data[at] & 0x80:
        at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
    at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
    found = []
    while (at := data.find(b"\xff\xf8", at)) >= 0:
        if data[at + 4] == len(found):
            found.append(at)
        at += 2
    return found


def _number(name: bytes) -> int:
    return int.from_bytes(name, "big")


# ------------------------------------------------------------------ what earlier versions sent


def as_flac(wav: bytes, size: int = 0) -> bytes:
    """The same sound as FLAC; with a size, filled up to it by a PADDING block, as earlier versions did."""
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="int16")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
    data = buffer.getvalue()
    if not size:
        return data
    room, end = size - len(data) - 4, 4 + 4 + 34  # the marker, then STREAMINFO with its header
    first = bytearray(data[:end])
    last, first[4] = first[4] & 0x80, first[4] & 0x7F
    first[12:18], first[26:42] = bytes(6), bytes(16)  # sizes of frames and checksum: unknown
    return bytes(first) + bytes([last | 1]) + room.to_bytes(3, "big") + bytes(room) + data[end:]


# ------------------------------------------------------------------ dither


def find_dither(wav: bytes, candidates: dict[str, np.random.Generator]) -> str:
    """The candidate whose dither fits the sound best, by a matched filter on the sound alone."""
    samples, _ = soundfile.read(io.BytesIO(wav), dtype="int16")
    spectrum = np.fft.rfft(samples.astype(float))
    # Where the sound is weak, the dither shows: weigh each frequency by the inverse of the power around it.
    power = np.convolve(np.abs(spectrum) ** 2, np.ones(65) / 65, "same") + 1.0
    scores = {}
    for name, rng in candidates.items():
        noise = rng.random(len(samples)) - rng.random(len(samples))
        scores[name] = float((spectrum.conj() * np.fft.rfft(noise) / power).real.sum())
    return max(scores, key=lambda name: scores[name])
