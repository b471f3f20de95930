"""The prescreen's steps, tested on the rendered sounds that a browser gets."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import welch

from server.simulation.hearing import HEADPHONES, LOUDSPEAKERS, Hearing, answer_by_ear
from study.config import StudyConfig
from study.prescreen.antiphase import AntiphaseItem
from study.prescreen.huggins import HugginsItem
from study.prescreen.item import SAMPLE_RATE, encode_wav
from study.prescreen.registry import STEPS
from study.prescreen.steps import (
    chance_of_guessing,
    count_right,
    draw_attempt,
    graded_steps,
    minutes,
    step_config,
    stored_item,
)
from study.prescreen.tone_counting import ToneItem
from study.prescreen.volume import volume_sound
from tests.scale import count

seeds = st.integers(0, 2**53 - 1)


def config(**prescreen: Any) -> StudyConfig:
    prescreen.setdefault("steps", list(STEPS.built_in))
    return StudyConfig.model_validate({"study": {"name": "T"}, "corpus": {"audio": "m"}, "prescreen": prescreen})


DEFAULT = config()


def intervals(item: HugginsItem | AntiphaseItem) -> np.ndarray:
    """The middles of the three intervals, [interval, sample, channel], located by the silences between them."""
    sound = item.render()
    loud = np.abs(sound).max(axis=1) > 0
    begins = np.flatnonzero(loud & ~np.concatenate([np.zeros(2000, bool), loud])[: len(loud)])
    starts = [index for index in begins if not loud[max(0, index - 2000) : index].any()]
    assert len(starts) == 3
    return np.stack([sound[start + 4000 : start + 18000] for start in starts])


# ------------------------------------------------------------------ what is rendered


def count_tones(sound: np.ndarray) -> int:
    frames = np.abs(sound[: len(sound) // 441 * 441]).reshape(-1, 441).max(axis=1) > 0.02
    return int(np.sum(frames[1:] & ~frames[:-1]))


@settings(max_examples=80, deadline=None)
@given(slots=st.integers(2, 16), seed=seeds, data=st.data())
def test_the_sound_has_the_stated_number_of_tones(slots: int, seed: int, data: st.DataObject) -> None:
    item = ToneItem(data.draw(st.integers(1, slots)), slots, seed)
    sound = item.render()
    assert count_tones(sound) == item.answer
    assert np.abs(sound).max() <= 0.2 + 1e-6
    assert sound.ndim == 1, "the same in both ears"


@settings(max_examples=20, deadline=None)
@example(target=1, level=-23.0, seed=592)  # of Gaussian noise, only 94 % of the power lay in the band
@given(target=st.integers(1, 3), level=st.floats(-40, -18), seed=seeds)
def test_huggins_pitch_differs_between_the_ears_in_one_band_of_one_noise(target: int, level: float, seed: int) -> None:
    item = HugginsItem(target, level, seed)
    for number, sound in enumerate(intervals(item), start=1):
        left, right = sound.T
        assert 20 * np.log10(left.std()) == pytest.approx(level, abs=0.5)
        if number != target:
            assert np.array_equal(left, right)
            continue
        frequencies, apart = _power(left - right)
        assert 580 < item.centre_hz < 620
        away = np.abs(frequencies - item.centre_hz)
        assert apart[away < 0.06 * item.centre_hz].sum() > 0.95 * apart.sum()
        assert _power(left + right)[1][away < 30].sum() < 0.02 * apart.sum(), "cancels when mixed"


def _power(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frequencies, power = welch(sound, SAMPLE_RATE, nperseg=8192)
    return np.asarray(frequencies), np.asarray(power)


@pytest.mark.slow
def test_neither_ear_alone_has_the_pitch() -> None:
    """Averaged over many noises, the power around 600 Hz in one ear is the same with and without the pitch."""
    rng = np.random.default_rng(11)
    powers: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(40):
        item = HugginsItem.draw(rng, DEFAULT)
        for number, sound in enumerate(intervals(item), start=1):
            frequencies, power = _power(sound[:, 1])
            band = np.abs(frequencies - 600) < 60
            powers[number == item.target].append(10 * np.log10(power[band].sum() / power.sum()))
    assert stats.ttest_ind(powers[True], powers[False]).pvalue > 0.01
    assert np.mean(powers[True]) == pytest.approx(np.mean(powers[False]), abs=0.3)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations([1, 2, 3]), level=st.floats(-40, -10), seed=seeds)
def test_antiphase_is_equally_loud_in_each_ear_and_cancels_when_mixed(
    order: list[int], level: float, seed: int
) -> None:
    item = AntiphaseItem(order[0], order[1], level, seed)
    for number, sound in enumerate(intervals(item), start=1):
        expected = level - (6 if number == item.soft else 0)
        assert 20 * np.log10(sound.std(axis=0)) == pytest.approx([expected, expected], abs=0.1)
        if number == item.antiphase:
            assert np.abs(sound.sum(axis=1)).max() == 0
        else:
            assert np.array_equal(sound[:, 0], sound[:, 1])
        frequencies, power = _power(sound[:, 0])
        assert 180 <= item.frequency_hz <= 220
        assert frequencies[np.argmax(power)] == pytest.approx(item.frequency_hz, abs=3)


@pytest.mark.parametrize("step", STEPS.built_in)
def test_items_vary_and_are_equally_loud_whatever_the_answer(step: str) -> None:
    """Each sound as a whole within 0.5 dB of the others; when it sounds and how high it is differ between items."""
    rng, levels, onsets = np.random.default_rng(17), [], set()
    for item in (STEPS[step].draw(rng, DEFAULT) for _ in range(count(40, 400))):
        sound = item.render()
        assert item.seconds == len(sound) / SAMPLE_RATE
        levels.append(20 * np.log10(np.sqrt(np.mean(sound**2))))
        onsets.add(int(np.argmax(np.abs(sound).reshape(len(sound), -1).max(axis=1) > 0.03)))
    assert max(levels) - min(levels) < 0.5
    assert len(onsets) > 20 or not STEPS[step].graded


def test_the_volume_sound_is_as_loud_as_the_clips() -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    sound = volume_sound(-23.0)
    assert pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(sound.astype(float)) == pytest.approx(-23, abs=1.5)
    assert np.abs(sound).max() < 0.9


# ------------------------------------------------------------------ what every step keeps to


@pytest.mark.parametrize("step", STEPS.built_in)
def test_an_item_survives_the_database_and_its_length_reveals_nothing(step: str) -> None:
    rng = np.random.default_rng(7)
    items = [item for _ in range(10) for item in draw_attempt(step, rng, DEFAULT)]
    encoded = [encode_wav(item.render()) for item in items]
    assert len({len(data) for data in encoded}) == 1
    assert len({data[:44] for data in encoded}) == 1, "one header for all"
    for item, data in zip(items[:3], encoded[:3], strict=True):
        assert stored_item(step, asdict(item)) == item
        assert encode_wav(stored_item(step, asdict(item)).render()) == data
        samples, rate = soundfile.read(io.BytesIO(data))
        assert rate == SAMPLE_RATE
        assert np.abs(samples - item.render()).max() < 1e-4
    if STEPS[step].graded:
        assert len(set(encoded)) == len(items), "no sound is used twice"


@pytest.mark.parametrize("step", graded_steps(DEFAULT))
def test_every_answer_is_equally_likely(step: str) -> None:
    rng = np.random.default_rng(3)
    drawn = [STEPS[step].draw(rng, DEFAULT).answer for _ in range(2000)]
    offered = STEPS[step].answers(DEFAULT)
    counts = np.bincount(drawn, minlength=offered.stop)
    assert counts.sum() == counts[offered.start : offered.stop].sum()
    assert stats.chisquare(counts[offered.start : offered.stop]).pvalue > 0.001


def test_grading_counts_right_answers() -> None:
    items = [ToneItem(4, 8, 1), ToneItem(7, 8, 2)]
    assert [count_right(items, answers) for answers in ([4, 7], [4, 6], [1, 1])] == [2, 1, 0]
    with pytest.raises(ValueError, match="zip"):
        count_right(items, [4])


# ------------------------------------------------------------------ who passes


def shares_right(step: str, hearing: Hearing, items: int, seed: int = 1) -> float:
    rng = np.random.default_rng(seed)
    right = 0
    for _ in range(items):
        item = STEPS[step].draw(rng, DEFAULT)
        right += answer_by_ear(step, encode_wav(item.render()), hearing, rng) == item.answer
    return right / items


def passing(step: str, p: float) -> float:
    """The exact probability of passing if each item is answered correctly with probability p."""
    own = step_config(DEFAULT, step)
    once = stats.binom.sf(own.needed - 1, own.items, p)
    return float(1 - (1 - once) ** own.attempts)


@pytest.mark.parametrize("step", graded_steps(DEFAULT))
def test_headphones_pass_every_step(step: str) -> None:
    assert shares_right(step, HEADPHONES, 60) == 1.0


@pytest.mark.slow
def test_loudspeakers_pass_tones_and_fail_what_needs_two_ears() -> None:
    assert shares_right("tones", LOUDSPEAKERS, 30) == 1.0
    assert shares_right("antiphase", LOUDSPEAKERS, 40) == 0.0, "the tone in antiphase is taken for the softest"
    huggins = shares_right("huggins", LOUDSPEAKERS, 150)
    assert stats.binomtest(round(150 * huggins), 150, 1 / 3).pvalue > 0.01, "no pitch: a guess"


@pytest.mark.slow
def test_one_ear_alone_passes_antiphase_and_not_huggins() -> None:
    for only in (0, 1):
        assert shares_right("antiphase", Hearing(only=only), 30) == 1.0
        huggins = shares_right("huggins", Hearing(only=only), 90)
        assert stats.binomtest(round(90 * huggins), 90, 1 / 3).pvalue > 0.01


@pytest.mark.parametrize(
    ("step", "once"),
    [("tones", 1 / 25), ("huggins", 1 / 729), ("antiphase", 13 / 729)],
)
def test_guessing_passes_with_the_binomial_probability(step: str, once: float) -> None:
    own = step_config(DEFAULT, step)
    exact = passing(step, 1 / len(STEPS[step].answers(DEFAULT)))
    assert exact == pytest.approx(1 - (1 - once) ** own.attempts)
    assert chance_of_guessing(step, DEFAULT) == pytest.approx(exact)
    rng, passed, offered = np.random.default_rng(5), 0, STEPS[step].answers(DEFAULT)
    for _ in range(2000):
        attempts = [draw_attempt(step, rng, DEFAULT) for _ in range(own.attempts)]
        guesses = [rng.integers(offered.start, offered.stop, own.items).tolist() for _ in attempts]
        right = [count_right(items, answers) for items, answers in zip(attempts, guesses, strict=True)]
        passed += max(right) >= own.needed
    assert stats.binomtest(passed, 2000, exact).pvalue > 0.005


@pytest.mark.parametrize("threshold", [1, 3, 6])
def test_thresholds_and_attempts_change_the_passing_probability(threshold: int) -> None:
    shorter = config(steps=["huggins"], huggins={"threshold": threshold, "attempts": 1})
    assert chance_of_guessing("huggins", shorter) == pytest.approx(float(stats.binom.sf(threshold - 1, 6, 1 / 3)))


def test_the_time_that_all_steps_take() -> None:
    """The volume's 4 s, two sounds of 8 slots and their edges, twelve of three intervals; 4 s for each answer."""
    seconds = (4 + 4) + 2 * (8 * 0.55 + 0.7 + 4) + 12 * (3 * 1.5 + 4)
    assert minutes(DEFAULT) == pytest.approx(seconds / 60, abs=0.01)
    assert minutes(config(steps=[])) == 0


@pytest.mark.parametrize("step", STEPS.built_in)
def test_every_step_has_a_template_and_describes_itself(step: str) -> None:
    template = Path(__file__).parents[3] / "server" / "templates" / "prescreens" / f"{step}.html"
    assert template.is_file()
    kind = STEPS[step]
    assert kind.title and kind.summary.endswith(".")
    assert all(kind.field.other(answer) != answer for answer in kind.answers(DEFAULT)) or not kind.graded
