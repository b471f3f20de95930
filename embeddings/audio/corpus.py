"""The corpus: tracks cut into clips of one length.

Row i of the table is clip i in every later artefact. Tracks are numbered 0, 1, … in the order of their sorted
relative paths, counting those with at least one clip. Only whole clips are taken, none is padded; clips below
the silence threshold (RMS of the mono mix, dB relative to full scale) are left out.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embeddings.audio.decode import TAG_NAMES, Tags, Track, find_audio, rms_dbfs, windows
from embeddings.errors import AudioError, ConfigError, DataError, StaleArtefactError, printable
from embeddings.provenance import Provenance, digest, read_table, write_table
from embeddings.threads import cores
from embeddings.wording import counted

MADE_BY = "rootnote embeddings cut"
_AUDIO_DIR = b"audio_dir"
_LISTING = b"audio_files"
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("clip", pa.int64()),
    ("track", pa.int64()),
    ("path", pa.string()),
    ("start_s", pa.float64()),
    ("duration_s", pa.float64()),
    ("rms_dbfs", pa.float32()),
    *((name, pa.string()) for name in TAG_NAMES),
]
SCHEMA = pa.schema(_COLUMNS)
Progress = Callable[[int, int], None]  # number done, total
TrackClips = tuple[str, list[float], float]  # a track's path, its clips' starts and their length, in seconds


@dataclass(frozen=True)
class CutSettings:
    """How tracks are cut; seconds, and dB relative to full scale."""

    clip_seconds: float = 3.0
    hop_seconds: float = 3.0
    silence_dbfs: float = -60.0

    def __post_init__(self) -> None:
        if self.clip_seconds <= 0 or self.hop_seconds <= 0:
            raise ConfigError("clip_seconds and hop_seconds must be above 0.")


@dataclass(frozen=True)
class Skipped:
    """A file without clips, or with fewer than it should have, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class CutSummary:
    """The result of cutting. `damaged` files were used up to where they could be decoded."""

    tracks: int
    clips: int
    hours: float
    silent_clips: int
    skipped: list[Skipped] = field(default_factory=list)
    damaged: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class Corpus:
    """The clips (columns as in `SCHEMA`), their provenance and a summary."""

    table: pa.Table
    provenance: Provenance
    summary: CutSummary


@dataclass(frozen=True)
class _Cut:
    """The clips of one file as (start_s, rms_dbfs), or the reason why it has none."""

    clips: list[tuple[float, float]] = field(default_factory=list)
    tags: Tags = field(default_factory=Tags)
    silent: int = 0
    skipped: str | None = None
    damaged: str | None = None


