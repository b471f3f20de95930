"""The schedule: its balance, for the paper's sizes and for any others."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embeddings.errors import RootnoteError
from study.config_sections import DesignConfig
from study.design.bin_pairs import BIN_PAIRS
from study.design.schedule import make_schedule
from study.trials import PlannedTrial, Triplet


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def triplets(prompts: int, embedder: str = "one", first: int = 0) -> list[Triplet]:
    return [
        Triplet(first + p * 6 + c, embedder, p, high, low, 1000 + p * 10 + high, 1000 + p * 10 + low, 0.9, 0.5)
        for p in range(prompts)
        for c, (high, low) in enumerate(BIN_PAIRS)
    ]


def counts(trials: list[PlannedTrial], *names: str) -> list[int]:
    return list(Counter(tuple(getattr(trial, name) for name in names) for trial in trials).values())


def require_balance(trials: list[PlannedTrial], design: DesignConfig) -> None:
    per_list = design.scored_trials
    assert len(trials) == design.listener_count * per_list
    assert set(counts(trials, "list", "prompt")) == {1}
    assert max(counts(trials, "list", "bin_high", "bin_low")) <= -(-per_list // 6)
    if per_list >= 6:
        assert len(counts(trials, "list", "bin_high", "bin_low")) == 6 * design.listener_count
    for names in (("triplet",), ("bin_high", "bin_low")):
        groups = Counter(tuple(getattr(t, n) for n in names) for t in trials)
        on_a = Counter(tuple(getattr(t, n) for n in names) for t in trials if t.high_side == "A")
        assert all(abs(2 * on_a[group] - number) <= number % 2 for group, number in groups.items())
    at_position = Counter((t.bin_high, t.bin_low, t.position) for t in trials)
    for pair in BIN_PAIRS:
        spread = [at_position[(*pair, position)] for position in range(1, per_list + 1)]
        assert max(spread) - min(spread) <= 1
    for number in {t.list for t in trials}:
        assert sorted(t.position for t in trials if t.list == number) == list(range(1, per_list + 1))


@pytest.mark.parametrize("seed", [0, 1, 20240101])
def test_the_papers_size(seed: int) -> None:
    trials = make_schedule(triplets(15), DesignConfig(), rng(seed))
    require_balance(trials, DesignConfig())
    assert counts(trials, "triplet") == [10] * 90
    assert counts(trials, "bin_high", "bin_low") == [150] * 6
    assert set(counts(trials, "triplet", "high_side")) == {5}
    assert set(counts(trials, "bin_high", "bin_low", "position")) == {15}
    assert trials == make_schedule(triplets(15), DesignConfig(), rng(seed))


@pytest.mark.parametrize("kind", ["paper", "robust"])
@pytest.mark.parametrize("embedders", [2, 3])
def test_shared_prompts_are_heard_by_the_same_listeners(kind: str, embedders: int) -> None:
    names = ["one", "two", "three"][:embedders]
    design = DesignConfig(kind=kind, listeners=45, trials=12, comparison="shared", catch_trials=1, prompts=15)
    own = [triplet for i, name in enumerate(names) for triplet in triplets(15, name, 90 * i)]
    trials = make_schedule(own, design, rng(3))
    scored = [trial for trial in trials if trial.kind == "scored"]
    assert len({trial.list for trial in trials}) == 45 * embedders
    assert set(counts(scored, "list", "embedder")) == {12 // embedders}  # each listener hears each equally often
    assert set(counts(trials, "list", "prompt")) == {1}
    assert len(set(counts(scored, "embedder"))) == 1
    per_triplet = counts(scored, "triplet")
    assert len(per_triplet) == 90 * embedders
    if kind == "paper":
        assert set(per_triplet) == {6}
    for name in names:
        on_a = Counter((t.bin_high, t.bin_low) for t in scored if t.embedder == name and t.high_side == "A")
        both = Counter((t.bin_high, t.bin_low) for t in scored if t.embedder == name)
        assert all(abs(2 * on_a[pair] - number) <= number % 2 for pair, number in both.items())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 130), st.integers(0, 10**6))
def test_any_size_is_balanced_or_refused(prompts: int, per_list: int, listeners: int, seed: int) -> None:
    design = DesignConfig(listeners=listeners, trials=per_list)
    try:
        trials = make_schedule(triplets(prompts), design, rng(seed))
    except RootnoteError as error:
        assert "design." in str(error)
        assert per_list > prompts or listeners * per_list % (prompts * 6)
        return
    require_balance(trials, design)
    assert len(set(counts(trials, "triplet"))) == 1
    assert len(counts(trials, "triplet")) == prompts * 6


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(6, 400), st.integers(1, 60), st.sampled_from([6, 12]), st.integers(0, 10**6))
def test_robust_lists_use_prompts_as_evenly_as_possible(prompts: int, listeners: int, per_list: int, seed: int) -> None:
    assume(per_list <= prompts)
    design = DesignConfig(kind="robust", listeners=listeners, trials=per_list)
    trials = make_schedule(triplets(prompts), design, rng(seed))
    require_balance(trials, design)
    assert counts(trials, "bin_high", "bin_low") == [listeners * per_list // 6] * 6
    used = counts(trials, "prompt")
    assert len(used) == min(prompts, len(trials))
    assert max(used) - min(used) <= 1
    assert set(counts(trials, "list", "bin_high", "bin_low")) == {per_list // 6}
    # No prompt keeps to one pair: it meets as many as it is used, and each about as often.
    cells = Counter((t.prompt, t.bin_high, t.bin_low) for t in trials)
    for prompt, times in Counter(t.prompt for t in trials).items():
        own = [cells[prompt, *pair] for pair in BIN_PAIRS]
        assert sum(count > 0 for count in own) == min(times, 6)
        assert max(own) - min(own) <= 1


def test_catch_and_repeat_trials() -> None:
    design = DesignConfig(catch_trials=2, repeat_trials=2)
    trials = make_schedule(triplets(15), design, rng(3))
    require_scored = [t for t in trials if t.kind == "scored"]
    assert len(require_scored) == 900
    for number in range(90):
        own = sorted((t for t in trials if t.list == number), key=lambda t: t.position)
        assert [t.position for t in own] == list(range(1, 15))
        assert Counter(t.kind for t in own) == {"scored": 10, "catch": 2, "repeat": 2}
        assert len({t.prompt for t in own if t.kind != "repeat"}) == 12
        for repeat in (t for t in own if t.kind == "repeat"):
            (first,) = (t for t in own if t.kind == "scored" and t.triplet == repeat.triplet)
            assert first.high_side != repeat.high_side
            assert first.position + 3 <= repeat.position
        for catch in (t for t in own if t.kind == "catch"):
            assert catch.clip_high == catch.prompt
            assert catch.stimulus_key("high") == f"{catch.prompt}/catch"
            assert catch.stimulus_key("x") == str(catch.prompt)


def test_sides_vary_within_a_listener_as_by_chance() -> None:
    """Who is sure of nine answers learns nothing about the tenth, and nothing about a second catch trial."""
    design = DesignConfig(listeners=900, catch_trials=2)
    trials = make_schedule(triplets(15), design, rng(7))
    scored = Counter(t.list for t in trials if t.kind == "scored" and t.high_side == "A")
    assert np.var([scored[number] for number in range(900)]) == pytest.approx(10 / 4, rel=0.15)
    catch = Counter(t.list for t in trials if t.kind == "catch" and t.high_side == "A")
    assert catch.total() == 900, "half of all catch trials"
    assert Counter(catch[number] for number in range(900))[1] == pytest.approx(450, abs=60)


def test_every_embedder_has_its_own_lists() -> None:
    trials = make_schedule(triplets(15) + triplets(15, "two", 90), DesignConfig(), rng(1))
    assert {t.list for t in trials if t.embedder == "one"} == set(range(90))
    assert {t.list for t in trials if t.embedder == "two"} == set(range(90, 180))
    assert counts(trials, "triplet") == [10] * 180


@pytest.mark.parametrize(
    ("prompts", "design", "words"),
    [
        (8, DesignConfig(), "design.trials = 10"),
        (15, DesignConfig(listeners=91), "design.listeners = 91 .* design.listeners = 90 or 99"),
        (15, DesignConfig(catch_trials=6), "design.catch_trials = 6"),
        (15, DesignConfig(trials=2, listeners=45, repeat_trials=1), "design.repeat_trials = 1 .* 0 at most"),
        (15, DesignConfig(repeat_trials=9), "design.repeat_trials = 9 .* 8 at most"),
        (15, DesignConfig(kind="robust", trials=7), "design.trials = 7"),
    ],
)
def test_impossible_sizes_name_the_number(prompts: int, design: DesignConfig, words: str) -> None:
    with pytest.raises(RootnoteError, match=words):
        make_schedule(triplets(prompts), design, rng(1))
