"""Pages: self-contained HTML from the templates of this package, with no scripts and no other files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined

from analysis.presentation.formatting import clock, correlation, cosine, count, probability, share_percent, three_digits
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
def environment(*folders: Path) -> Environment:
    """The templates with their filters; whatever is inserted is escaped unless it is `Markup`.

    Args:
        folders: further folders of templates; none replaces a template of this package.
    """
    made = Environment(
        loader=ChoiceLoader([PackageLoader("analysis"), FileSystemLoader(folders)]),
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
        probability=probability,
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


def render(template: str, values: Mapping[str, Any], folders: Sequence[Path] = ()) -> str:
    """Render `template` with `values`.

    Args:
        folders: further folders of templates.

    Raises:
        jinja2.UndefinedError: if the template needs a value that is missing.
    """
    return environment(*folders).get_template(template).render(values)
