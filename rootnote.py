"""The command line: each folder's `cli.py` is the group of the same name, imported when first used."""

from __future__ import annotations

import sys
from typing import Any

import click

from embeddings.lazy_group import LazyGroup
from embeddings.version import VERSION

GROUPS = {
    "demo": ("demo.cli:cli", "Run a complete study offline, on synthetic music with simulated listeners."),
    "embeddings": ("embeddings.cli:cli", "Cut music into clips, embed them, find similar ones."),
    "study": ("study.cli:cli", "Design a listening study: bins, triplets, schedule, stimuli."),
    "server": ("server.cli:cli", "Serve the study to listeners, recruit, pay, export."),
    "analysis": ("analysis.cli:cli", "Turn responses into Table 1, tests and a report."),
}
# Commands of a group that live in another package, since `study` must not import `server`.
GUESTS = {
    "study": {
        "irb": ("server.irb.cli:irb", "Make the packet for a review board: packet.html and packet.pdf."),
        "recruiters": ("server.commands.marketplaces:recruiters", "List where listeners can come from."),
    }
}
# Command -> the extra of pyproject.toml that installs what it needs.
EXTRAS = {
    "demo": "all",
    "embeddings": "embeddings",
    "study": "embeddings",
    "study irb": "packet",
    "study recruiters": "server",
    "server": "server",
    "analysis": "analysis,embeddings",
}


class RootGroup(LazyGroup):
    """The group of all groups; it adds commands that live in another package than their group."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        command = super().get_command(ctx, name)
        for guest, (target, short_help) in GUESTS.get(name, {}).items():
            assert isinstance(command, LazyGroup)
            command.add_lazy_command(guest, target, short_help)
        return command


@click.group(cls=RootGroup, sections={"Commands": GROUPS}, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="rootnote")
@click.option("--debug", is_flag=True, help="Show the full traceback of an error.")
def cli(debug: bool) -> None:
    """Does a model's idea of similar music agree with listeners?

    Rootnote turns a folder of music into an ABX listening study, and the study's responses into Table 1.
    Start with `rootnote demo`, or with `rootnote study init DIR --audio MUSIC` for your own music.
    """


def main(args: list[str] | None = None) -> Any:
    """Run the command line. Exit status 0: done; 1: failed, with a one-sentence reason; 2: wrong usage."""
    args = sys.argv[1:] if args is None else args
    try:
        return cli.main(args=args, prog_name="rootnote", standalone_mode=True)
    except Exception as error:
        if "--debug" in args:
            raise
        print(f"rootnote: {_sentence(error, args)}", file=sys.stderr)
        sys.exit(1)


def _sentence(error: Exception, args: list[str]) -> str:
    from embeddings.errors import RootnoteError

    if isinstance(error, RootnoteError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}."
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in GROUPS:
        words = [word for word in args if not word.startswith("-")]
        extra = EXTRAS.get(" ".join(words[:2])) or EXTRAS.get(words[0], "all")
        return f"the package '{error.name}' is missing; install it with pip install 'rootnote[{extra}]'."
    return f"an unexpected {type(error).__name__} ({error}); please report it with the output of --debug."


if __name__ == "__main__":
    main()
