"""The manifest of generations: the pieces that a model made, their prompts, and the seconds kept from the prompt.

A CSV file with a header. Needed columns: `generation_id`, `path` (relative to the manifest). Used if present:
`prompt_path`, `prompt_offset_s`, `prompt_duration_s` (what the model was prompted with) and `prefix_s`, `suffix_s`
(seconds at the generation's beginning and end that the mask kept: they are the prompt itself and are excluded from
attribution). The others are for your record: `sha256, model, model_revision, seed, sample_index, periodic_prompt,
upper_codebook_mask, dropout, temperature, sampling_steps, created_at, licence`; `sha256` is checked.
Without a manifest every audio file of the folder is a generation without prompt, named by its path.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embeddings.audio.decode import find_audio
from embeddings.errors import RootnoteError

RECORDED = (
    "sha256", "model", "model_revision", "seed", "sample_index", "periodic_prompt", "upper_codebook_mask", "dropout",
    "temperature", "sampling_steps", "created_at", "licence",
)  # fmt: skip
_SECONDS = ("prompt_offset_s", "prompt_duration_s", "prefix_s", "suffix_s")
_KNOWN = {"generation_id", "path", "prompt_path", *_SECONDS, *RECORDED}
_LARGEST = 256 << 20


@dataclass(frozen=True)
class Generation:
    """One generated piece; times in seconds. `prompt_duration_s` is None where it is not known."""

    id: str
    path: Path
    prompt_path: Path | None = None
    prompt_offset_s: float = 0.0
    prompt_duration_s: float | None = None
    prefix_s: float = 0.0
    suffix_s: float = 0.0
    model: str | None = None


def generations_in(folder: Path, manifest: Path | None = None) -> list[Generation]:
    """The generations of `folder`: those of the manifest, or every audio file.

    A manifest named `generations.csv` in the folder is found without being named.

    Raises:
        RootnoteError: if there are none, or a row of the manifest is wrong (the row is named).
    """
    if not folder.is_dir():
        raise RootnoteError(f"{folder} is not a directory; give the folder of generated pieces.")
    own = folder / "generations.csv"
    if manifest is None and own.is_file():
        manifest = own
    if manifest is not None:
        return read_manifest(manifest)
    found = [Generation(name, folder / name) for name in find_audio(folder)]
    if not found:
        raise RootnoteError(f"{folder} has no audio files; give the folder of generated pieces.")
    return found


def read_manifest(path: Path) -> list[Generation]:
    """Read a manifest; every file that it names must exist and have the stated SHA-256.

    Raises:
        RootnoteError: naming the row and the problem.
    """
    reader = csv.DictReader(io.StringIO(_text(path)))
    columns = reader.fieldnames or []
    missing = sorted({"generation_id", "path"} - set(columns))
    if missing:
        raise RootnoteError(f"{path} lacks the column{'s' if len(missing) > 1 else ''} {' and '.join(missing)}.")
    unknown = sorted({name for name in columns if name not in _KNOWN})
    if unknown:
        raise RootnoteError(f"{path} has an unknown column '{unknown[0]}'; remove or rename it.")
    found: dict[str, Generation] = {}
    for number, row in enumerate(reader, start=2):
        if None in row:
            raise RootnoteError(f"{path}, row {number}: it has more fields than the header.")
        one = _generation(path, number, {name: (value or "").strip() for name, value in row.items()})
        if one.id in found:
            raise RootnoteError(f"{path}, row {number}: generation_id '{one.id}' is listed twice.")
        found[one.id] = one
    if not found:
        raise RootnoteError(f"{path} lists no generations; add a row for each piece.")
    return list(found.values())


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise RootnoteError(f"{path} is larger than the limit for a manifest ({_LARGEST >> 20} MiB); split it.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RootnoteError(f"{path} is not UTF-8 text; save it as CSV in UTF-8.") from error
    except OSError as error:
        raise RootnoteError(f"{path} cannot be read ({error.strerror}).") from error


def _generation(manifest: Path, number: int, row: Mapping[str, str]) -> Generation:
    where = f"{manifest}, row {number}"
    if not row["generation_id"] or not row["path"]:
        raise RootnoteError(f"{where}: generation_id and path must not be empty.")
    path = manifest.parent / row["path"]
    if not path.is_file():
        raise RootnoteError(f"{where}: the file {path} does not exist.")
    stated = row.get("sha256", "").lower()
    if stated and hashlib.sha256(path.read_bytes()).hexdigest() != stated:
        raise RootnoteError(f"{where}: the SHA-256 of {path} differs from the one in the manifest.")
    seconds = {name: _seconds(where, name, row.get(name, "")) for name in _SECONDS}
    prompt = row.get("prompt_path", "")
    return Generation(
        id=row["generation_id"],
        path=path,
        prompt_path=manifest.parent / prompt if prompt else None,
        prompt_offset_s=seconds["prompt_offset_s"] or 0.0,
        prompt_duration_s=seconds["prompt_duration_s"],
        prefix_s=seconds["prefix_s"] or 0.0,
        suffix_s=seconds["suffix_s"] or 0.0,
        model=row.get("model") or None,
    )


def _seconds(where: str, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise RootnoteError(f"{where}: {name} must be a number of seconds of at least 0, not '{text}'.")
    return value
