"""The bins that belong to a file of responses, and the prompts counted next to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.report.section import EligiblePrompts
from analysis.responses.load import Responses
from analysis.statistics.bins import BUILD, Bins, misfit, read_bins
from embeddings.errors import RootnoteError
from embeddings.provenance import read_table
from study.config import load_study
from study.design.eligibility import compare_eligible, read_prompts


@dataclass(frozen=True)
class FoundBins:
    """Bins and eligible prompts by embedder, the name of the study ("" if none was named), and notes for the report."""

    bins: Mapping[str, Bins]
    study: str
    notes: tuple[str, ...]
    prompts: Mapping[str, EligiblePrompts]


def find_bins(read: Responses, study: Path | None, files: Sequence[Path]) -> FoundBins:
    """The bins in `files`, of the study, or else in build/ next to the responses.

    Requested bins must fit the responses; bins that were only found are left out with a note if they do not fit.

    Raises:
        RootnoteError: if requested bins are of an embedder without responses, or do not fit.
    """
    name, notes = "", []
    bins: dict[str, Bins] = {}
    prompts: dict[str, EligiblePrompts] = {}
    named = list(files)
    if study is not None:
        loaded = load_study(study)
        name = loaded.config.study.name
        named += sorted(loaded.build.glob("*.bins.json"))
        if read.studies and read.studies != (name,):
            notes.append(f"The responses are from {', '.join(read.studies)}; the bins and title are from {name}.")
    nearby = [] if named or study else sorted((read.path.parent / "build").glob("*.bins.json"))
    for path in [*named, *nearby]:
        one = read_bins(path)
        if one.embedder not in read.embedders:
            if path in files:
                raise RootnoteError(
                    f"{path} has the bins of {one.embedder!r}, but {read.path} has no responses for it "
                    f"(only for {', '.join(read.embedders)})."
                )
            continue
        problem = misfit(one, read.frame)
        if problem and path in named:
            raise RootnoteError(
                f"{path} does not belong to {read.path}: {problem}; give the bins that the study was run with."
            )
        if problem:
            notes.append(f"{path.name} in build/ next to the responses is not shown, because {problem}.")
            continue
        bins[one.embedder] = one
        notes += one.remarks
        if (counted := _read_eligible(path.parent, one.embedder)) is not None:
            prompts[one.embedder] = counted
    return FoundBins(bins, name, tuple(notes), prompts)


def _read_eligible(build: Path, embedder: str) -> EligiblePrompts | None:
    """The prompts of an embedder in a study's build folder; None if they or the corpus are not there."""
    prompts, corpus = build / f"{embedder}.prompts.parquet", build / "corpus.parquet"
    if not (prompts.is_file() and corpus.is_file()):
        return None
    counts = read_prompts(prompts)
    return EligiblePrompts(counts, tuple(compare_eligible(counts, read_table(corpus, "corpus", BUILD)[0])))
