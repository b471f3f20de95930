"""What was planned: the study that responses belong to, and the exclusion rules that apply to them.

The study is the one named, or the one whose study.toml is next to the responses or in the folder above (for a
rehearsal). Rules come from the command line, else from the frozen plan, else from study.toml, else the defaults apply.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from analysis.preregistration.deviations import read_plan_of, rules_in_effect
from analysis.responses.exclusions import ExclusionPlan, parse_rules
from analysis.responses.load import DEFAULT_PLAN, Responses, under_rules
from embeddings.errors import RootnoteError
from study.config import Study, load_study
from study.preregistration.document import FrozenPlan
from study.preregistration.planned_test import DEFAULT_TEST, PlannedTest


@dataclass(frozen=True)
class PlannedAnalysis:
    """The exclusion rules, where they come from (in words), and the study if there is one."""

    exclusions: ExclusionPlan
    source: str
    study: Study | None = None
    frozen: FrozenPlan | None = None
    notes: tuple[str, ...] = ()
    test: PlannedTest = DEFAULT_TEST


def find_plan(responses: Path, study: Path | None, rules: str | None) -> PlannedAnalysis:
    """The rules for a file of responses.

    Raises:
        RootnoteError: if the named study cannot be read, or a rule is unknown.
    """
    chosen = None if rules is None else parse_rules(rules)
    found, notes = _find_study(responses, study)
    frozen, problems = read_plan_of(found)
    exclusions = rules_in_effect(found, frozen) or DEFAULT_PLAN
    source = "" if found is None else f"{found.folder.name}/study.toml"
    if frozen is not None:
        source = f"the frozen plan {frozen.hash[:12]}"
    if chosen is not None:
        exclusions, source = replace(exclusions, rules=chosen), "--rules"
    return PlannedAnalysis(exclusions, source, found, frozen, (*notes, *problems), _planned_test(found, frozen))


def _planned_test(study: Study | None, frozen: FrozenPlan | None) -> PlannedTest:
    """The frozen plan's, else that of study.toml, else the default."""
    if frozen is not None:
        return PlannedTest.from_plan(frozen.plan["tests"])
    return PlannedTest() if study is None else PlannedTest.from_config(study.config.analysis)


def apply_plan(planned: PlannedAnalysis, read: Responses, named: bool) -> tuple[PlannedAnalysis, Responses]:
    """The plan and the responses under it; a study that was only found nearby applies only to its own responses.

    Args:
        named: whether the study was named, not found.
    """
    if named or planned.study is None or not read.studies or planned.study.config.study.name in read.studies:
        return planned, read
    note = (
        f"The study.toml near the responses is for {planned.study.config.study.name}, not for "
        f"{', '.join(read.studies)}, so its rules and plan were not used."
    )
    rules = read.plan if planned.source == "--rules" else DEFAULT_PLAN
    source = planned.source if planned.source == "--rules" else ""
    return PlannedAnalysis(rules, source, notes=(*planned.notes, note)), under_rules(read, rules)


def _find_study(responses: Path, study: Path | None) -> tuple[Study | None, tuple[str, ...]]:
    if study is not None:
        return load_study(study), ()
    parent = responses.resolve().parent
    for folder in (parent, parent.parent):
        if not (folder / "study.toml").is_file():
            continue
        try:
            return load_study(folder), ()
        except RootnoteError as error:
            return None, (f"The study.toml near the responses was not used: {error}",)
    return None, ()
