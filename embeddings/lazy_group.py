"""Command groups whose commands are imported when called, so that help and usage errors appear immediately."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

# Heading in the help -> command -> ("module:function", one line of help).
Sections = Mapping[str, Mapping[str, tuple[str, str]]]
HEADING = "Commands"


class LazyGroup(click.Group):
    """A group that knows the name and one line of help of each command, and imports the command when it is called.

    Commands that are added with decorators work as in any group; they are listed first. A mistyped command gets a
    suggestion. Import errors are not handled here: `rootnote.main` names the missing package.
    """

    def __init__(self, *args: Any, sections: Sections | None = None, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self._sections = {heading: dict(members) for heading, members in (sections or {}).items()}

    def add_lazy_command(self, name: str, target: str, short_help: str, heading: str = HEADING) -> None:
        """Add a command; `target` is "module:function"."""
        self._sections.setdefault(heading, {})[name] = (target, short_help)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *(name for members in self._sections.values() for name in members)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        for members in self._sections.values():
            if name in members:
                module, _, function = members[name][0].partition(":")
                command = getattr(importlib.import_module(module), function)
                assert isinstance(command, click.Command)
                return command
        return super().get_command(ctx, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in self.list_commands(ctx) or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        raise click.UsageError(f"No such command {name!r}.{_suggest(name, self.list_commands(ctx))}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, lines in self._lines().items():
            with formatter.section(heading):
                formatter.write_dl(list(lines.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        lines = {name: text for members in self._lines().values() for name, text in members.items()}
        found = [CompletionItem(name, help=text) for name, text in lines.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def _lines(self) -> dict[str, dict[str, str]]:
        """Heading -> command -> its line of help."""
        lines = {name: command.get_short_help_str(limit=80) for name, command in self.commands.items()}
        sections = {HEADING: lines} if lines else {}
        for heading, members in self._sections.items():
            sections.setdefault(heading, {}).update({name: text for name, (_, text) in members.items()})
        return sections


def _suggest(name: str, known: Iterable[str]) -> str:
    """A suggestion for a mistyped name, worded as click does for options."""
    import difflib

    close = [repr(one) for one in difflib.get_close_matches(name, list(known))]
    if not close:
        return ""
    return f" Did you mean {close[0]}?" if len(close) == 1 else f" Did you mean one of: {', '.join(close)}?"
