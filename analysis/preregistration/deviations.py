"""Deviations: whether a report follows the frozen plan, and whether its file is as it was exported.

Every difference is stated in a sentence. Nothing is refused: a deviation may be right, but it must be visible.
Conventions: a hash is shown in full on its own, and by its first 12 digits in a sentence.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.presentation.formatting import count
from analysis.responses.load import Responses
from embeddings.errors import RootnoteError
from embeddings.provenance import Provenance
from embeddings.version import VERSION
from study.config import Study
from study.export_manifest import MANIFEST, ExportManifest, read_manifest
from study.preregistration.document import (
    EXCLUDED_SECTIONS,
    JSON,
    MARKDOWN,
    FrozenPlan,
    differences,
    read_frozen,
)
from study.preregistration.exclusion_rules import ExclusionPlan, plan_of
from study.preregistration.planned_test import PlannedTest


@dataclass(frozen=True)
class PreregistrationCheck:
    """The frozen plan's hash ("" if there is none), deviations from it, and whether the file is as exported.

    `file` says the last in a sentence; `as_exported` is None if it is unknown.
    """

    hash: str
    frozen_at: str
    deviations: tuple[str, ...]
    file: str
    as_exported: bool | None
    has_study: bool

    @property
    def verdict(self) -> str:
        """One sentence on the plan."""
        if not self.hash:
            return "No plan was frozen for this study (rootnote study freeze), so this analysis is not preregistered."
        if not self.deviations:
            return "The analysis follows the frozen plan."
        return f"The analysis deviates from the frozen plan in {count(len(self.deviations), 'point')}."

    def in_words(self) -> list[str]:
        """The plan and the file as lines for a terminal; none if there is neither a plan nor an export."""
        file = [self.file] if self.as_exported is not None else []
        if not self.hash:
            return file
        return [f"Plan {self.hash}, frozen {self.frozen_at}. {self.verdict}", *self.deviations, *file]

    def as_data(self) -> dict[str, Any]:
        """Plain data, as --json prints it."""
        return {
            "hash": self.hash or None,
            "frozen_at": self.frozen_at or None,
            "verdict": self.verdict if self.has_study else None,
            "departures": list(self.deviations),
            "file": self.file,
            "as_exported": self.as_exported,
        }


def read_plan_of(study: Study | None) -> tuple[FrozenPlan | None, tuple[str, ...]]:
    """The frozen plan of a study (None if there is none), and notes if it cannot be read."""
    if study is None:
        return None, ()
    try:
        return read_frozen(study.folder), ()
    except RootnoteError as error:
        return None, (f"The frozen plan cannot be used: {error}",)


def frozen_exclusions(frozen: FrozenPlan) -> ExclusionPlan:
    """The rules of a frozen plan.

    Raises:
        RootnoteError: if the plan has none that this version knows.
    """
    try:
        plan = ExclusionPlan.from_data(frozen.plan["exclusions"])
        plan.as_data()
    except (KeyError, TypeError, ValueError) as error:
        raise RootnoteError(f"{JSON} has no exclusions that this version of Rootnote knows ({error}).") from error
    return plan


def check_preregistration(
    read: Responses, study: Study | None, frozen: FrozenPlan | None, alternative: str
) -> PreregistrationCheck:
    """Compare a report's responses, rules and tests with the frozen plan and the export."""
    exported, file, as_exported = check_file(read)
    deviations = _find_deviations(read, study, frozen, exported, alternative) if frozen else []
    if frozen and as_exported is False:
        deviations.append(file)
    return PreregistrationCheck(
        frozen.hash if frozen else "",
        str(frozen.plan["frozen_at"]) if frozen else "",
        tuple(deviations),
        file,
        as_exported,
        study is not None,
    )


def check_file(read: Responses) -> tuple[ExportManifest | None, str, bool | None]:
    """The export that the file came from, a sentence on whether it is unchanged, and whether it is (None: unknown)."""
    name = read.path.name
    try:
        exported = read_manifest(read.path.resolve().parent)
    except RootnoteError as error:
        return None, f"It is unknown whether {name} is as exported: {error}", None
    if exported is None:
        return None, f"There is no {MANIFEST} next to {name}, so it is unknown whether the file is as exported.", None
    if read.sha256 in exported.files.values():
        return exported, f"{name} is exactly as exported.", True
    if name in exported.files:
        detail = f"its hash {read.sha256[:12]} differs from the export's {exported.files[name][:12]}"
        return exported, f"{name} was changed after the export: {detail}.", False
    return exported, f"{name} is not one of the files listed in {MANIFEST} next to it.", False


def _find_deviations(
    read: Responses, study: Study | None, frozen: FrozenPlan, exported: ExportManifest | None, alternative: str
) -> list[str]:
    plan = frozen.plan
    return [
        *_edited(frozen),
        *_changed_settings(study, plan, exported.withheld if exported else ()),
        *_exclusion_deviations(read, frozen),
        *_test_deviations(plan, alternative),
        *_schedule_deviations(read, plan, exported),
        *_sample_deviations(read, plan),
        *_earlier_answers(read, frozen),
        *(
            [f"The plan was frozen with Rootnote {plan['rootnote']}; this is {VERSION}."]
            * (plan["rootnote"] != VERSION)
        ),
    ]


def _edited(frozen: FrozenPlan) -> list[str]:
    if not frozen.intact:
        return [f"{JSON} was edited after it was frozen: its content no longer has the hash {frozen.hash[:12]}."]
    return [] if frozen.markdown_intact else [f"{MARKDOWN} differs from {JSON}: it was edited or is missing."]


