"""`rootnote analysis`: from responses to Table 1 and a report."""

from __future__ import annotations

import click

from embeddings.lazy_group import LazyGroup

SECTIONS = {
    "Study": {
        "report": ("analysis.report.cli:report", "Write report.html, Table 1, figures and all numbers from responses."),
        "power": ("analysis.power.cli:power", "Estimate power and interval width per bin pair."),
        "beside": ("analysis.paper.cli:beside", "Compare your results with the paper's tables and Figure 1."),
    },
    "Retrieval": {
        "robustness": ("analysis.retrieval.robustness.cli:robustness", "Perturb clips and test whether each is found."),
        "attribution": ("analysis.retrieval.attribution.cli:attribution", "Find the clips that generations resemble."),
        "replication": ("analysis.retrieval.replication.cli:replication", "Find pieces that copy part of a corpus."),
    },
}


@click.group(cls=LazyGroup, sections=SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Analyse responses (Table 1, tests, report) and apply the similarity measure."""
