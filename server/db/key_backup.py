"""The study's secret key in backups: without it a restored study is refused.

A copy stands next to each backup, under the same name with the ending .key, and is deleted with it.
"""

from __future__ import annotations

from pathlib import Path

from embeddings.errors import RootnoteError
from study.config import Study
from study.secret_key import copy_key

ENDING = ".key"


def back_up_key(study: Study, backup: Path) -> None:
    """Copy the key next to a backup, and delete the copies whose backups are gone; old studies have no key."""
    if study.key.is_file():
        copy_key(study.key, backup.with_suffix(ENDING))
    stems = {path.stem for path in backup.parent.glob("rootnote-*") if path.suffix != ENDING}
    for path in backup.parent.glob(f"rootnote-*{ENDING}"):
        if path.stem not in stems:
            path.unlink(missing_ok=True)


def restore_key(study: Study, backup: Path) -> bool:
    """Copy the key from a backup into the study folder if it is not there; whether it was copied.

    Raises:
        RootnoteError: if the folder cannot be written, as in a container.
    """
    copy = backup.with_suffix(ENDING)
    if study.key.exists() or not copy.is_file():
        return False
    try:
        copy_key(copy, study.key)
    except OSError as error:
        raise RootnoteError(
            f"the database is restored, but {study.key} cannot be written ({error.strerror}); copy {copy} there."
        ) from None
    return True
