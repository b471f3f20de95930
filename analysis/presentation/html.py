"""Pages: self-contained HTML from the templates of this package, with no scripts and no other files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.presentation.formatting import clock, correlation, cosine, count, share_percent, three_digits
from analysis.presentation.tables import (
    one_line,
    percent,
    stars,
    write_difference,
    write_interval,
    write_newcombe,
    write_p,
    write_wilson,
)


@cache
def environment() -> Environment:
    """The templates with their filters; whatever is inserted is escaped unless it is `Markup`."""
    made = Environment(
        loader=PackageLoader("analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        count=count,
        percent=share_percent,
        cosine=cosine,
        clock=clock,
        correlation=correlation,
        three_digits=three_digits,
        line=one_line,
        # of a cell of Table 1
        rate=percent,
        stars=stars,
        interval=write_interval,
        wilson=write_wilson,
        p=write_p,
        # of a row of a contrast
        difference=write_difference,
        newcombe=write_newcombe,
    )
    return made


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render `template` with `values`.

    Raises:
        jinja2.UndefinedError: if the template needs a value that is missing.
    """
    return environment().get_template(template).render(values)
