"""The embedders by name: one file in this package and one line here for each.

An installed package adds its own through an entry point of the group "rootnote.embedders", such as

    [project.entry-points."rootnote.embedders"]
    mfcc = "my_package.mfcc:load"
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from embeddings.errors import ConfigError
from embeddings.extras import missing_package

if TYPE_CHECKING:
    from embeddings.models.base import Embedder, ModelOptions

# name -> "module:function", called as load(options). Imported only when needed.
EMBEDDERS: dict[str, str] = {
    "logmel": "embeddings.models.logmel:load",
    "clap": "embeddings.models.clap:load",
    "clmr": "embeddings.models.clmr:load",
    "musicnn": "embeddings.models.musicnn:load",
    "melspec": "embeddings.models.melspec:load",
}
ENTRY_POINTS = "rootnote.embedders"


def embedder_names() -> list[str]:
    """The names of all embedders: Rootnote's own, then those of installed packages in alphabetical order."""
    return [*EMBEDDERS, *sorted(_installed().keys() - EMBEDDERS.keys())]


def is_embedder(name: str) -> bool:
    """Whether there is an embedder of this name; installed packages are searched only if Rootnote has none."""
    return name in EMBEDDERS or name in _installed()


def load_embedder(name: str, options: ModelOptions | None = None, *, ignore_unused_backend: bool = False) -> Embedder:
    """Make an embedder ready to use.

    Args:
        ignore_unused_backend: the backend in `options` is meant for several embedders; those that run no network
            ignore it. By default it is refused.

    Raises:
        ConfigError: if the name is not known, or the embedder does not take an option.
        CheckpointError: if the checkpoint is missing or the wrong one.
        MissingPackageError: if a package that the embedder needs is not installed.
    """
    from embeddings.models.base import ModelOptions  # imports numpy

    options = options or ModelOptions()
    if not is_embedder(name):
        raise ConfigError(f"there is no embedder '{name}'; the known ones are: {', '.join(embedder_names())}.")
    try:
        embedder = _loader(name)(options)
    except ModuleNotFoundError as error:
        raise missing_package(name, error) from error
    if embedder.light and options.backend != "auto" and not ignore_unused_backend:
        raise ConfigError(f"{name} runs on numpy and has no backend '{options.backend}'; leave --backend out.")
    return embedder


def _loader(name: str) -> Callable[[ModelOptions], Embedder]:
    if name in EMBEDDERS:
        module, _, function = EMBEDDERS[name].partition(":")
        load: Callable[[ModelOptions], Embedder] = getattr(importlib.import_module(module), function)
        return load
    found: Callable[[ModelOptions], Embedder] = _installed()[name].load()
    return found


@functools.cache
def _installed() -> dict[str, EntryPoint]:
    """The embedders of installed packages; looked up once, because that reads the metadata of every package."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