def _changed_settings(study: Study | None, plan: Mapping[str, Any], withheld: Sequence[str]) -> list[str]:
    """Settings that differ from the plan; settings withheld from a public release cannot be compared."""
    if study is None:
        return []
    now = study.config.model_dump(mode="json", exclude=set(EXCLUDED_SECTIONS))
    hidden = {f"settings.{key}" for key in withheld}
    changed = [key for key in differences({"settings": plan["settings"]}, {"settings": now}) if key not in hidden]
    if not changed:
        return []
    named = ", ".join(key.removeprefix("settings.") for key in changed[:8]) + (", …" if len(changed) > 8 else "")
    return [f"study.toml was changed after the plan was frozen: {named}."]


def _exclusion_deviations(read: Responses, frozen: FrozenPlan) -> list[str]:
    try:
        planned = frozen_exclusions(frozen)
    except RootnoteError as error:
        return [str(error)]
    found = []
    added = [rule for rule in read.plan.rules if rule not in planned.rules]
    dropped = [rule for rule in planned.rules if rule not in read.plan.rules]
    if added:
        found.append(f"Exclusions that were not planned: {', '.join(added)}.")
    if dropped:
        found.append(f"Planned exclusions that were not applied: {', '.join(dropped)}.")
    if read.plan.thresholds != planned.thresholds:
        now, then = vars(read.plan.thresholds), vars(planned.thresholds)
        other = ", ".join(f"{key} {then[key]:g} → {now[key]:g}" for key in then if then[key] != now[key])
        found.append(f"Thresholds differ from the plan: {other}.")
    found += [f"The exclusion rule {rule} could not be applied: {why}." for rule, why in read.not_applied.items()]
    return found


def _test_deviations(plan: Mapping[str, Any], alternative: str) -> list[str]:
    # The report applies the plan's test; the command line can make it one-sided.
    now = replace(PlannedTest.from_plan(plan["tests"]), alternative=alternative).as_data()
    # A plan frozen by an earlier version has fewer keys.
    other = [key for key in plan["tests"] if now.get(key) != plan["tests"].get(key)]
    return [
        f"The plan has {key} = {plan['tests'].get(key)}; the analysis used {now.get(key)}." for key in sorted(other)
    ]


def _schedule_deviations(read: Responses, plan: Mapping[str, Any], exported: ExportManifest | None) -> list[str]:
    found = []
    schedule = exported.schedule if exported else _schedule_of(read.path)
    if schedule and schedule != plan["fingerprints"]["schedule"]:
        found.append("The answers were collected with a different schedule than the frozen one.")
    name = plan["study"]["name"]
    if read.studies and read.studies != (name,):
        found.append(f"The answers are from {', '.join(read.studies)}; the plan is for {name}.")
    return found


def _schedule_of(path: Path) -> str:
    """The schedule's fingerprint in a Parquet export, "" if there is none."""
    if path.suffix.lower() != ".parquet":
        return ""
    try:
        metadata = pq.read_schema(path).metadata or {}
        provenance = Provenance.from_dict(json.loads(metadata.get(b"rootnote", b"{}")), path)
    except (OSError, ValueError, pa.ArrowException, RootnoteError):
        return ""
    return str(provenance.made_from.get("schedule", ""))


def _sample_deviations(read: Responses, plan: Mapping[str, Any]) -> list[str]:
    """Listeners and answers per bin pair, compared with those planned."""
    found = []
    planned = plan["answers"]
    frame = read.frame
    for name in planned:
        own = frame[frame["embedder"] == name]
        if own.empty:
            found.append(f"{name} was planned but has no answers.")
            continue
        pair = own["bin_high"].astype(str) + "-" + own["bin_low"].astype(str)
        counts = pair.value_counts()
        analysed = {key: int(counts.get(key, 0)) for key in planned[name]["pairs"]}
        if analysed != planned[name]["pairs"]:
            found.append(
                f"{name}: {_range(planned[name]['pairs'])} answers per bin pair from "
                f"{count(planned[name]['listeners'], 'listener')} were planned; {_range(analysed)} from "
                f"{count(own['listener'].nunique(), 'listener')} are analysed."
            )
    extra = [name for name in read.embedders if name not in planned]
    if extra:
        found.append(f"Not in the plan: {', '.join(extra)}.")
    return found


def _range(counts: Mapping[str, int]) -> str:
    low, high = min(counts.values(), default=0), max(counts.values(), default=0)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _earlier_answers(read: Responses, frozen: FrozenPlan) -> list[str]:
    if "answered_at" not in read.everything:
        return []
    times = []
    for text in read.everything["answered_at"].astype(str).unique():
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            continue
        if moment.tzinfo is not None:
            times.append(moment)
    earlier = sum(moment < frozen.frozen_at for moment in times)
    if not earlier:
        return []
    return [f"The plan was frozen after data collection had started (first answer on {min(times):%Y-%m-%d %H:%M} UTC)."]


def rules_in_effect(study: Study | None, frozen: FrozenPlan | None) -> ExclusionPlan | None:
    """The exclusion rules of the frozen plan, else those of study.toml, else None."""
    if frozen is not None:
        with contextlib.suppress(RootnoteError):  # reported as a deviation
            return frozen_exclusions(frozen)
    return plan_of(study.config) if study is not None else None
