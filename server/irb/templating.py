"""The Jinja environment of the packet's templates."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def environment() -> Environment:
    """Templates of server/irb/templates, escaped, with unknown variables as errors."""
    return Environment(
        loader=PackageLoader("server.irb"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
