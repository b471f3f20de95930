"""Whatever people answer, the published values are k-anonymous; pandas counts them independently."""

from __future__ import annotations

import tomllib
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from server.public_release.design import to_toml
from server.public_release.k_anonymity import WITHHELD, GeneralisedColumn, anonymise
from server.public_release.listeners import columns_of
from server.public_release.responses import coarse_ms
from study.columns import CoarseTime
from study.config import StudyConfig
from study.questionnaire import Question

CORPUS = {"audio": "music"}
QUESTIONS: list[dict[str, Any]] = [
    {"id": "age", "type": "age_band"},
    {"id": "years", "type": "number", "text": "Years?", "least": -10, "most": 1e6, "whole": False},
    {"id": "children", "type": "number", "text": "How many?"},
    {"id": "home", "type": "single", "text": "Where?", "options": ["=here", "there", WITHHELD]},
    {"id": "plays", "type": "multiple", "text": "What?", "options": ["Oud", "Ney", "Piano"]},
    {"id": "tired", "type": "scale", "text": "Tired?", "points": 7},
    {"id": "remarks", "type": "text", "text": "Anything?"},
]
CONFIG = StudyConfig.model_validate(
    {"study": {"name": "S", "languages": ["en"]}, "corpus": CORPUS, "questions": QUESTIONS}
)
RULE = CoarseTime(step_ms=100, longest_ms=300_000)
ANSWERS = {
    "q_age": st.sampled_from(["18 to 24", "25 to 34", "35 to 44", "65 or older", "not said", "", "Anna"]),
    "q_years": st.one_of(
        st.just(""), st.decimals(-10, 1000, places=2).map("{:f}".format), st.just("1e400"), st.just("NaN")
    ),
    "q_children": st.integers(0, 9).map(str),
    "q_home": st.sampled_from(["=here", "there", "", WITHHELD, "an answer to an earlier question"]),
    "q_plays": st.sampled_from(["", "Oud", "Oud|Ney", "Oud|Ney|Piano", "Piano"]),
    "q_tired": st.sampled_from([*"1234567", ""]),
    "q_remarks": st.text(max_size=4),
    "language": st.just("en"),
    "agent_class": st.sampled_from(["firefox-desktop", "chrome-desktop", "safari-mobile", ""]),
    "sample_rate": st.sampled_from(["44100", "48000", ""]),
}
PERSON = st.fixed_dictionaries(ANSWERS)


def frame(published: list[GeneralisedColumn]) -> pd.DataFrame:
    return pd.DataFrame({one.column.name: one.values for one in published})


@settings(max_examples=150, deadline=None)
@given(st.lists(PERSON, max_size=60), st.integers(2, 8))
def test_what_is_published_is_k_anonymous(people: list[dict[str, str]], k: int) -> None:
    published = anonymise(columns_of(CONFIG, people), people, k)
    if not published:
        return
    published_values = frame(published)
    assert len(published_values) == len(people) and "q_remarks" not in published_values
    assert published_values.groupby(list(published_values), dropna=False).size().min() >= k
    assert not {"Anna", "an answer to an earlier question"} & set(published_values.to_numpy().ravel())
    for number in range(1, len(published) + 1):  # knowing only some columns finds no fewer
        assert published_values.groupby(list(published_values)[:number]).size().min() >= k


@settings(max_examples=50, deadline=None)
@given(st.lists(PERSON, min_size=5, max_size=40), st.randoms(use_true_random=False))
def test_the_result_does_not_depend_on_the_order_of_the_people(people: list[dict[str, str]], random: Any) -> None:
    columns = columns_of(CONFIG, people)
    shuffled = random.sample(people, len(people))
    one, other = (frame(anonymise(columns, crowd, 5)) for crowd in (people, shuffled))
    if not one.empty:
        pd.testing.assert_series_equal(one.value_counts().sort_index(), other.value_counts().sort_index())


@settings(max_examples=60, deadline=None)
@given(st.lists(PERSON, min_size=5, max_size=40))
def test_published_values_are_true(people: list[dict[str, str]]) -> None:
    """A number is in its range, an age band in the wider one, an option is the one chosen."""
    for one in anonymise(columns_of(CONFIG, people), people, 3):
        for value, person in zip(one.values, people, strict=True):
            true = person[one.column.name]
            if value in (WITHHELD, ""):
                assert value == WITHHELD or true == ""
            elif one.column.name == "q_years":
                first, last = value.split(" to below ")
                assert float(first) <= float(true) < float(last)
            elif one.column.name in ("q_children", "q_tired"):
                first, _, last = value.partition(" to ")
                assert int(first) <= int(true) <= int(last or first)
            elif one.column.name == "q_age" and value != "not said":
                assert int(value.split()[0]) <= int(true.split()[0])
            elif one.column.name == "q_home":
                assert value == true


def test_too_few_people_publish_nothing_and_k_is_two_at_least() -> None:
    person = dict.fromkeys(ANSWERS, "")
    assert anonymise(columns_of(CONFIG, [person]), [person] * 4, 5) == []
    with pytest.raises(ValueError, match="at least 2"):
        anonymise([], [], 1)


def test_a_rare_value_takes_the_next_rarest_with_it() -> None:
    """A single rare value is not withheld alone, because "withheld" would then identify the person."""
    people = [{"q_home": home} for home in ["=here"] * 12 + ["there"] * 6 + [""]]
    config = CONFIG.model_copy(update={"questions": [TypeAdapter(Question).validate_python(QUESTIONS[3])]})
    [home, *_] = anonymise(columns_of(config, people)[:1], people, 5)
    assert (home.values.count("=here"), home.withheld) == (12, 7)


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.floats(0, 3_600_000))
def test_a_coarser_time_stays_on_its_side_of_the_rule(one: int, other: int, fastest: float) -> None:
    coarse = coarse_ms(one, fastest, RULE)
    assert (coarse < fastest) == (one < fastest)
    assert coarse <= coarse_ms(max(one, other), fastest, RULE)


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.dictionaries(
            st.text(min_size=1, max_size=6),
            st.one_of(st.text(max_size=9), st.integers(), st.booleans(), st.lists(st.text(max_size=5))),
        ),
        lambda inner: st.dictionaries(
            st.text(min_size=1, max_size=6), st.one_of(st.integers(), inner, st.lists(inner, min_size=1, max_size=3))
        ),
        max_leaves=8,
    )
)
def test_toml_is_read_as_it_was_written(data: dict[str, Any]) -> None:

    def full(value: Any) -> Any:
        if isinstance(value, dict):
            inside = {key: full(inner) for key, inner in value.items()}
            return {key: inner for key, inner in inside.items() if inner != {}}
        return [full(inner) for inner in value] if isinstance(value, list) else value

    assert full(tomllib.loads(to_toml(data))) == full(data)
