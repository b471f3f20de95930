"""Departures: whether a report keeps to the frozen plan, and whether its file is as it was exported.

Everything that differs is said in a sentence; nothing is refused, because a departure may be right, but never silent.
Conventions: a hash is shown whole where it stands alone, and by its first 12 digits in a sentence.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.responses.load import Responses
from analysis.statistics.agreement import CHANCE
from embeddings.errors import RootnoteError
from embeddings.provenance import Provenance
from embeddings.version import VERSION
from study.config import Study
from study.export_manifest import MANIFEST, ExportManifest, read_manifest
from study.preregistration.document import APART, JSON, MARKDOWN, TESTS, FrozenPlan, differences, read_frozen
from study.preregistration.exclusion_rules import ExclusionPlan, plan_of

ALPHA = 0.05


@dataclass(frozen=True)
class PreregistrationCheck:
    """What is known of the plan and of the export: the hash ("" where no plan is frozen), and what to say of both."""

    hash: str
    frozen_at: str
    departures: tuple[str, ...]
    file: str
    as_exported: bool | None
    has_study: bool

    @property
    def verdict(self) -> str:
        """One sentence on the plan."""
        if not self.hash:
            return "No plan was frozen for this study (rootnote study freeze), so nothing here is preregistered."
        if not self.departures:
            return "The analysis keeps to the frozen plan."
        number = len(self.departures)
        return f"The analysis departs from the frozen plan in {number} point{'s' if number > 1 else ''}."

    def in_words(self) -> list[str]:
        """The plan and the file as lines for a terminal; nothing where neither plan nor export is there."""
        said = [self.file] if self.as_exported is not None else []
        if not self.hash:
            return said
        return [f"Plan {self.hash}, frozen {self.frozen_at}. {self.verdict}", *self.departures, *said]

    def as_data(self) -> dict[str, Any]:
        return {
            "hash": self.hash or None,
            "frozen_at": self.frozen_at or None,
            "verdict": self.verdict if self.has_study else None,
            "departures": list(self.departures),
            "file": self.file,
            "as_exported": self.as_exported,
        }


def read_plan_of(study: Study | None) -> tuple[FrozenPlan | None, tuple[str, ...]]:
    """The frozen plan of a study, and what should be said where it cannot be read."""
    if study is None:
        return None, ()
    try:
        return read_frozen(study.folder), ()
    except RootnoteError as error:
        return None, (f"The frozen plan cannot be used: {error}",)


def frozen_exclusions(frozen: FrozenPlan) -> ExclusionPlan:
    """The rules of a frozen plan.

    Raises:
        RootnoteError: where the plan holds none that this version knows.
    """
    try:
        plan = ExclusionPlan.from_data(frozen.plan["exclusions"])
        plan.as_data()
    except (KeyError, TypeError, ValueError) as error:
        raise RootnoteError(f"{JSON} holds no exclusions that this version knows ({error}).") from error
    return plan


def check_preregistration(
    read: Responses, study: Study | None, frozen: FrozenPlan | None, alternative: str
) -> PreregistrationCheck:
    """Compare a report's responses, rules and tests with the frozen plan and the export."""
    exported, file, as_exported = check_file(read)
    departures = _departures(read, study, frozen, exported, alternative) if frozen else []
    if frozen and as_exported is False:
        departures.append(file)
    return PreregistrationCheck(
        frozen.hash if frozen else "",
        str(frozen.plan["frozen_at"]) if frozen else "",
        tuple(departures),
        file,
        as_exported,
        study is not None,
    )


def check_file(read: Responses) -> tuple[ExportManifest | None, str, bool | None]:
    """The export that the file came from, a sentence on whether it is unchanged, and whether (None: not known)."""
    name = read.path.name
    try:
        exported = read_manifest(read.path.resolve().parent)
    except RootnoteError as error:
        return None, f"Whether {name} is as exported cannot be told: {error}", None
    if exported is None:
        return None, f"There is no {MANIFEST} beside {name}, so whether it is as exported cannot be told.", None
    if read.sha256 in exported.files.values():
        return exported, f"{name} is byte for byte as exported.", True
    if name in exported.files:
        words = f"its hash {read.sha256[:12]} differs from the export's {exported.files[name][:12]}"
        return exported, f"{name} was changed after the export: {words}.", False
    return exported, f"{name} is none of the files that {MANIFEST} beside it names.", False


def _departures(
    read: Responses, study: Study | None, frozen: FrozenPlan, exported: ExportManifest | None, alternative: str
) -> list[str]:
    plan = frozen.plan
    return [
        *_edited(frozen),
        *_changed_settings(study, plan, exported.withheld if exported else ()),
        *_other_exclusions(read, frozen),
        *_other_tests(plan, alternative),
        *_other_schedule(read, plan, exported),
        *_other_n(read, plan),
        *_earlier_answers(read, frozen),
        *(
            [f"The plan was frozen with Rootnote {plan['rootnote']}; this is {VERSION}."]
            * (plan["rootnote"] != VERSION)
        ),
    ]


