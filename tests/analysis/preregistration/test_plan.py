"""Freezing a plan, and what later reports say about the plan and the file of responses."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from embeddings.provenance import Provenance, read_json, read_table, write_json, write_table
from rootnote import main
from study.config import Study, load_study
from study.design.bins import EDGES, bins_provenance, write_bins
from study.design.triplets import triplets_provenance
from study.export_manifest import read_manifest, write_manifest
from study.preregistration.document import differences, to_markdown
from study.trial_plan import read_plan, schedule_provenance, stimuli_provenance
from tests.paper_study import make_study

TOML = '[exclusions]\nrules = ["incomplete", "too_fast"]\nfastest_seconds = 2\n'
SIZES = {"prompts": 6, "listeners": 12, "trials": 6}


def build(folder: Path, toml: str = TOML, **sizes: int) -> Study:
    """A built study of twelve listeners (or other `sizes`), with bins."""
    study = make_study(folder, **{**SIZES, **sizes}, toml=toml)
    config = study.config
    bins = bins_provenance(config.bins, config.study.seed, "f" * 64)
    content = {
        "embedder": "logmel", "mu": 0.5, "sigma": 0.22, "random_mean": 0.0, "half_width": 0.02, "neighbours": 50,
        "prompts": 6, "histogram": {"edges": [float(e) for e in EDGES], "counts": [0] * (len(EDGES) - 1)},
        "counts": {}, "random": {}, "centres": {"1": 0.94, "2": 0.72, "3": 0.5, "4": 0.0},
    }  # fmt: skip
    write_bins(study.bins("logmel"), content, bins)
    triplets = triplets_provenance(config, {"logmel": bins.fingerprint})
    schedule = schedule_provenance(config, triplets.fingerprint)
    _, corpus = read_table(study.corpus, "corpus", "")
    for path, kind, provenance in (
        (study.triplets, "triplets", triplets),
        (study.schedule, "schedule", schedule),
    ):
        write_table(path, read_table(path, kind, "")[0], provenance)
    stimuli, _ = read_json(study.stimuli_index, "stimuli", "")
    write_json(study.stimuli_index, stimuli, stimuli_provenance(config, schedule.fingerprint, corpus.fingerprint))
    return study


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("plan") / "my-study").folder


@pytest.fixture
def study(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(built, tmp_path / "my-study")
    return tmp_path / "my-study"


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run `rootnote` in this process."""

    def command(*args: str | Path) -> Done:
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, printed.out, printed.err)

    return command


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# ------------------------------------------------------------------ freezing


def test_a_frozen_plan_says_everything_and_its_hash_can_be_recomputed(study: Path, run: Callable[..., Done]) -> None:
    (study / "hypotheses.md").write_text("Listeners agree in every bin pair.\n")
    done = run("study", "freeze", study)
    assert done.returncode == 0, done.stderr
    data = json.loads((study / "preregistration.json").read_text(encoding="utf-8"))
    canonical = json.dumps(data["plan"], sort_keys=True, separators=(",", ":"))
    assert data["hash"] == hashlib.sha256(canonical.encode()).hexdigest()
    assert f"Hash: {data['hash']}" in done.stdout
    plan = data["plan"]
    assert plan["answers"]["logmel"] == {
        "listeners": 12, "prompts": 6, "pairs": dict.fromkeys(("1-2", "1-3", "1-4", "2-3", "2-4", "3-4"), 12),
        "catch": 0, "repeat": 0,
    }  # fmt: skip
    assert plan["exclusions"]["rules"]["too_fast"] == "answered in less than 2 s"
    assert plan["fingerprints"]["schedule"] == read_plan(load_study(study)).schedule_fingerprint
    assert plan["files"]["study.toml"] == hashlib.sha256((study / "study.toml").read_bytes()).hexdigest()
    document = (study / "preregistration.md").read_text(encoding="utf-8")
    for words in (data["hash"], "Listeners agree in every bin pair.", "answered in less than 2 s",
                  "two-way (listeners and prompts",
                  "Smallest effect of interest: 55 %.",
                  plan["fingerprints"]["stimuli"], "design.listeners = 12", "1-2: 12, 1-3: 12"):  # fmt: skip
        assert words in document


