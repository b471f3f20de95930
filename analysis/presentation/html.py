"""Pages: self-contained HTML from the templates of this package, without script or any other file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.presentation.tables import one_line


def render(template: str, values: Mapping[str, Any]) -> str:
    """The page that `template` makes of `values`; what comes from the data is escaped."""
    environment = Environment(
        loader=PackageLoader("analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, line=one_line, cosine=cosine, clock=clock)
    return environment.get_template(template).render(values)


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as per cent, without the sign."""
    return f"{100 * share:.{digits}f}"


def cosine(value: float) -> str:
    """A cosine with three digits; no negative zero."""
    return f"{round(float(value), 3) + 0.0:.3f}"


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, such as 1:02.5."""
    minutes, rest = divmod(round(float(seconds), 1), 60)
    return f"{int(minutes)}:{rest:04.1f}".removesuffix(".0")
