"""Checkpoints: the published files of weights that Rootnote knows, with their addresses, licences and digests.

Conventions: sizes are bytes; the cache is the folder ROOTNOTE_CACHE, else the user's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from embeddings.errors import ConfigError

_CLAP = "https://huggingface.co/lukewys/laion_clap/resolve/main"
_CC0 = "CC0-1.0 (model card of lukewys/laion_clap)"


@dataclass(frozen=True)
class Checkpoint:
    """A published file of weights; `sha256` and `size` (bytes) are `None` if its publisher does not state them."""

    what: str
    embedder: str
    file: str
    address: str
    licence: str
    size: int | None = None
    sha256: str | None = None


# Digests: the Git LFS pointers of lukewys/laion_clap; of musicnn, the file in its repository.
CHECKPOINTS: dict[str, Checkpoint] = {
    "clap": Checkpoint(
        what="LAION CLAP, HTSAT-tiny, general audio (used by the paper)",
        embedder="clap",
        file="630k-audioset-best.pt",
        address=f"{_CLAP}/630k-audioset-best.pt",
        licence=_CC0,
        size=1_863_587_645,
        sha256="8053c9775516af2f4902e1e8281e356cc1bf7a85e8b761908170767b77c3f037",
    ),
    "clap-music": Checkpoint(
        what="LAION CLAP, HTSAT-base, music and AudioSet",
        embedder="clap",
        file="music_audioset_epoch_15_esc_90.14.pt",
        address=f"{_CLAP}/music_audioset_epoch_15_esc_90.14.pt",
        licence=_CC0,
        size=2_352_471_003,
        sha256="fae3e9c087f2909c28a09dc31c8dfcdacbc42ba44c70e972b58c1bd1caf6dedd",
    ),
    "clap-music-speech": Checkpoint(
        what="LAION CLAP, HTSAT-base, music and speech",
        embedder="clap",
        file="music_speech_epoch_15_esc_89.25.pt",
        address=f"{_CLAP}/music_speech_epoch_15_esc_89.25.pt",
        licence=_CC0,
        size=2_352_471_003,
        sha256="a27dfbd00d96781020d83044136f084343edab799d2657ef3cfe5c4f2222bb28",
    ),
    "clap-music-speech-audioset": Checkpoint(
        what="LAION CLAP, HTSAT-base, music, speech and AudioSet",
        embedder="clap",
        file="music_speech_audioset_epoch_15_esc_89.98.pt",
        address=f"{_CLAP}/music_speech_audioset_epoch_15_esc_89.98.pt",
        licence=_CC0,
        size=2_352_471_003,
        sha256="51c68f12f9d7ea25fdaaccf741ec7f81e93ee594455410f3bca4f47f88d8e006",
    ),
    "clmr": Checkpoint(
        what="CLMR, SampleCNN, trained on MagnaTagATune",
        embedder="clmr",
        file="clmr_checkpoint_10000.zip",
        address="https://github.com/Spijkervet/CLMR/releases/download/2.0/clmr_checkpoint_10000.zip",
        licence="Apache-2.0 (licence of Spijkervet/CLMR)",
    ),
    "musicnn": Checkpoint(
        what="MusiCNN, trained on MagnaTagATune",
        embedder="musicnn",
        file="musicnn-mtat.pth",
        address="https://raw.githubusercontent.com/minzwon/sota-music-tagging-models"
        "/master/models/mtat/musicnn/best_model.pth",
        licence="MIT, © 2020 Music Technology Group, Universitat Pompeu Fabra",
        size=3_257_172,
        sha256="690ace3bb5d49d90dd38fe3ec05a1185350b3bc3742bd7ee941f56b649b2c893",
    ),
}


def named(name: str) -> Checkpoint:
    """The checkpoint of this name.

    Raises:
        ConfigError: if the name is unknown; lists the known names.
    """
    if name not in CHECKPOINTS:
        raise ConfigError(f"there is no checkpoint '{name}'; the known ones are: {', '.join(CHECKPOINTS)}.")
    return CHECKPOINTS[name]


def cache_folder() -> Path:
    """The folder of checkpoints: in ROOTNOTE_CACHE if set, else in the user's cache."""
    return Path(os.environ.get("ROOTNOTE_CACHE") or platformdirs.user_cache_dir("rootnote")) / "checkpoints"


def catalogue() -> list[dict[str, Any]]:
    """The checkpoints that can be fetched: name and facts of each, and its path if it is in the cache."""
    entries = []
    for name, checkpoint in CHECKPOINTS.items():
        path = cache_folder() / checkpoint.file
        entries.append({"name": name, **asdict(checkpoint), "path": str(path) if path.is_file() else None})
    return entries


def in_lines(entries: Sequence[dict[str, Any]]) -> str:
    """The catalogue as text, a paragraph for each checkpoint."""
    return "\n\n".join("\n  ".join(_paragraph(entry)) for entry in entries)


def _paragraph(entry: dict[str, Any]) -> list[str]:
    size = f"{entry['size'] / 1e6:,.1f} MB" if entry["size"] else "size not published"
    digest = "SHA-256 pinned" if entry["sha256"] else "SHA-256 not published: recorded at the first fetch"
    return [
        f"{entry['name']}: {entry['what']}",
        entry["address"],
        f"{size}; {digest}",
        f"licence: {entry['licence']}",
        f"in the cache: {entry['path']}" if entry["path"] else "not in the cache",
    ]
