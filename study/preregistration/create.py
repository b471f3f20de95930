"""Freezing: the plan of a built study as a preregistration, before anyone has listened.

`preregistration.json` contains the plan and its hash, the SHA-256 of the plan in canonical JSON; `preregistration.md`
is the same plan for people. The plan has every setting of study.toml, the number of answers for each bin pair, the
exclusions, the tests, the seed, and the fingerprint of every artefact and text. Anyone who can edit the file can also
recompute its hash, so the plan is binding once the hash is stored where its author cannot change it (a registry, a
colleague's inbox).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embeddings.errors import StaleArtefactError
from embeddings.provenance import digest, read_table, replacing, require_fresh
from embeddings.version import VERSION
from study.check import TEXTS
from study.config import Study
from study.config_sections import AnalysisConfig
from study.design.bins import read_bins
from study.design.triplets import triplets_provenance
from study.preregistration.document import (
    EXCLUDED_SECTIONS,
    HYPOTHESES,
    JSON,
    MARKDOWN,
    FrozenPlan,
    differences,
    read_frozen,
    text_of,
    to_markdown,
)
from study.preregistration.exclusion_rules import plan_of
from study.preregistration.planned_test import PlannedTest
from study.trial_plan import BUILD, Plan, read_plan

FORMAT = 1


def describe(study: Study, alternative: str | None = None) -> dict[str, Any]:
    """The plan of a built study, without the moment of freezing.

    Args:
        alternative: "greater" or "two-sided"; None: as study.toml says.

    Raises:
        RootnoteError: if the study is not built, or an artefact is not of the present study.toml.
    """
    plan = read_plan(study)
    config = study.config
    bins, fingerprints = {}, {}
    for name in config.embedding.embedders:
        fitted, _, provenance = read_bins(study.bins(name))
        bins[name] = {
            "centres": {str(number): round(centre, 6) for number, centre in fitted.centres.items()},
            "half_width": fitted.half_width,
        }
        fingerprints[f"vectors {name}"] = provenance.made_from.get("vectors", "")
        fingerprints[f"bins {name}"] = provenance.fingerprint
    triplets, made = read_table(study.triplets, "triplets", BUILD)
    own = {name: fingerprints[f"bins {name}"] for name in config.embedding.embedders}
    require_fresh(study.triplets, made, triplets_provenance(config, own), BUILD)
    corpus, corpus_made = read_table(study.corpus, "corpus", BUILD)
    files = ("study.toml", *TEXTS, HYPOTHESES)
    return {
        "format": FORMAT,
        "rootnote": VERSION,
        "study": config.study.model_dump(mode="json"),
        "hypotheses": text_of(study.folder / HYPOTHESES),
        "corpus": {"clips": corpus.num_rows},
        "triplets": triplets.num_rows,
        "bins": bins,
        "answers": {name: _answers(plan, name) for name in config.compared},
        "exclusions": plan_of(config).as_data(),
        "tests": _planned_test(config.analysis, alternative).as_data(),
        "settings": config.model_dump(mode="json", exclude=set(EXCLUDED_SECTIONS)),
        "fingerprints": {
            "corpus": corpus_made.fingerprint,
            **fingerprints,
            "triplets": made.fingerprint,
            "schedule": plan.schedule_fingerprint,
            "stimuli": digest({key: stimulus.sha256 for key, stimulus in plan.stimuli.items()}),
        },
        **({} if plan.leaks else {"drawn_with": "secret.key"}),
        "files": {name: _sha256(study.folder / name) for name in files if (study.folder / name).is_file()},
    }


def _planned_test(analysis: AnalysisConfig, alternative: str | None) -> PlannedTest:
    planned = PlannedTest.from_config(analysis)
    return planned if alternative is None else replace(planned, alternative=alternative)


def _answers(plan: Plan, embedder: str) -> dict[str, Any]:
    """The numbers of listeners, prompts, and answers by bin pair and kind, of one embedder."""
    trials = [trial for trials in plan.lists.values() for trial in trials if trial.embedder == embedder]
    scored = [trial for trial in trials if trial.kind == "scored"]
    pairs = Counter(f"{trial.bin_high}-{trial.bin_low}" for trial in scored)
    kinds = Counter(trial.kind for trial in trials)
    return {
        "listeners": len({trial.list for trial in scored}),
        "prompts": len({trial.prompt for trial in scored}),
        "pairs": dict(sorted(pairs.items())),
        "catch": kinds["catch"],
        "repeat": kinds["repeat"],
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def freeze(study: Study, now: datetime, alternative: str | None = None, amend: str = "") -> tuple[FrozenPlan, bool]:
    """Write the plan, or find that it is frozen already: (the plan, whether it was written now).

    Args:
        amend: the reason for replacing a frozen plan; the former plan is kept under its hash.

    Raises:
        RootnoteError: if the study is not built, or another plan is frozen and no reason is given.
    """
    plan = describe(study, alternative)
    former = read_frozen(study.folder)
    if former is not None and not amend:
        changed = [key for key in differences(former.plan, plan) if key != "rootnote"]
        if former.intact and former.markdown_intact and not changed:
            return former, False
        what = ", ".join(changed[:6]) if changed else "the file itself was edited"
        raise StaleArtefactError(
            f"{study.folder / JSON} was frozen on {former.plan['frozen_at'][:10]}, and this has changed since: {what}; "
            "undo the change, or freeze a new plan with --amend REASON."
        )
    if former is not None:
        _keep(study.folder, former)
    plan["frozen_at"] = now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    plan["amends"] = {"hash": former.hash, "reason": amend} if former is not None else None
    _write(study.folder, plan)
    frozen = read_frozen(study.folder)
    assert frozen is not None
    return frozen, True


def _keep(folder: Path, former: FrozenPlan) -> None:
    """Keep the former plan under its hash, so that readers can see what was amended."""
    for name in (JSON, MARKDOWN):
        if (folder / name).is_file():
            stem, suffix = name.split(".")
            (folder / name).replace(folder / f"{stem}-{former.hash[:12]}.{suffix}")


def _write(folder: Path, plan: dict[str, Any]) -> None:
    text = json.dumps({"hash": digest(plan), "plan": plan}, indent=2, ensure_ascii=False) + "\n"
    # The JSON last: a plan is frozen once it exists.
    for name, content in ((MARKDOWN, to_markdown(plan)), (JSON, text)):
        with replacing(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
