"""The embedders by name: one file in this package and one line here for each."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from embeddings.errors import ConfigError
from embeddings.models.base import Embedder, ModelOptions

# name -> "module:function", called as load(options). Imported only when asked for.
EMBEDDERS: dict[str, str] = {
    "logmel": "embeddings.models.logmel:load",
    "melspec": "embeddings.models.melspec:load",
    "clap": "embeddings.models.clap:load",
    "clmr": "embeddings.models.clmr:load",
    "musicnn": "embeddings.models.musicnn:load",
}


def load_embedder(name: str, options: ModelOptions | None = None) -> Embedder:
    """Make an embedder ready.

    Raises:
        RootnoteError: where the name is not known, or the checkpoint is not what it takes.
    """
    if name not in EMBEDDERS:
        known = ", ".join(sorted(EMBEDDERS))
        raise ConfigError(f"there is no embedder '{name}'; the known ones are: {known}.")
    module, _, function = EMBEDDERS[name].partition(":")
    load: Callable[[ModelOptions], Embedder] = getattr(importlib.import_module(module), function)
    return load(options or ModelOptions())
