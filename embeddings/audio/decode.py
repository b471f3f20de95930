"""Audio: any music file as mono float32 samples, streamed.

Files are decoded by PyAV's bundled ffmpeg, channels are averaged, and soxr resamples where asked.
Conventions: samples are float32 with full scale at ±1; positions are seconds from the first decoded sample;
memory is bounded by the requested clip, never by the length of the file. Decoding always begins at the first
sample, because seeking in mp3, opus and m4a is not exact to the sample.
A packet that cannot be decoded is skipped, as in ffmpeg; a file with more than 1 % of them is refused.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import soxr

from embeddings.errors import AudioError, printable

Samples = npt.NDArray[np.float32]

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a"})
_BAD_PACKETS = 0.01
# A playlist named .mp3 must not make ffmpeg open other files or addresses.
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": "wav,w64,flac,ogg,mp3,aac,mov,mp4,m4a,aiff,matroska,webm"}
_BLOCK = 1 << 16
# Integer samples to ±1: (offset, full scale) by sample type.
_FULL_SCALE = {"u1": (128.0, 128.0), "i2": (0.0, 2.0**15), "i4": (0.0, 2.0**31), "i8": (0.0, 2.0**63)}


@dataclass(frozen=True)
class Tags:
    """The tags of a track; `None` where a tag is missing."""

    title: str | None = None
    artist: str | None = None
    album: str | None = None
    genre: str | None = None
    year: str | None = None
    licence: str | None = None


TAG_NAMES = tuple(field.name for field in fields(Tags))


def find_audio(folder: Path) -> list[str]:
    """Paths of the audio files under `folder`, relative, POSIX, sorted; hidden files and folders are skipped.

    Links are followed; a folder that is reached a second time (a loop) is skipped.
    """
    found: list[str] = []
    visited: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        # Sorted, so that if two links lead to one folder, the same one is used on every machine.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            (Path(here) / name).relative_to(folder).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)


class Track:
    """One file, open for decoding; `blocks()` yields its samples once, from the beginning.

    While decoding, `damaged` counts the packets that were skipped, `decoded` the samples.

    Raises:
        AudioError: if the file is missing, empty, has no audio or is not an audio file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packets = self.damaged = self.decoded = 0
        try:
            if path.stat().st_size == 0:
                raise AudioError(path, "the file is empty")
            self._container = av.open(os.fspath(path), metadata_errors="ignore", options=_OPTIONS)
        except (OSError, av.FFmpegError, ValueError) as error:
            raise AudioError(path, _reason(error)) from error
        if not self._container.streams.audio:
            self._container.close()
            raise AudioError(path, "it has no audio")
        self._stream = self._container.streams.audio[0]
        context = self._stream.codec_context
        self.sample_rate = int(context.sample_rate or 0) if context else 0
        if self.sample_rate <= 0:
            self._container.close()
            raise AudioError(path, "it is not an audio file, or damaged")

    def __enter__(self) -> Track:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def damage(self) -> str | None:
        """After decoding, a few words on the damage; `None` for an intact file."""
        # The stated length of an mp3 is rarely correct; other formats are reliable.
        stated = 0 if self._container.format.name == "mp3" else (self._container.duration or 0) / 1e6
        found = self.decoded / self.sample_rate
        if found < min(stated - 1, 0.95 * stated):
            return f"it ends at {found:.1f} s of {stated:.1f} s"
        return f"{self.damaged} of {self.packets} packets skipped" if self.damaged else None

    @property
    def tags(self) -> Tags:
        """The file's tags; for an Ogg file, those of its stream."""
        raw = {**self._container.metadata, **self._stream.metadata}
        return _tags({key.lower(): value for key, value in raw.items()})

    def blocks(self, sample_rate: int | None = None) -> Iterator[Samples]:
        """Mono samples in blocks of varying length, at `sample_rate` or at the file's own.

        Raises:
            AudioError: if more than 1 % of the packets, or all, cannot be decoded.
        """
        own = self._mono_blocks()
        if sample_rate in (None, self.sample_rate):
            yield from own
            return
        resampler = soxr.ResampleStream(self.sample_rate, sample_rate, 1, dtype="float32")
        for block in own:
            yield resampler.resample_chunk(block)
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)

    def _mono_blocks(self) -> Iterator[Samples]:
        for block in self._gathered():
            data = block.to_ndarray()
            data = data if block.format.is_planar else data.reshape(-1, block.layout.nb_channels).T
            self.decoded += data.shape[1]
            yield _mono(data)
        if self.decoded == 0:
            raise AudioError(self.path, "it has no samples")
        if self.damaged > max(1, _BAD_PACKETS * self.packets):
            raise AudioError(self.path, f"{self.damaged} of {self.packets} packets are damaged")

    def _gathered(self) -> Iterator[Any]:
        """Frames joined into blocks by compiled code, because Python, numpy and soxr are slow on short blocks."""
        fifo = av.AudioFifo()
        for frame in self._frames():
            if frame.sample_rate != self.sample_rate:
                raise AudioError(self.path, "its sample rate changes midway")
            frame.pts = None
            try:
                fifo.write(frame)
            except ValueError:  # the number or the type of its channels changes midway
                if fifo.samples:
                    yield fifo.read()
                fifo = av.AudioFifo()
                fifo.write(frame)
            if fifo.samples >= _BLOCK:
                yield fifo.read()
        if fifo.samples:
            yield fifo.read()

    def _frames(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                self.packets += 1
                frames = packet.decode()
            except av.EOFError:
                return
            except (av.FFmpegError, ValueError) as error:
                # A failing disk is not a damaged packet: skipping it would silently lose the rest of the file.
                if isinstance(error, OSError):
                    raise AudioError(self.path, _reason(error)) from error
                self.damaged += 1
                continue
            yield from frames


def read_clips(path: Path, starts: Iterable[float], seconds: float, sample_rate: int) -> Iterator[Samples]:
    """Yield the clips of one track that begin at `starts` (ascending, seconds), in one decode.

    Returns:
        float32 arrays of exactly `round(seconds * sample_rate)` samples.

    Raises:
        AudioError: if the track ends before the last clip does, or cannot be decoded.
    """
    length = round(seconds * sample_rate)
    positions = [round(start * sample_rate) for start in starts]
    count = 0
    with Track(path) as track:
        # Resampling may end a few samples before the last whole clip: up to 5 ms of silence fill the gap.
        blocks = itertools.chain(track.blocks(sample_rate), [np.zeros(sample_rate // 200, np.float32)])
        for clip in windows(blocks, positions, length):
            count += 1
            yield clip
    if count < len(positions):
        raise AudioError(path, f"it ends before {positions[count] / sample_rate + seconds:.3f} s")


def read_clip(path: Path, start_s: float, seconds: float, sample_rate: int) -> Samples:
    """The one clip that begins at `start_s`: float32 `[round(seconds * sample_rate)]`; see `read_clips`."""
    (clip,) = read_clips(path, [start_s], seconds, sample_rate)
    return clip


def windows(blocks: Iterable[Samples], positions: Iterable[int], length: int) -> Iterator[Samples]:
    """Yield windows of `length` samples at ascending positions in a stream of blocks, until either one ends."""
    wanted = iter(positions)
    begin = next(wanted, None)
    buffer, offset = np.zeros(0, np.float32), 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while begin is not None and begin + length <= offset + len(buffer):
            yield buffer[begin - offset : begin - offset + length].copy()
            begin = next(wanted, None)
        if begin is None:
            return
        drop = min(begin - offset, len(buffer))
        buffer, offset = buffer[drop:], offset + drop


def rms_dbfs(samples: Samples) -> float:
    """Root mean square in dB relative to full scale; -inf for digital silence."""
    mean_square = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10 * float(np.log10(mean_square)) if mean_square > 0 else float("-inf")


def _mono(data: npt.NDArray[Any]) -> Samples:
    if data.dtype.kind != "f":
        offset, scale = _FULL_SCALE[data.dtype.str[1:]]
        data = (data.astype(np.float32) - np.float32(offset)) / np.float32(scale)
    mono: Samples = data.mean(axis=0, dtype=np.float32).astype(np.float32, copy=False)
    # Float files may contain NaN or infinity, which would spoil every embedding.
    return mono if np.isfinite(mono).all() else np.nan_to_num(mono, nan=0.0, posinf=1.0, neginf=-1.0)


def _reason(error: Exception) -> str:
    if isinstance(error, (av.InvalidDataError, av.EOFError, ValueError)):
        return "it is not an audio file, or damaged"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return (text[0].lower() + text[1:]).rstrip(".")


def _tags(raw: dict[str, str]) -> Tags:
    def first(*keys: str) -> str | None:
        values = (" ".join(printable(raw.get(key, "")).replace("\0", " ").split()) for key in keys)
        return next((value for value in values if value), None)

    year = re.search(r"\b(\d{4})", first("date", "year", "originaldate", "tyer") or "")
    return Tags(
        first("title"),
        first("artist", "album_artist", "albumartist"),
        first("album"),
        first("genre"),
        year.group(1) if year else None,
        first("licence", "license"),
    )
