"""`rootnote analysis beside`: compare your results with the paper's on one page."""

from __future__ import annotations

from pathlib import Path

import click

SOURCE = click.Path(path_type=Path, exists=True)


@click.command("beside")
@click.option("--report", type=SOURCE, help="Output of `analysis report`: for Table 1.")
@click.option("--robustness", type=SOURCE, help="Output of `analysis robustness`: for Figure 1.")
@click.option("--attribution", type=SOURCE, help="Output of `analysis attribution`: for Tables 2 and 3.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The page (.html).")
def beside(report: Path | None, robustness: Path | None, attribution: Path | None, out: Path) -> None:
    """Compare your results with the paper's Table 1, Figure 1, Tables 2 and 3 on one page.

    Example: rootnote analysis beside --report report --robustness robustness --attribution attribution --out paper.html
    """
    from embeddings.provenance import replacing

    if not (report or robustness or attribution):
        raise click.UsageError("Give at least one of --report, --robustness and --attribution.")
    from analysis.paper.page import to_html
    from analysis.paper.reference import read_own_results

    page = to_html(read_own_results(report, robustness, attribution))
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    click.echo(f"wrote {out}")