def test_freezing_again_is_a_no_op_or_refused_or_an_amendment(study: Path, run: Callable[..., Done]) -> None:
    first = json.loads(run("study", "freeze", study, "--json").stdout)
    again = run("study", "freeze", study)
    assert "nothing has changed since" in again.stdout
    assert first["hash"] in again.stdout
    edit(study / "study.toml", "fastest_seconds = 2", "fastest_seconds = 3")
    refused = run("study", "freeze", study)
    assert refused.returncode == 1
    assert "exclusions.fastest_ms" in refused.stderr
    assert "--amend REASON" in refused.stderr
    assert json.loads((study / "preregistration.json").read_text())["hash"] == first["hash"]
    assert run("study", "freeze", study, "--amend", "The pilot was slower.").returncode == 0
    plan = json.loads((study / "preregistration.json").read_text())["plan"]
    assert plan["amends"] == {"hash": first["hash"], "reason": "The pilot was slower."}
    kept = json.loads((study / f"preregistration-{first['hash'][:12]}.json").read_text())
    assert kept["hash"] == first["hash"]


def test_only_a_built_study_can_be_frozen(study: Path, run: Callable[..., Done]) -> None:
    edit(study / "study.toml", "trials = 6", "trials = 5")
    done = run("study", "freeze", study)
    assert done.returncode == 1
    assert "rootnote study build" in done.stderr
    (study / "build" / "logmel.bins.json").unlink()
    edit(study / "study.toml", "trials = 5", "trials = 6")
    assert "rootnote study build" in run("study", "freeze", study).stderr
    assert not (study / "preregistration.json").exists()


# ------------------------------------------------------------------ reports


def answer(folder: Path, **changes: Any) -> Path:
    """An export with the planned number of answers from every listener."""
    plan = read_plan(load_study(folder))
    rows = [
        {
            "study": "Rehearsed study", "embedder": trial.embedder, "assignment": f"a{number}",
            "listener": f"l{number}", "trial": f"{number}-{trial.position}", "position": trial.position,
            "kind": trial.kind, "prompt": trial.prompt, "bin_high": trial.bin_high, "bin_low": trial.bin_low,
            "agreed": int((number + trial.position) % 4 > 0), "response_ms": 9000, "passed_prescreen": 1,
            "completed": 1, "answered_at": "2099-03-01T12:00:00.000Z", **changes,
        }
        for number, trials in plan.lists.items()
        for trial in trials
    ]  # fmt: skip
    path = folder / "responses.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_manifest(folder, "Rehearsed study", plan.schedule_fingerprint, "", [path], {"informed": 14})
    return path


