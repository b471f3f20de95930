"""Command-line options that the retrieval commands share."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from analysis.retrieval.corpora import SearchCorpus
    from analysis.statistics.bins import Bins

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

if TYPE_CHECKING:
    _NameType = click.ParamType[str]
else:  # generic only since click 8.5
    _NameType = click.ParamType

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class ChoiceOf(_NameType):
    """One of the names in a registry, which is imported only when a value is given or completed."""

    name = "name"

    def __init__(self, target: str) -> None:
        """`target` is "module:attribute": a mapping by name, a sequence of names, or a function that returns one."""
        self._target = target

    def names(self) -> Sequence[str]:
        """The names in the registry."""
        module, _, attribute = self._target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        return list(found() if callable(found) else found)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return click.Choice(self.names()).convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return click.Choice(self.names()).shell_complete(ctx, param, incomplete)


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """Which corpus, vectors and weights a command uses."""

    study: Path | None = None
    corpus: Path | None = None
    vectors: tuple[Path, ...] = ()
    checkpoints: tuple[str, ...] = ()
    backend: str = "auto"

    def open(self) -> SearchCorpus:
        """Open the corpus.

        Raises:
            RootnoteError: if files are missing or do not belong together.
        """
        from analysis.retrieval.corpora import open_corpora

        return open_corpora(self.study, self.corpus, self.vectors, self.checkpoints, self.backend)


def corpus_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of `CorpusOptions`."""
    for option in (
        click.option(
            "--backend", default="auto", show_default=True, metavar="NAME",
            type=ChoiceOf("embeddings.models.base:BACKENDS"), help="What runs the networks, as for `embeddings embed`.",
        ),
        click.option(
            "--checkpoint", "checkpoints", multiple=True, metavar="EMBEDDER=PATH",
            help="Weights the vectors were made with, if they are not in the cache; repeatable.",
        ),
        click.option(
            "--vectors", type=FILE, multiple=True, help="Vectors of the corpus (.npy), one embedder each; repeatable."
        ),
        click.option("--corpus", type=FILE, help="The table of clips written by `embeddings cut`."),
        click.option("--study", type=FOLDER, help="A study folder: gives corpus and vectors."),
    ):  # fmt: skip
        command = option(command)
    return command


def by_options(help_text: str) -> Decorator:
    """The options --by and --metadata: a column of the corpus, or of a CSV file, to make tables by."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        file = click.option("--metadata", type=FILE, help="A CSV file with the columns `path` and that of --by.")
        return click.option("--by", metavar="COLUMN", help=help_text)(file(command))

    return decorate


def read_bins_for(opened: SearchCorpus, files: Sequence[Path]) -> dict[str, Bins]:
    """The bins in `files`, or else those of the study, by embedder.

    Raises:
        RootnoteError: if bins were given for an embedder without vectors.
    """
    from analysis.statistics.bins import read_bins
    from embeddings.errors import RootnoteError

    study = opened.study
    paths = list(files) or [path for one in opened.subjects if study and (path := study.bins(one.name)).is_file()]
    found = {one.embedder: one for one in map(read_bins, paths)}
    unused = sorted(set(found) - {one.name for one in opened.subjects})
    if unused:
        raise RootnoteError(
            f"--bins has the bins of {unused[0]}, but no vectors of it were given; add them with --vectors."
        )
    return found
