"""Registries: components that studies choose by name, loaded when they are first used.

A built-in thing is one line: its name and the "module:attribute" where it is found (or the thing itself, if it is
plain data). Another installed package adds things of its own through an entry point of the registry's group, for
example in its pyproject.toml:

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

    def __init__(self, group: str, built_in: Mapping[str, str] | Mapping[str, Entry]) -> None:
        self.group = group
        self.built_in: dict[str, str | Entry] = {**built_in}
        self._loaded: dict[str, Entry] = {}  # by "module:attribute"

    @property
    def added(self) -> dict[str, str]:
        """The names that other packages add, with their "module:attribute"; a built-in name cannot be replaced."""
        return {name: target for name, target in _entry_points(self.group).items() if name not in self.built_in}

    def __getitem__(self, name: str) -> Entry:
        """Load an entry.

        Raises:
            KeyError: if there is no such name.
            RootnoteError: if the module or the attribute of an entry cannot be loaded.
        """
        found = self.built_in[name] if name in self.built_in else _entry_points(self.group)[name]
        if not isinstance(found, str):
            return found
        if found not in self._loaded:
            module, _, attribute = found.partition(":")
            # An error in a module of another package is not a fault of Rootnote.
            foreseen = (ImportError, AttributeError) if name in self.built_in else Exception
            try:
                self._loaded[found] = cast(Entry, getattr(importlib.import_module(module), attribute))
            except foreseen as error:
                raise RootnoteError(f"'{name}' of {self.group} cannot be loaded from {found}: {error}.") from error
        return self._loaded[found]

    def __iter__(self) -> Iterator[str]:
        return iter({**self.built_in, **self.added})

    def __len__(self) -> int:
        return len(self.built_in) + len(self.added)

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in _entry_points(self.group)


@functools.cache
def _entry_points(group: str) -> dict[str, str]:
    """The entry points of all installed packages: name -> "module:attribute"."""
    return {point.name: point.value for point in _installed().select(group=group)}


@functools.cache
def _installed() -> Any:
    """All entry points; looked up once, because that reads the metadata of every installed package."""
    return importlib.metadata.entry_points()


def template_folders(*registries: Registry[Any]) -> list[Path]:
    """The folders of templates next to the modules of entries that other packages add."""
    found: dict[Path, None] = {}
    for registry in registries:
        for reference in registry.added.values():
            file = importlib.import_module(reference.partition(":")[0]).__file__
            assert file is not None
            found[Path(file).parent / "templates"] = None
    return [folder for folder in found if folder.is_dir()]
