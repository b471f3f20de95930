"""Registries: components that studies choose by name, loaded when they are first used.

A built-in component is one line: its name and the "module:attribute" where it is found. Another installed package adds
its own components through an entry point of the registry's group, for example in its pyproject.toml:

    [project.entry-points."rootnote.questions"]
    slider = "my_package.slider:SliderQuestion"

Templates that such a package needs are found in the folder `templates` next to the module.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from embeddings.errors import RootnoteError

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Names and their references: built-in lines first, then the entry points of `group`."""

    def __init__(self, group: str, built_in: Mapping[str, str]) -> None:
        self.group = group
        self.built_in = built_in
        self._loaded: dict[str, Entry] = {}

    @property
    def references(self) -> dict[str, str]:
        """Every name with its "module:attribute"; a built-in name cannot be replaced."""
        return {**_entry_points(self.group), **self.built_in}

    def __getitem__(self, name: str) -> Entry:
        """Load an entry.

        Raises:
            KeyError: if there is no such name.
            RootnoteError: if the module or the attribute of an entry cannot be loaded.
        """
        if name not in self._loaded:
            reference = self.references[name]
            module, _, attribute = reference.partition(":")
            try:
                self._loaded[name] = cast(Entry, getattr(importlib.import_module(module), attribute))
            except (ImportError, AttributeError) as error:
                raise RootnoteError(f"'{name}' of {self.group} cannot be loaded from {reference}: {error}.") from error
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self.built_in, **self.references})  # built-in names first

    def __len__(self) -> int:
        return len(self.references)

    def __contains__(self, name: object) -> bool:
        return name in self.references


@functools.cache
def _entry_points(group: str) -> dict[str, str]:
    """The entry points of all installed packages: name -> "module:attribute"."""
    return {point.name: point.value for point in importlib.metadata.entry_points(group=group)}


def template_folders(*registries: Registry[Any]) -> list[Path]:
    """The folders of templates next to the modules of entries that other packages add."""
    found: dict[Path, None] = {}
    for registry in registries:
        for name, reference in registry.references.items():
            if name not in registry.built_in:
                file = importlib.import_module(reference.partition(":")[0]).__file__
                assert file is not None
                found[Path(file).parent / "templates"] = None
    return [folder for folder in found if folder.is_dir()]
