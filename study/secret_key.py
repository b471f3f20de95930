"""The secret key of a study: everything that a listener must not be able to predict is drawn from it.

The key decides which side the more similar clip is on, the order of trials, where catch and repeat trials are, the
names of the stimuli and their dither. `study.seed`, the source code and the corpus may be public; without the key
they predict none of these. The first build writes it to DIR/secret.key, which only its owner can read. It belongs to
the study folder and to backups, and to no export, release, fingerprint, plan or log.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embeddings.errors import ArtefactError
from embeddings.provenance import replacing

FILE = "secret.key"
BYTES = 32
REDRAW = "rootnote study build DIR --redraw"


@dataclass(frozen=True)
class SecretKey:
    """256 random bits; its text never shows them."""

    value: bytes = field(repr=False)

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """The generator for one purpose; those of different purposes reveal nothing about each other."""
        return np.random.default_rng(int.from_bytes(self._derive(purpose), "big"))

    def name(self, *purpose: str | int) -> str:
        """A name for one purpose: 32 hexadecimal digits."""
        return self._derive(purpose).hex()[:32]

    def _derive(self, purpose: tuple[str | int, ...]) -> bytes:
        return hmac.digest(self.value, json.dumps(purpose).encode(), hashlib.sha256)


def draw_key() -> SecretKey:
    return SecretKey(secrets.token_bytes(BYTES))


def stimulus_name(key: SecretKey, clip: str) -> str:
    """The file of a clip ("row" or "row/catch") in build/stimuli."""
    return f"{key.name('stimulus', clip)}.wav"


def read_key(path: Path) -> SecretKey:
    """The key in a file.

    Raises:
        ArtefactError: if it is missing, cannot be read or is damaged.
    """
    again = f"copy it from where the study was built, or build again with `{REDRAW}`"
    try:
        value = bytes.fromhex(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing, and this study was built with it; {again}.") from None
    except PermissionError:
        raise ArtefactError(f"{path} cannot be read; give it to the user that runs this command (chown).") from None
    except (OSError, ValueError):
        value = b""
    if len(value) != BYTES:
        raise ArtefactError(f"{path} is damaged; {again}.")
    return SecretKey(value)


def write_key(path: Path, key: SecretKey) -> None:
    """Write a key into a file that only its owner can read."""
    with replacing(path, private=True) as temporary:
        temporary.write_text(key.value.hex() + "\n", encoding="ascii")


def copy_key(source: Path, target: Path) -> None:
    """Copy a key, for example into a backup."""
    write_key(target, read_key(source))