@pytest.fixture
def report(run: Callable[..., Done], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What a report says about the plan; its page is at tmp_path/out."""

    def command(responses: Path, *args: str) -> dict[str, Any]:
        done = run("analysis", "report", responses, "--out", tmp_path / "out", "--json", *args)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)["plan"]
        return found

    return command


@pytest.mark.slow
def test_a_report_that_follows_the_plan_says_so_and_prints_the_hash(
    study: Path, run: Callable[..., Done], report: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    frozen = json.loads(run("study", "freeze", study, "--json").stdout)["hash"]
    found = report(answer(study))
    assert found["departures"] == []
    assert found["verdict"] == "The analysis follows the frozen plan."
    assert (found["hash"], found["as_exported"]) == (frozen, True)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert frozen in page
    assert "The analysis follows the frozen plan." in page
    output = " ".join(run("analysis", "report", study / "responses.csv", "--out", tmp_path / "out").stdout.split())
    assert frozen in output


def freeze_and(study: Path, run: Callable[..., Done]) -> Path:
    assert run("study", "freeze", study).returncode == 0
    return answer(study)


def test_other_rules_and_sides_are_deviations(
    study: Path, run: Callable[..., Done], report: Callable[..., dict[str, Any]]
) -> None:
    found = report(freeze_and(study, run), "--rules", "incomplete,one_side", "--one-sided")
    assert found["departures"] == [
        "Exclusions that were not planned: one_side.",
        "Planned exclusions that were not applied: too_fast.",
        "The exclusion rule one_side could not be applied: the file lacks the column choice.",
        "The plan has alternative = two-sided; the analysis used greater.",
    ]  # fmt: skip


def test_a_plan_frozen_before_there_was_a_choice_keeps_the_exact_test(
    study: Path, run: Callable[..., Done], report: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    path = freeze_and(study, run)
    document = json.loads((study / "preregistration.json").read_text(encoding="utf-8"))
    plan = document["plan"]
    plan["tests"] = {
        "test": "exact binomial", "alternative": "two-sided", "chance": 0.5, "alpha": 0.05,
        "correction": "Holm, over the bin pairs of one embedder", "interval": "Clopper-Pearson, 95 %",
    }  # fmt: skip
    del plan["settings"]["analysis"]
    canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"))
    document["hash"] = hashlib.sha256(canonical.encode()).hexdigest()
    (study / "preregistration.json").write_text(json.dumps(document, ensure_ascii=False))
    (study / "preregistration.md").write_text(to_markdown(plan), encoding="utf-8")
    assert report(path)["departures"] == []
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf-8"))
    assert (numbers["primary_test"]["primary"], numbers["primary_test"]["planned"]) == ("exact_holm", True)
    pairs = numbers["table1"]["logmel"]["pairs"]
    for pair, one in numbers["primary_test"]["embedders"]["logmel"].items():
        assert one["p_holm"] == pytest.approx(pairs[pair]["p_holm"], rel=1e-9)
    assert "It was fixed in the frozen plan." in " ".join(numbers["claims"])


def test_study_toml_says_the_test_and_the_plan_records_it(
    study: Path, run: Callable[..., Done], report: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    edit(
        study / "study.toml",
        "[exclusions]",
        '[analysis]\nprimary = "mixed_holm"\nsmallest_effect = 0.1\n\n[exclusions]',
    )
    path = freeze_and(study, run)
    frozen = json.loads((study / "preregistration.json").read_text(encoding="utf-8"))["plan"]["tests"]
    assert (frozen["primary"], frozen["smallest_effect"]) == ("mixed_holm", 0.1)
    edit(study / "study.toml", "mixed_holm", "exact_holm")
    assert report(path)["departures"] == ["study.toml was changed after the plan was frozen: analysis.primary."]
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf-8"))
    assert numbers["primary_test"]["primary"] == "mixed_holm"


def test_other_numbers_are_a_deviation(
    study: Path, run: Callable[..., Done], report: Callable[..., dict[str, Any]]
) -> None:
    path = freeze_and(study, run)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("Rehearsed study,logmel,a3,")))
    found = report(path)
    assert found["as_exported"] is False
    assert found["file"].startswith("responses.csv was changed after the export: its hash ")
    assert found["departures"] == [
        "logmel: 12 answers per bin pair from 12 listeners were planned; 11 from 11 listeners are analysed.",
        found["file"],
    ]


def test_a_changed_study_toml_keeps_the_frozen_rules_and_is_reported(
    study: Path, run: Callable[..., Done], report: Callable[..., dict[str, Any]]
) -> None:
    path = freeze_and(study, run)
    edit(study / "study.toml", 'rules = ["incomplete", "too_fast"]', 'rules = ["incomplete"]')
    answer(study, response_ms=100)
    done = run("analysis", "report", path, "--out", study / "out")
    assert done.returncode == 1
    assert "answered in less than 2 s: 72" in done.stderr
    answer(study)
    assert report(path)["departures"] == ["study.toml was changed after the plan was frozen: exclusions.rules."]


def test_the_default_of_a_newer_setting_is_not_a_deviation(study: Path, run: Callable[..., Done]) -> None:
    assert run("study", "freeze", study).returncode == 0
    plan = json.loads((study / "preregistration.json").read_text(encoding="utf-8"))["plan"]
    former = json.loads(json.dumps(plan))
    del former["settings"]["player"], former["settings"]["exclusions"]["longest_run"]
    assert differences(former, plan) == []
    plan["settings"]["player"]["confidence"] = True
    assert differences(former, plan) == ["settings.player.confidence"]
    assert differences(plan, former) != []


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("preregistration.json", '"chance": 0.5', '"chance": 0.4', "preregistration.json was edited after"),
        ("preregistration.md", "two-sided", "one-sided", "preregistration.md differs from preregistration.json"),
    ],
)
def test_an_edited_plan_is_reported(
    study: Path,
    run: Callable[..., Done],
    report: Callable[..., dict[str, Any]],
    name: str,
    old: str,
    new: str,
    words: str,
) -> None:
    path = freeze_and(study, run)
    edit(study / name, old, new)
    assert report(path)["departures"][0].startswith(words)


def test_other_schedules_earlier_answers_and_other_studies_are_reported(
    study: Path, run: Callable[..., Done], report: Callable[..., dict[str, Any]]
) -> None:
    path = freeze_and(study, run)
    answer(study, answered_at="2020-03-01T12:00:00Z", study="Another")
    write_manifest(study, "Another", "0" * 64, "", [path], {})
    assert report(path, "--study", str(study))["departures"] == [
        "The answers were collected with a different schedule than the frozen one.",
        "The answers are from Another; the plan is for Rehearsed study.",
        "The plan was frozen after data collection had started (first answer on 2020-03-01 12:00 UTC).",
    ]
    parquet = study / "r.parquet"
    table = pa.Table.from_pylist(list(csv.DictReader(path.read_text().splitlines())))
    write_table(parquet, table, Provenance("responses", {}, {"schedule": "0" * 64}))
    (study / "export.json").unlink()
    assert "different schedule" in " ".join(report(parquet, "--study", str(study))["departures"])


def test_damaged_plans_and_exports_do_not_stop_a_report(
    study: Path, run: Callable[..., Done], report: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    path = freeze_and(study, run)
    (study / "preregistration.json").write_text("{")
    edit(study / "export.json", '"informed": 14', '"informed": 15')
    (study / "export.json").write_text((study / "export.json").read_text().replace('"arrived"', '"arived"'))
    found = report(path)
    assert found["hash"] is None
    assert found["as_exported"] is None
    assert "unknown whether" in found["file"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert re.search("The frozen plan cannot be used: .*preregistration.json is damaged", page)


def test_without_a_plan_it_says_that_nothing_is_preregistered(
    study: Path, report: Callable[..., dict[str, Any]]
) -> None:
    assert report(answer(study))["verdict"].startswith("No plan was frozen")


def test_the_export_manifest_describes_the_export(study: Path) -> None:
    path = answer(study)
    found = read_manifest(study)
    assert found is not None
    assert found.files == {"responses.csv": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert found.arrived == {"informed": 14}
    assert read_manifest(study / "build") is None


def test_the_commands_of_the_documentation(
    study: Path, run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = Path(__file__).parents[3] / "docs"
    monkeypatch.chdir(study.parent)
    found = re.findall(r"^rootnote study freeze .*$", (docs / "study.md").read_text(encoding="utf-8"), re.MULTILINE)
    found += re.findall(
        r"^rootnote analysis report .*$", (docs / "analysis.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(found) >= 2
    shutil.copy(answer(study), "responses.csv")
    for line in found:
        done = run(*line.split()[1:])
        assert done.returncode == 0, line + done.stderr
