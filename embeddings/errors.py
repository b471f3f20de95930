"""The errors that a user can cause or fix.

RootnoteError
 ├── ConfigError              study.toml, an option or the environment has a wrong value
 ├── DataError                the input (music, vectors, a table) does not fit
 │    └── AudioError          an audio file cannot be decoded
 ├── ArtefactError            a file that Rootnote made is missing, damaged or of another kind
 │    └── StaleArtefactError  ... was made from other inputs or settings than the current ones
 ├── CheckpointError          a model's published weights are missing, damaged or the wrong ones
 ├── ResourceError            the machine or a service is not available: disk, lock, device, network
 │    └── MissingPackageError a Python package of an optional extra is not installed
 ├── MarketplaceError         a marketplace refused or did not answer (server.recruiting.marketplaces.base)
 └── OverBudgetError          a payment would exceed the budget (server.payments.ledger)

The command line prints the message of any of them and exits with status 1. Catch `RootnoteError` for all of them.
"""

from __future__ import annotations

from pathlib import Path


class RootnoteError(Exception):
    """The work could not be done; the message is one plain sentence that names the file and the fix."""


class ConfigError(RootnoteError):
    """A value in study.toml, an option or the environment is wrong."""


class DataError(RootnoteError):
    """The input (music, vectors, a table) does not fit."""


class AudioError(DataError):
    """An audio file cannot be decoded; `reason` says why in a few words."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{printable(str(path))} cannot be decoded: {reason}.")
        self.reason = reason


class ArtefactError(RootnoteError):
    """A file that Rootnote made is missing, damaged or of another kind."""


class StaleArtefactError(ArtefactError):
    """A file that Rootnote made was made from other inputs or settings than the current ones."""


class CheckpointError(RootnoteError):
    """A model's published weights are missing, damaged or the wrong ones."""


class ResourceError(RootnoteError):
    """The machine or a service is not available: no disk space, a lock of another process, no GPU, no network."""


class MissingPackageError(ResourceError):
    """A Python package of an optional extra is not installed."""


def printable(name: str) -> str:
    """`name` with bytes that are not UTF-8 written as \\udcxx, so that it can be printed and stored."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