def _edited(frozen: FrozenPlan) -> list[str]:
    if not frozen.intact:
        return [f"{JSON} was edited after it was frozen: its content no longer has the hash {frozen.hash[:12]}."]
    return [] if frozen.markdown_intact else [f"{MARKDOWN} does not say what {JSON} says: it was edited or is missing."]


def _changed_settings(study: Study | None, plan: Mapping[str, Any], withheld: Sequence[str]) -> list[str]:
    """Settings that are not as planned; what a public release withholds cannot be compared."""
    if study is None:
        return []
    now = study.config.model_dump(mode="json", exclude=set(APART))
    hidden = {f"settings.{key}" for key in withheld}
    changed = [key for key in differences({"settings": plan["settings"]}, {"settings": now}) if key not in hidden]
    if not changed:
        return []
    named = ", ".join(key.removeprefix("settings.") for key in changed[:8]) + (", …" if len(changed) > 8 else "")
    return [f"study.toml was changed after the plan was frozen: {named}."]


def _other_exclusions(read: Responses, frozen: FrozenPlan) -> list[str]:
    try:
        planned = frozen_exclusions(frozen)
    except RootnoteError as error:
        return [str(error)]
    said = []
    added = [rule for rule in read.plan.rules if rule not in planned.rules]
    dropped = [rule for rule in planned.rules if rule not in read.plan.rules]
    if added:
        said.append(f"Exclusions that were not planned: {', '.join(added)}.")
    if dropped:
        said.append(f"Planned exclusions that were not made: {', '.join(dropped)}.")
    if read.plan.thresholds != planned.thresholds:
        now, then = vars(read.plan.thresholds), vars(planned.thresholds)
        other = ", ".join(f"{key} {then[key]:g} → {now[key]:g}" for key in then if then[key] != now[key])
        said.append(f"Other thresholds than planned: {other}.")
    said += [f"The exclusion {rule} could not be made: {why}." for rule, why in read.not_applied.items()]
    return said


def _other_tests(plan: Mapping[str, Any], alternative: str) -> list[str]:
    now = TESTS | {"alternative": alternative, "chance": CHANCE, "alpha": ALPHA}
    other = [key for key in {**now, **plan["tests"]} if now.get(key) != plan["tests"].get(key)]
    return [f"Planned was {key} = {plan['tests'].get(key)}; used is {now.get(key)}." for key in sorted(other)]


def _other_schedule(read: Responses, plan: Mapping[str, Any], exported: ExportManifest | None) -> list[str]:
    said = []
    schedule = exported.schedule if exported else _schedule_of(read.path)
    if schedule and schedule != plan["fingerprints"]["schedule"]:
        said.append("The answers were collected on another schedule than the frozen one.")
    name = plan["study"]["name"]
    if read.studies and read.studies != (name,):
        said.append(f"The answers are of {', '.join(read.studies)}; the plan is of {name}.")
    return said


def _schedule_of(path: Path) -> str:
    """The schedule's fingerprint that a Parquet export carries, "" where it carries none."""
    if path.suffix.lower() != ".parquet":
        return ""
    try:
        metadata = pq.read_schema(path).metadata or {}
        found = Provenance.from_dict(json.loads(metadata.get(b"rootnote", b"{}")), path)
    except (OSError, ValueError, pa.ArrowException, RootnoteError):
        return ""
    return str(found.made_from.get("schedule", ""))


def _other_n(read: Responses, plan: Mapping[str, Any]) -> list[str]:
    """Listeners and answers per bin pair, against those planned."""
    said = []
    planned = plan["answers"]
    frame = read.frame
    for name in planned:
        own = frame[frame["embedder"] == name]
        if own.empty:
            said.append(f"{name} was planned and has no answers.")
            continue
        pair = own["bin_high"].astype(str) + "-" + own["bin_low"].astype(str)
        counts = pair.value_counts()
        found = {key: int(counts.get(key, 0)) for key in planned[name]["pairs"]}
        if found != planned[name]["pairs"]:
            said.append(
                f"{name}: {_spread(planned[name]['pairs'])} answers per bin pair of {planned[name]['listeners']:,} "
                f"listeners were planned; {_spread(found)} of {own['listener'].nunique():,} are analysed."
            )
    extra = [name for name in read.embedders if name not in planned]
    if extra:
        said.append(f"Not in the plan: {', '.join(extra)}.")
    return said


def _spread(counts: Mapping[str, int]) -> str:
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
    return [
        f"The plan was frozen after the first answers had been given (the first on {min(times):%Y-%m-%d %H:%M} UTC)."
    ]


def present_rules(study: Study | None, frozen: FrozenPlan | None) -> ExclusionPlan | None:
    """The rules that hold: the frozen ones, else those of study.toml, else None."""
    if frozen is not None:
        with contextlib.suppress(RootnoteError):  # said as a departure
            return frozen_exclusions(frozen)
    return plan_of(study.config) if study is not None else None
