"""A frozen plan: how preregistration.json is read, compared and described (`create` writes it)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from embeddings.errors import ArtefactError
from embeddings.provenance import digest
from study.config import StudyConfig
from study.config_sections import AnalysisConfig, CorpusConfig, StudyInfo

JSON, MARKDOWN, HYPOTHESES = "preregistration.json", "preregistration.md", "hypotheses.md"
DEFAULT_PRIMARY = AnalysisConfig().primary
# Settings that cannot change what listeners hear or answer, or what is computed.
EXCLUDED_SECTIONS = ("rehearsal",)


@dataclass(frozen=True)
class FrozenPlan:
    """A frozen plan as it was read; `intact` where its content has the hash it states."""

    plan: Mapping[str, Any]
    hash: str
    intact: bool
    markdown_intact: bool

    @property
    def frozen_at(self) -> datetime:
        return datetime.fromisoformat(self.plan["frozen_at"])


def read_frozen(folder: Path) -> FrozenPlan | None:
    """The frozen plan of a study folder, None if there is none.

    Raises:
        ArtefactError: if the file exists but is not a plan.
    """
    path = folder / JSON
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        plan, stated = dict(data["plan"]), str(data["hash"])
        for key in ("study", "answers", "exclusions", "tests", "settings", "fingerprints", "frozen_at"):
            plan[key]
        datetime.fromisoformat(plan["frozen_at"])
        markdown = to_markdown(plan)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"{path} is damaged ({type(error).__name__}: {error}); restore it from where it was registered."
        ) from error
    return FrozenPlan(plan, stated, digest(plan) == stated, text_of(folder / MARKDOWN) == markdown.strip())


def differences(former: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    """The keys, dotted, in which two plans differ, apart from the time of freezing.

    A setting that the former plan lacks is no difference if it has its default, because later versions have more
    settings. A missing setting equals an empty one (null).
    """
    one, other = ({**_flat(each, ""), "frozen_at": "", "amends": ""} for each in (former, plan))
    if "tests.primary" not in one and other.get("settings.analysis.primary", DEFAULT_PRIMARY) == DEFAULT_PRIMARY:
        # Frozen before there was a choice: it keeps its test, unless study.toml chooses another.
        other = (
            {key: value for key, value in other.items() if not key.startswith("tests.")}
            | {key: value for key, value in one.items() if key.startswith("tests.") and key != "tests.alternative"}
            | {"tests.alternative": other.get("tests.alternative")}
        )
    usual = _flat({"settings": _DEFAULTS.model_dump(mode="json")}, "")
    return sorted(
        key
        for key in {**one, **other}
        if not key.startswith("amends")
        and one.get(key) != other.get(key)
        and not (key not in one and key in usual and usual[key] == other.get(key))
    )


_DEFAULTS = StudyConfig(study=StudyInfo(name="-"), corpus=CorpusConfig(audio="-"))


def _flat(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    parts = [_flat(part, f"{name}.{key}" if name else str(key)) for key, part in value.items()]
    return {key: part for each in parts for key, part in each.items()}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


# For people. A frozen preregistration.md must equal this text, so a changed sentence makes frozen plans look edited.


def _draws(plan: Mapping[str, Any]) -> str:
    """What decides all that is drawn; the studies of earlier versions had no secret key."""
    seed = plan["study"]["seed"]
    if "drawn_with" not in plan:
        return f"Everything that is drawn or shuffled follows from the seed {seed}."
    return (
        f"Prompts and clips are drawn from the seed {seed}. Lists, order, sides and the dither of the sounds are drawn "
        "from a secret key, which is not part of this plan."
    )


def to_markdown(plan: Mapping[str, Any]) -> str:
    """The plan as a document; it follows from the JSON alone."""
    study, tests, settings = plan["study"], plan["tests"], plan["settings"]
    amends = plan.get("amends")
    lines = [
        f"# Preregistration: {study['name']}",
        "",
        f"Frozen {plan['frozen_at']} with Rootnote {plan['rootnote']}. Hash: `{digest(plan)}`",
        "",
    ]
    if amends:
        lines += [f"It replaces the plan `{amends['hash']}`, because: {amends['reason']}", ""]
    if study["researcher"] or study["contact"]:
        lines += [f"Researcher: {', '.join(filter(None, (study['researcher'], study['contact'])))}.", ""]
    if plan["hypotheses"]:
        lines += ["## Hypotheses", "", plan["hypotheses"], ""]
    lines += ["## Design", "", *_design(plan), ""]
    lines += ["## Who does not count", "", *_exclusions(plan["exclusions"]), ""]
    lines += [
        "## Tests",
        "",
        f"For each embedder and bin pair: {tests['test']} test, {tests['alternative']}, against "
        f"{100 * tests['chance']:g} %, at α = {tests['alpha']:g}; correction: {tests['correction']}; intervals: "
        f"{tests['interval']}. All other results are secondary.",
        *_smallest_effect(tests),
        "",
        "## Seed, settings, fingerprints",
        "",
        _draws(plan),
        "",
        "| artefact | fingerprint (SHA-256) |",
        "|---|---|",
        *(f"| {name} | `{value}` |" for name, value in plan["fingerprints"].items()),
        *(f"| {name} | `{value}` |" for name, value in plan["files"].items()),
        "",
        "```text",
        *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in _flat(settings, "").items()),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _smallest_effect(tests: Mapping[str, Any]) -> list[str]:
    """A sentence that plans frozen before there was a smallest effect do not have."""
    if "smallest_effect" not in tests:
        return []
    rate = 100 * (tests["chance"] + tests["smallest_effect"])
    return ["", f"Smallest effect of interest: {rate:g} %."]


def _design(plan: Mapping[str, Any]) -> list[str]:
    design = plan["settings"]["design"]
    lines = [
        f"Design `{design['kind']}` on {plan['corpus']['clips']:,} clips of "
        f"{plan['settings']['corpus']['clip_seconds']:g} s; {plan['triplets']:,} triplets.",
        "",
        "| embedder | listeners | prompts | answers per bin pair | catch | repeat | bin centres 1 to 4 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, answers in plan["answers"].items():
        pairs = ", ".join(f"{pair}: {n}" for pair, n in answers["pairs"].items())
        centres = ", ".join(f"{value:.3f}" for value in plan["bins"][name]["centres"].values())
        centres += f" (± {plan['bins'][name]['half_width']:g})"
        lines.append(
            f"| {name} | {answers['listeners']} | {answers['prompts']} | {pairs} | {answers['catch']} | "
            f"{answers['repeat']} | {centres} |"
        )
    return lines


def _exclusions(exclusions: Mapping[str, Any]) -> list[str]:
    if not exclusions["rules"]:
        return ["Everybody counts."]
    return [f"- `{name}`: {says}" for name, says in exclusions["rules"].items()]
