"""The command line: each folder's `cli.py` is the group of the same name, imported when first used."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

VERSION = "0.1.0"

# group -> (module, one line of help): the lines are here so that `rootnote --help` imports no group.
GROUPS: dict[str, tuple[str, str]] = {
    "demo": ("demo.cli", "The whole main job, offline, on a small synthetic corpus."),
    "embeddings": ("embeddings.cli", "Cut music into clips, embed them, find the nearest."),
    "study": ("study.cli", "Design a listening study: bins, triplets, schedule, stimuli."),
    "server": ("server.cli", "Serve the study to listeners, rehearse it, export responses."),
    "analysis": ("analysis.cli", "Turn responses into Table 1, tests and a report."),
}
# Commands that stand in one folder's group and are made in another: group -> name -> (module, function, its help).
GUESTS: dict[str, dict[str, tuple[str, str, str]]] = {
    "study": {
        "irb": ("server.irb.cli", "irb", "Make the packet for a review board: packet.html and packet.pdf."),
        "recruiters": (
            "server.commands.marketplaces",
            "recruiters",
            "List where listeners can come from (recruiter.kind in study.toml).",
        ),
    },
}
NEEDS = {
    "demo": "all",
    "embeddings": "embeddings",
    "study": "embeddings",
    "server": "server",
    "analysis": "analysis",
}


class Guest(click.Command):
    """A command that is imported when it is called; until then only its name and its line of help are known."""

    def __init__(self, name: str, module: str, function: str, text: str) -> None:
        super().__init__(name, help=text)
        self._module, self._function = module, function

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        command = _import(self._module, self._function, NEEDS[self._module.partition(".")[0]], str(self.name))
        return command.make_context(info_name, args, parent, **extra)


def _import(module: str, function: str, extra: str, name: str) -> click.Command:
    try:
        command = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"'{name}' needs the package '{error.name}': pip install 'rootnote[{extra}]'."
        ) from error
    assert isinstance(command, click.Command)
    return command


class LazyGroups(click.Group):
    """A group whose members are imported when called, so that help is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(GROUPS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in GROUPS:
            return None
        module, _ = GROUPS[name]
        command = _import(module, "cli", NEEDS[name], name)
        for guest, place in GUESTS.get(name, {}).items():
            assert isinstance(command, click.Group)
            command.add_command(Guest(guest, *place))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in GROUPS.items()])


@click.group(cls=LazyGroups, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="rootnote")
@click.option("--debug", is_flag=True, help="Show the full traceback of an error.")
def cli(debug: bool) -> None:
    """Does a machine's idea of similar music agree with a listener's?

    Rootnote turns a folder of music into an ABX listening study and its answers into Table 1.
    Begin with `rootnote demo`, or `rootnote study init DIR --audio MUSIC` on your own music.
    """


def main(args: list[str] | None = None) -> Any:
    """Run the command line; 0 done, 1 with one sentence where the work could not be done, 2 wrong usage."""
    args = sys.argv[1:] if args is None else args
    debug = "--debug" in args
    try:
        return cli.main(args=args, prog_name="rootnote", standalone_mode=True)
    except Exception as error:
        if debug:
            raise
        from embeddings.errors import RootnoteError

        if isinstance(error, RootnoteError):
            sentence = str(error)
        elif isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            sentence = f"{where}{error.strerror or error}."
        else:
            kind = type(error).__name__
            sentence = f"an unexpected {kind} ({error}); please report it with the output of --debug."
        print(f"rootnote: {sentence}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
