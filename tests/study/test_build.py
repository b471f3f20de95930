"""`rootnote study init`, `build` and `check`, as a researcher runs them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from embeddings.errors import RootnoteError
from embeddings.provenance import read_table
from study.config import load_study
from study.trial_plan import read_plan
from tests.commands import refusal, run

RATE = 22_050


def process(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process, like a user."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def write_music(folder: Path, tracks: int, seconds: float = 24, seed: int = 1) -> None:
    """Write tracks of tones over noise with graded similarities."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    kinds = rng.uniform(100, 3000, (4, 4))
    for number in range(tracks):
        pitches = kinds[number % 4] * rng.uniform(0.94, 1.06, 4)
        beat = 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(1, 3) * time)
        drift = 1 + 0.2 * np.sin(2 * np.pi * time / seconds)
        tones = sum(np.sin(2 * np.pi * pitch * time * drift) for pitch in pitches)
        sound = 0.05 * beat * tones + rng.uniform(0.002, 0.02) * rng.normal(size=len(time))
        soundfile.write(folder / f"t{number:02}.flac", sound.astype(np.float32), RATE)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study, built through the command line."""
    base = tmp_path_factory.mktemp("built")
    write_music(base / "music", 24)
    done = process(
        "-m", "rootnote", "study", "init", base / "study", "--audio", base / "music", "--name", 'A "quoted" study'
    )
    assert done.returncode == 0, done.stderr
    small(base / "study")
    done = run("study", "build", base / "study")
    assert done.returncode == 0, done.stdout + done.stderr
    return base / "study"


def small(study: Path) -> None:
    """Set sizes that a small corpus can provide."""
    edit(study, 'kind = "paper" ', 'kind = "paper"\nprompts = 6\nlisteners = 6\ntrials = 6 ')
    edit(study, "half_width = 0.02", "half_width = 0.03")


def edit(study: Path, old: str, new: str) -> None:
    path = study / "study.toml"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def study(built: Path, tmp_path: Path) -> Path:
    """A copy of the built study that a test may change."""
    shutil.copytree(built.parent, tmp_path / "copy", copy_function=shutil.copy2)
    return tmp_path / "copy" / "study"


@pytest.mark.slow
def test_a_fresh_study_folder(built: Path) -> None:
    assert sorted(path.name for path in built.iterdir()) == [
        "build", "consent.md", "debrief.md", "instructions.md", "secret.key", "study.toml",
    ]  # fmt: skip
    study = load_study(built)
    assert study.config.study.name == 'A "quoted" study'
    assert study.config.corpus.audio == "../music"


def test_init_writes_the_defaults_of_the_model(tmp_path: Path) -> None:
    from study.config import StudyConfig
    from study.config_sections import CorpusConfig, StudyInfo
    from study.marketplaces import RecruiterConfig

    write_music(tmp_path / "music", 1, seconds=1)
    assert run("study", "init", tmp_path / "s", "--audio", tmp_path / "music").returncode == 0
    written = load_study(tmp_path / "s").config
    new = RecruiterConfig.model_validate({"link": {"open": False}})  # a study.toml without the key has an open link
    expected = StudyConfig(study=StudyInfo(name="s", seed=1), corpus=CorpusConfig(audio="../music"), recruiter=new)
    # New studies exclude what the server's clock disproves and ask an attention check; older ones keep what they have.
    assert written.exclusions.rules == [*expected.exclusions.rules, "impossible_time"]
    check = next(one for one in written.questions if one.id == "attention")
    assert (check.type, check.required) == ("attention", True)
    rest = [one for one in written.questions if one is not check]
    old = {"exclusions": expected.exclusions, "questions": rest}
    assert written.model_copy(update=old) == expected


def test_every_artefact_is_there_and_belongs_together(built: Path) -> None:
    study = load_study(built)
    plan = read_plan(study)
    assert len(plan.lists) == 6
    assert all(len(trials) == 6 for trials in plan.lists.values())
    table, _ = read_table(study.triplets, "triplets", "")
    assert table.num_rows == 36
    for trials in plan.lists.values():
        for trial in trials:
            for role in ("x", "high", "low"):
                assert plan.stimuli[trial.stimulus_key(role)].file.is_file()
    leftovers = [path.name for path in study.build.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    assert leftovers == []


# What takes long to load, and what a build with nothing to make has no use for.
HEAVY = """
import sys, rootnote
try: rootnote.main()
finally: print("loaded", sorted({"torch", "faiss", "numba", "soundfile", "pyloudnorm"} & set(sys.modules)))
"""


def test_a_second_build_finds_everything_up_to_date(study: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (study / "build").rglob("*") if path.is_file()}
    done = process("-c", HEAVY, "study", "build", study)
    assert done.stdout.splitlines()[-1] == "loaded []"
    assert done.stdout.count("(up to date)") == 6
    assert before == {path: path.stat().st_mtime_ns for path in (study / "build").rglob("*") if path.is_file()}


def test_a_changed_setting_rebuilds_what_depends_on_it(study: Path) -> None:
    edit(study, "fade_ms = 10.0", "fade_ms = 20.0")
    with pytest.raises(
        RootnoteError, match=r"stimuli\.json is stale \(fade_ms changed since\); run `rootnote study build`"
    ):
        read_plan(load_study(study))
    done = run("study", "build", study)
    assert done.stdout.count("(up to date)") == 5
    assert read_plan(load_study(study)).lists


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("half_width = 0.03", "half_width = 0.025", "bins.half_width"),
        ("hop_seconds = 3.0", "hop_seconds = 1.5", "corpus.hop_seconds"),
        ("same_track = false", "same_track = true", "design.same_track"),
        ("seed = 1 ", "seed = 2 ", "study.seed"),
    ],
)
def test_a_plan_of_an_earlier_study_toml_is_refused(study: Path, old: str, new: str, key: str) -> None:
    edit(study, old, new)
    with pytest.raises(
        RootnoteError, match=rf"schedule\.parquet is stale \({key} changed since\); run `rootnote study"
    ):
        read_plan(load_study(study))


def test_a_study_may_move_and_change_its_words(study: Path) -> None:
    edit(study, 'audio = "../music"', f'audio = "{study.parent.as_posix()}/music"')
    edit(study, "reward = 1.50", "reward = 2.00")
    moved = study.rename(study.parent / "elsewhere")
    assert read_plan(load_study(moved)).lists


@pytest.mark.slow
def test_new_music_rebuilds_everything(study: Path) -> None:
    write_music(study.parent / "music", 25, seed=1)
    done = run("study", "build", study)
    assert done.returncode == 0, done.stderr
    assert "25 tracks" in done.stdout
    assert "up to date" not in done.stdout


@pytest.mark.slow
def test_duplicates_are_left_out_where_the_study_names_them(study: Path) -> None:
    music, found = study.parent / "music", study / "duplicates.csv"
    for number in range(3):
        shutil.copyfile(music / f"t{number:02}.flac", music / f"z{number:02}.flac")
    edit(study, 'duplicates = "" ', 'duplicates = "duplicates.csv" ')
    # The corpus must be cut before its duplicates can be looked for.
    assert "corpus.duplicates: " in refusal("study", "build", study)
    done = run("embeddings", "duplicates", "--corpus", study / "build" / "corpus.parquet", "--out", found)
    assert done.returncode == 0, done.stderr
    built = run("study", "build", study)
    assert built.returncode == 0, built.stderr
    assert json.loads((study / "build" / "logmel.bins.json").read_text())["left_out"] == 24
    corpus, _ = read_table(study / "build" / "corpus.parquet", "corpus", "")
    copies = {row for row, path in enumerate(corpus["path"].to_pylist()) if path.startswith("z")}
    triplets, _ = read_table(study / "build" / "triplets.parquet", "triplets", "")
    used = {clip for column in ("prompt", "clip_high", "clip_low") for clip in triplets[column].to_pylist()}
    assert len(copies) == 24
    assert not used & copies
    found.write_text(found.read_text().replace("t01.flac", "t99.flac"))
    assert "duplicates of another corpus" in refusal("study", "build", study)


@pytest.mark.parametrize("harm", ["lose", "cut short"])
@pytest.mark.parametrize(
    "broken", ["triplets.parquet", "stimuli.json", "logmel.npy", "logmel.bins.json", "stimuli/*.wav"]
)
def test_a_missing_or_damaged_artefact_is_rebuilt(study: Path, broken: str, harm: str) -> None:
    path = next((study / "build").glob(broken))
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink() if harm == "lose" else path.write_bytes(half)
    done = run("study", "build", study)
    assert done.returncode == 0, done.stderr
    plan = read_plan(load_study(study))
    for stimulus in plan.stimuli.values():
        assert hashlib.sha256(stimulus.file.read_bytes()).hexdigest() == stimulus.sha256


@pytest.mark.slow
def test_a_killed_build_continues_where_it_stopped(study: Path) -> None:
    whole = {name: (study / "build" / name).read_bytes() for name in ("triplets.parquet", "schedule.parquet")}
    shutil.rmtree(study / "build")
    running = subprocess.Popen([sys.executable, "-m", "rootnote", "study", "build", str(study)], stdout=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stdout.readline().startswith(b"cut")
    running.kill()
    running.wait(timeout=30)
    running.stdout.close()
    assert not (study / "build/stimuli.json").exists()
    (study / "build/.stimuli-killed").mkdir()  # as a kill during rendering leaves it
    (study / "build/.stimuli-killed/half.flac").write_bytes(b"fLaC")
    done = run("study", "build", study)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith("(up to date)")
    assert whole == {name: (study / "build" / name).read_bytes() for name in whole}
    assert [path.name for path in (study / "build").glob(".*")] == [".lock"]


def test_a_schedule_of_another_corpus_is_refused(study: Path, tmp_path: Path) -> None:
    own = (study / "build/schedule.parquet").read_bytes()
    edit(study, "seed = 1 ", "seed = 2 ")
    assert run("study", "build", study).returncode == 0
    (study / "build/schedule.parquet").write_bytes(own)
    with pytest.raises(RootnoteError, match=r"schedule\.parquet is stale \(.*seed.*triplets.* changed since\)"):
        read_plan(load_study(study))


# ------------------------------------------------------------------ the secret key


def drawn(study: Path) -> dict[str, bytes]:
    """What is drawn from the key: the schedule, and the stimuli by name."""
    files = [study / "build/schedule.parquet", *(study / "build/stimuli").iterdir()]
    return {path.name: path.read_bytes() for path in files}


def test_the_same_key_draws_the_same_bytes(study: Path) -> None:
    before, key = drawn(study), study / "secret.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for name in ("schedule.parquet", "stimuli.json"):
        (study / "build" / name).unlink()
    assert run("study", "build", study).returncode == 0
    assert drawn(study) == before
    sides = [trial.high_side for trials in read_plan(load_study(study)).lists.values() for trial in trials]
    kept = key.read_text()
    done = run("study", "build", study, "--redraw")
    assert done.stdout.count("(up to date)") == 4
    assert key.read_text() != kept
    assert not drawn(study).keys() & before.keys() - {"schedule.parquet"}
    assert sides != [trial.high_side for trials in read_plan(load_study(study)).lists.values() for trial in trials]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda key: key.unlink(), "secret.key is missing, and this study was built with it; copy it"),
        (lambda key: key.write_text("ab" * 32), "is not the key that this study was built with; put that one back"),
        (lambda key: key.write_text("ab"), "secret.key is damaged; copy it"),
    ],
)
def test_a_built_study_without_its_key_is_refused(
    study: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None], words: str
) -> None:
    monkeypatch.setenv("ROOTNOTE_SECRET", "a secret for tests only, 32 characters and more")
    harm(study / "secret.key")
    before = drawn(study)
    assert run("server", "migrate", study).returncode == 0
    for command in (("study", "build"), ("study", "freeze"), ("server", "run"), ("server", "export")):
        assert words in refusal(*command, study)
    assert words in run("study", "check", study).stdout
    assert drawn(study) == before


def test_two_builds_at_once_are_refused(study: Path) -> None:
    with (study / "build/.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert "another build is running" in refusal("study", "build", study)


def test_check_counts_and_warns(built: Path) -> None:
    found = json.loads(run("study", "check", built, "--json").stdout)
    assert found["listeners"] == 6
    assert found["responses_per_pair"] == 6
    assert found["hourly_usd"] == 22.5
    assert found["rewards_usd"] == 9.0
    assert found["built"] is True
    warnings = " ".join(found["warnings"])
    assert "[RESEARCHER]" in warnings
    assert "study.contact" in warnings
    assert "6 prompts" in warnings
    shown = run("study", "check", built).stdout
    assert "$22.50 per hour" in shown


def test_check_before_the_build_says_so(tmp_path: Path) -> None:
    write_music(tmp_path / "music", 1, seconds=1)
    run("study", "init", tmp_path / "s", "--audio", tmp_path / "music")
    shown = run("study", "check", tmp_path / "s").stdout
    assert "Not ready to serve" in shown
    assert "count what was sent" not in shown
    file = tmp_path / "s" / "study.toml"
    assert 'stimuli = ""' in file.read_text()
    edit(tmp_path / "s", 'stimuli = ""', 'stimuli = "s3://bucket/study"')
    assert "the server cannot count what was sent" in " ".join(run("study", "check", tmp_path / "s").stdout.split())


def spoil_key(study: Path) -> None:
    edit(study, "half_width = 0.03", "half_widht = 0.03")


def unknown_embedder(study: Path) -> None:
    edit(study, '["logmel"]', '["logmell"]')


def no_weights(study: Path) -> None:
    edit(study, '["logmel"]', '["clmr"]')


def weights_elsewhere(study: Path) -> None:
    edit(study, '["logmel"]', '["musicnn"]')
    edit(study, "# [embedding.clap]", "[embedding.musicnn]\ncheckpoint = 'gone.pth'\n#")


def too_many_prompts(study: Path) -> None:
    edit(study, "prompts = 6", "prompts = 10000")


def impossible_sizes(study: Path) -> None:
    edit(study, "listeners = 6", "listeners = 7")


def no_music(study: Path) -> None:
    shutil.rmtree(study.parent / "music")
    (study.parent / "music").mkdir()


def music_gone(study: Path) -> None:
    shutil.rmtree(study.parent / "music")


def one_track(study: Path) -> None:
    no_music(study)
    write_music(study.parent / "music", 1, seconds=300)


def few_clips(study: Path) -> None:
    no_music(study)
    write_music(study.parent / "music", 5, seconds=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_key, "did you mean 'half_width'?"),
        (unknown_embedder, "'logmell'"),
        (no_weights, "rootnote embeddings fetch clmr"),
        (weights_elsewhere, "gone.pth is missing"),
        (too_many_prompts, "design.prompts"),
        (impossible_sizes, "design.listeners = 7"),
        (no_music, "contains no wav, flac"),
        (music_gone, "set corpus.audio"),
        (one_track, "the corpus has 1 track,"),
        (few_clips, "study.toml"),
    ],
)
def test_bad_input_is_one_sentence(study: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(study)
    assert words in refusal("study", "build", study)
    leftovers = [
        path.name for path in (study / "build").iterdir() if path.name.startswith(".") and path.name != ".lock"
    ]
    assert leftovers == []


def test_check_repeats_why_the_build_was_refused(study: Path) -> None:
    edit(study, "half_width = 0.03", "half_width = 0.0005")
    reason = refusal("study", "build", study)
    assert "bin" in reason and " is short: " in reason
    done = run("study", "check", study)
    assert reason.removeprefix("rootnote: ").strip() in " ".join(done.stdout.split())
    edit(study, "half_width = 0.0005", "half_width = 0.03")
    assert run("study", "build", study).returncode == 0
    assert "is short" not in run("study", "check", study).stdout


def test_the_build_says_which_prompts_are_eligible(built: Path) -> None:
    from study.design.eligibility import read_prompts

    prompts = read_prompts(load_study(built).prompts("logmel"))
    assert prompts.chosen.sum() == 6
    assert len(set(prompts.tracks[prompts.chosen])) == 6
    assert (prompts.eligible == (prompts.counts > 0).all(axis=1)).all()
    shown = " ".join(run("study", "build", built).stdout.split())
    assert f"logmel: {prompts.describe()}." in shown


def test_init_overwrites_nothing(study: Path) -> None:
    before = (study / "study.toml").read_text()
    assert "already exists" in refusal("study", "init", study, "--audio", study.parent / "music")
    assert (study / "study.toml").read_text() == before
    assert "not a directory" in refusal("study", "init", study.parent / "new", "--audio", study / "nowhere")
    assert not (study.parent / "new").exists()
    long = refusal("study", "init", study.parent / "new", "--audio", study.parent / "music", "--name", "x" * 81)
    assert "81 characters" in long
    assert not (study.parent / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    write_music(tmp_path / "music", 1, seconds=1)
    tmp_path.chmod(0o500)
    assert "ermission" in refusal("study", "init", tmp_path / "s", "--audio", tmp_path / "music")