def cut(
    audio_dir: Path,
    settings: CutSettings | None = None,
    *,
    metadata: Path | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Corpus:
    """Decode every audio file under `audio_dir` once and cut it into clips.

    Args:
        metadata: CSV with a `path` column (relative to `audio_dir`) and any of title, artist, album, genre,
            year, licence. `None`: `metadata.csv` in `audio_dir` if it exists. A track that is not in the CSV is
            described by its tags.

    Raises:
        ConfigError: if the folder does not exist.
        DataError: if the folder has no audio, no file has a clip, or the CSV is wrong.
    """
    settings = settings or CutSettings()
    listing = _listing(audio_dir)
    if not listing:
        raise DataError(f"{audio_dir} contains no wav, flac, ogg, mp3, opus or m4a file; put music in it.")
    provenance = _provenance(audio_dir, settings, metadata, listing)
    paths = [path for path, _, _ in listing]
    described = _read_metadata(_metadata_path(audio_dir, metadata), paths)
    cuts: list[_Cut] = []
    with ThreadPoolExecutor(workers or cores()) as pool:
        for done in pool.map(lambda path: _cut_track(audio_dir, path, settings), paths):
            cuts.append(done)
            if progress:
                progress(len(cuts), len(paths))
    return _assemble(audio_dir, settings, listing, cuts, described, provenance)


def corpus_provenance(audio_dir: Path, settings: CutSettings, metadata: Path | None = None) -> Provenance:
    """The provenance that `cut` would give now, computed without decoding from names, sizes and times of the files."""
    return _provenance(audio_dir, settings, metadata, _listing(audio_dir))


def write_corpus(path: Path, corpus: Corpus) -> None:
    """Write corpus.parquet."""
    write_table(path, corpus.table, corpus.provenance)


def read_corpus(path: Path, made_by: str = MADE_BY) -> tuple[pa.Table, Provenance]:
    """Read corpus.parquet; the table's columns are those of `SCHEMA`."""
    return read_table(path, "corpus", made_by)


def audio_dir_of(table: pa.Table) -> Path:
    """The folder that the corpus was cut from, as recorded in the table."""
    return Path(os.fsdecode((table.schema.metadata or {})[_AUDIO_DIR]))


def require_audio(table: pa.Table, audio_dir: Path) -> None:
    """Check that the files of a corpus still have the sizes and times they had when it was cut.

    Raises:
        StaleArtefactError: naming the first file that is missing or has changed.
    """
    used = set(table["path"].unique().to_pylist())
    recorded = json.loads((table.schema.metadata or {}).get(_LISTING, b"[]"))
    for path, size, modified in (entry for entry in recorded if entry[0] in used):
        try:
            status = (audio_dir / path).stat()
        except OSError:
            raise StaleArtefactError(f"{audio_dir / path} is missing since the corpus was cut; {_AGAIN}") from None
        if (status.st_size, status.st_mtime_ns) != (size, modified):
            raise StaleArtefactError(f"{audio_dir / path} has changed since the corpus was cut; {_AGAIN}")


_ROWS_AT_ONCE = 50_000  # clips held as Python objects at a time
_AGAIN = f"restore it, or run `{MADE_BY}` again (in a study: `rootnote study build`)."


def tracks_of(table: pa.Table, begin: int = 0, end: int | None = None) -> Iterator[TrackClips]:
    """Yield the tracks of rows `begin` to `end` (default: all) in row order, each with its clips in that range."""
    part = table.slice(begin, None if end is None else end - begin)
    edges = np.flatnonzero(np.diff(part["track"].to_numpy(), prepend=-1, append=-1))
    starts, seconds = part["start_s"].to_numpy(), part["duration_s"].to_numpy()
    for first, last in itertools.pairwise(edges.tolist()):
        yield part["path"][first].as_py(), starts[first:last].tolist(), float(seconds[first])


def _listing(audio_dir: Path) -> list[tuple[str, int, int]]:
    if not audio_dir.is_dir():
        raise ConfigError(f"{audio_dir} is not a directory; give the folder with the music.")
    listing = []
    for path in find_audio(audio_dir):
        try:
            status = (audio_dir / path).stat()
            listing.append((path, status.st_size, status.st_mtime_ns))
        except OSError:  # a broken link: decoding reports it
            listing.append((path, -1, -1))
    return listing


def _provenance(
    audio_dir: Path, settings: CutSettings, metadata: Path | None, listing: Sequence[tuple[str, int, int]]
) -> Provenance:
    described = _metadata_path(audio_dir, metadata)
    content = {
        "files": [list(entry) for entry in listing],
        "metadata": hashlib.sha256(_csv_bytes(described)).hexdigest() if described else None,
    }
    return Provenance("corpus", asdict(settings), {"audio": digest(content)})


def _metadata_path(audio_dir: Path, metadata: Path | None) -> Path | None:
    if metadata is not None:
        return metadata
    usual = audio_dir / "metadata.csv"
    return usual if usual.is_file() else None


def _csv_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a CSV file.") from error


def _read_metadata(path: Path | None, known: Sequence[str]) -> dict[str, Tags]:
    if path is None:
        return {}
    try:
        text = _csv_bytes(path).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        header = next(csv.reader(io.StringIO(text, newline="")), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({error}).") from error
    if "path" not in header:
        raise DataError(f"{path} has no column 'path'; its first line must list the columns.")
    described: dict[str, Tags] = {}
    files = set(known)
    for number, row in enumerate(rows, start=2):
        name = (row["path"] or "").strip().removeprefix("./")
        if name not in files or name in described:
            problem = "occurs twice" if name in described else "is not an audio file in the folder"
            raise DataError(f"{path}, row {number}: path '{name}' {problem}; correct or remove the row.")
        described[name] = Tags(**{tag: (row.get(tag) or "").strip() or None for tag in TAG_NAMES})
    return described


def _cut_track(audio_dir: Path, path: str, settings: CutSettings) -> _Cut:
    if printable(path) != path:
        return _Cut(skipped="its name is not UTF-8; rename it")
    clips: list[tuple[float, float]] = []
    silent = 0
    try:
        with Track(audio_dir / path) as track:
            rate = track.sample_rate
            positions = (round(index * settings.hop_seconds * rate) for index in itertools.count())
            length = round(settings.clip_seconds * rate)
            for index, samples in enumerate(windows(track.blocks(), positions, length)):
                loudness = rms_dbfs(samples)
                if loudness < settings.silence_dbfs:
                    silent += 1
                else:
                    clips.append((index * settings.hop_seconds, loudness))
            damaged, tags = track.damage, track.tags
    except AudioError as error:
        return _Cut(skipped=error.reason)
    if clips:
        return _Cut(clips, tags, silent, damaged=damaged)
    shorter = f"it is shorter than {settings.clip_seconds:g} s"
    return _Cut(silent=silent, skipped="it is silent" if silent else shorter)


def _assemble(
    audio_dir: Path,
    settings: CutSettings,
    listing: Sequence[tuple[str, int, int]],
    cuts: Sequence[_Cut],
    described: Mapping[str, Tags],
    provenance: Provenance,
) -> Corpus:
    paths = [path for path, _, _ in listing]
    summary = CutSummary(
        tracks=sum(bool(one.clips) for one in cuts),
        clips=sum(len(one.clips) for one in cuts),
        hours=sum(len(one.clips) for one in cuts) * settings.clip_seconds / 3600,
        silent_clips=sum(one.silent for one in cuts),
        skipped=[Skipped(printable(path), one.skipped) for path, one in zip(paths, cuts, strict=True) if one.skipped],
        damaged=[Skipped(path, one.damaged) for path, one in zip(paths, cuts, strict=True) if one.damaged],
    )
    if not summary.clips:
        first = summary.skipped[0]
        raise DataError(
            f"{audio_dir} has no usable clip: none of its {counted(len(paths), 'audio file')} could be used "
            f"({first.path}: {first.reason})."
        )
    rows = _rows(paths, cuts, described, settings)
    notes = {
        _AUDIO_DIR: os.fsencode(audio_dir.resolve()),
        _LISTING: json.dumps([entry for entry in listing if printable(entry[0]) == entry[0]]).encode(),
    }
    batches = []
    while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        batches.append(pa.RecordBatch.from_pylist(chunk, schema=SCHEMA))
    table = pa.Table.from_batches(batches, SCHEMA).replace_schema_metadata(notes)
    return Corpus(table, provenance, summary)


def _rows(
    paths: Sequence[str], cuts: Sequence[_Cut], described: Mapping[str, Tags], settings: CutSettings
) -> Iterator[dict[str, Any]]:
    used = [(path, one) for path, one in zip(paths, cuts, strict=True) if one.clips]
    clip = itertools.count()
    for track, (path, one) in enumerate(used):
        tags = asdict(described.get(path, one.tags))
        for start, loudness in one.clips:
            yield {
                "clip": next(clip),
                "track": track,
                "path": path,
                "start_s": start,
                "duration_s": settings.clip_seconds,
                "rms_dbfs": loudness,
                **tags,
            }
