"""`rootnote analysis`: responses in, Table 1 and a report out."""

from __future__ import annotations

import importlib

import click

# command -> (module, one line of help), imported only when called.
_LATER: dict[str, tuple[str, str]] = {
    "report": ("analysis.report.cli", "Write report.html, Table 1, figures and all numbers from responses."),
    "power": ("analysis.power.cli", "Estimate power and interval width per bin pair."),
    "robustness": ("analysis.retrieval.robustness.cli", "Perturb clips and measure whether each is still found."),
    "attribution": ("analysis.retrieval.attribution.cli", "Find the corpus clips that a model's generations resemble."),
    "replication": ("analysis.retrieval.replication.cli", "Find pieces that copy part of a training corpus."),
    "beside": ("analysis.paper.cli", "Compare your results with the paper's tables and Figure 1."),
}


class _Group(click.Group):
    """The commands of this module, and those of others that are imported only when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_LATER]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _LATER:
            return super().get_command(ctx, name)
        module, _ = _LATER[name]
        try:
            command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"'{name}' needs the package '{error.name}': pip install 'rootnote[embeddings,analysis]'."
            ) from error
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [(name, command.get_short_help_str(limit=70)) for name, command in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl([*own, *((name, text) for name, (_, text) in _LATER.items())])


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Analyse responses (Table 1, tests, report) and apply the similarity measure."""
