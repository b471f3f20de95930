"""What was planned: the study that responses belong to, and the rules of exclusion that hold for them.

The study is the one named, or the one whose study.toml lies beside the responses or in the folder above (a
rehearsal's). Rules come from the command line, else from the frozen plan, else from study.toml, else they are the
defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from analysis.preregistration.deviations import present_rules, read_plan_of
from analysis.responses.exclusions import ExclusionPlan, parse_rules
from analysis.responses.load import DEFAULT_PLAN, Responses, under_rules
from embeddings.errors import RootnoteError
from study.config import Study, load_study
from study.preregistration.document import FrozenPlan


@dataclass(frozen=True)
class PlannedAnalysis:
    """The rules that hold, where they come from (in words), and the study where there is one."""

    exclusions: ExclusionPlan
    source: str
    study: Study | None = None
    frozen: FrozenPlan | None = None
    notes: tuple[str, ...] = ()


def find_plan(responses: Path, study: Path | None, rules: str | None) -> PlannedAnalysis:
    """The rules for a file of responses.

    Raises:
        RootnoteError: where the study that was named cannot be read, or a rule is not known.
    """
    chosen = None if rules is None else parse_rules(rules)
    found, notes = _find_study(responses, study)
    frozen, said = read_plan_of(found)
    exclusions = present_rules(found, frozen) or DEFAULT_PLAN
    source = "" if found is None else f"{found.folder.name}/study.toml"
    if frozen is not None:
        source = f"the frozen plan {frozen.hash[:12]}"
    if chosen is not None:
        exclusions, source = replace(exclusions, rules=chosen), "--rules"
    return PlannedAnalysis(exclusions, source, found, frozen, (*notes, *said))


def apply_plan(planned: PlannedAnalysis, read: Responses, named: bool) -> tuple[PlannedAnalysis, Responses]:
    """The plan and the responses under it; a study that merely lies near responses of others does not hold for them.

    Args:
        named: whether the study was named, not found.
    """
    if named or planned.study is None or not read.studies or planned.study.config.study.name in read.studies:
        return planned, read
    note = (
        f"The study.toml near the responses is of {planned.study.config.study.name}, not of {', '.join(read.studies)}, "
        "so neither its rules nor its plan hold."
    )
    rules = read.plan if planned.source == "--rules" else DEFAULT_PLAN
    source = planned.source if planned.source == "--rules" else ""
    return PlannedAnalysis(rules, source, notes=(*planned.notes, note)), under_rules(read, rules)


def _find_study(responses: Path, study: Path | None) -> tuple[Study | None, tuple[str, ...]]:
    if study is not None:
        return load_study(study), ()
    beside = responses.resolve().parent
    for folder in (beside, beside.parent):
        if not (folder / "study.toml").is_file():
            continue
        try:
            return load_study(folder), ()
        except RootnoteError as error:
            return None, (f"The study.toml near the responses was not used: {error}",)
    return None, ()
