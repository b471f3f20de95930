"""Question types: which answers each accepts, how they are stored, and which settings are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from embeddings.errors import RootnoteError
from study.config import load_study
from study.questionnaire import QUESTION_TYPES, Question, check_answers
from study.questions.base import AnswerError, BaseQuestion

OPTIONS = ["Piano", "Violin", "Voice, or: choir"]
EXAMPLES: dict[str, dict[str, Any]] = {
    "text": {"limit": 20},
    "single": {"options": OPTIONS},
    "multiple": {"options": OPTIONS, "least": 2, "most": 2},
    "scale": {"points": 7, "options": ["Not at all", "Very"]},
    "number": {"least": -2, "most": 1000, "whole": False},
    "age_band": {"ages": [18, 30, 60]},
    "attention": {"text": "Please choose “Somewhat disagree”."},
}


GERMAN = {"text": "Bitte wählen Sie „vielleicht“.", "options": ["nein", "eher nein", "weder noch", "eher ja", "ja"]}


def make(kind: str, **settings: Any) -> BaseQuestion:
    one: BaseQuestion = TypeAdapter(Question).validate_python({"id": "q", "text": "Which?", "type": kind, **settings})
    return one


def test_every_type_has_an_example_here_and_a_template() -> None:
    folder = Path(__file__).parents[2] / "server" / "templates" / "questions"
    assert set(QUESTION_TYPES) == set(EXAMPLES) == {path.stem for path in folder.glob("*.html")} - {"parts"}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_any_type_may_be_left_empty_unless_it_is_required(kind: str) -> None:
    for sent in ([], [""], [" \r\n\0"]):
        assert make(kind, **EXAMPLES[kind]).check(sent) == ""
        with pytest.raises(AnswerError, match="Please answer this question"):
            make(kind, **EXAMPLES[kind], required=True).check(sent)


@pytest.mark.parametrize(
    ("kind", "sent", "stored"),
    [
        ("text", [" a\r\nb\0 "], "a\nb"),
        ("text", ["x" * 20], "x" * 20),
        ("single", ["Violin"], "Violin"),
        ("multiple", ["Voice, or: choir", "Piano"], "Piano|Voice, or: choir"),
        ("multiple", ["Piano", "Violin", "Piano"], "Piano|Violin"),
        ("scale", ["7"], "7"),
        ("number", ["1,50"], "1.5"),
        ("number", ["-0"], "0"),
        ("number", ["1000.0"], "1000"),
        ("number", ["\u200f\u2212\u0661\u066b\u0665"], "-1.5"),  # Arabic digits behind a mark of direction
        ("age_band", ["30 to 59"], "30 to 59"),
        ("age_band", ["60 or older"], "60 or older"),
        ("age_band", ["not said"], "not said"),
        ("attention", ["Strongly agree"], "Strongly agree"),
    ],
)
def test_accepted_answers(kind: str, sent: list[str], stored: str) -> None:
    question = make(kind, **EXAMPLES[kind])
    assert question.check(sent) == stored
    assert question.is_passed(stored) is (False if kind == "attention" else None)
    if question.countable:
        assert set(question.split(stored)) <= set(question.countable)


@pytest.mark.parametrize(
    ("kind", "sent", "words"),
    [
        ("text", ["x" * 21], "below 21 characters"),
        ("text", ["a", "b"], "one answer"),
        ("single", ["piano"], "one of the answers offered"),
        ("single", ["Piano", "Violin"], "one answer"),
        ("multiple", ["Piano"], "at least 2"),
        ("multiple", OPTIONS, "at most 2"),
        ("multiple", ["Piano", "Kazoo"], "one of the answers offered"),
        ("scale", ["8"], "from 1 to 7"),
        ("scale", ["0"], "from 1 to 7"),
        ("number", ["many"], "in digits"),
        ("number", ["1e3"], "in digits"),
        ("number", ["nan"], "in digits"),
        ("number", ["9" * 16], "in digits"),
        ("number", ["1000.001"], "from -2 to 1000"),
        ("number", ["-2.5"], "from -2 to 1000"),
        ("age_band", ["18"], "one of the answers offered"),
        ("attention", ["Agree"], "one of the answers offered"),
    ],
)
def test_refused_answers_get_a_sentence(kind: str, sent: list[str], words: str) -> None:
    with pytest.raises(AnswerError, match=words):
        make(kind, **EXAMPLES[kind]).check(sent)


def test_a_whole_number_is_whole() -> None:
    question = make("number", least=1, most=9)
    assert question.check(["3.0"]) == "3"
    with pytest.raises(AnswerError, match="whole number"):
        question.check(["3.5"])


@given(st.lists(st.text(max_size=30), max_size=4), st.sampled_from(sorted(EXAMPLES)))
def test_any_input_is_accepted_or_refused_and_a_stored_answer_is_accepted_again(sent: list[str], kind: str) -> None:
    question = make(kind, **EXAMPLES[kind])
    try:
        stored = question.check(sent)
    except AnswerError:
        return
    assert question.check(question.split(stored)) == stored
    assert "\0" not in stored


@given(st.decimals(-2, 1000, allow_nan=False, places=6))
def test_a_number_is_stored_exactly(number: Any) -> None:
    from decimal import Decimal

    stored = make("number", **EXAMPLES["number"]).check([f"{number:f}"])
    assert Decimal(stored) == number
    assert stored == stored.strip("+ ") and "E" not in stored


def test_a_form_is_checked_question_by_question() -> None:
    questions = [make("single", **EXAMPLES["single"]), make("scale", required=True).model_copy(update={"id": "s"})]
    answers, wrong = check_answers(questions, {"q_q": ["Piano"], "q_other": ["?"]})
    assert answers == {"q": "Piano"}
    assert list(wrong) == ["s"]


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("single", {"options": ["one"]}, "at least two"),
        ("single", {"options": ["one", "one"]}, "twice"),
        ("single", {"options": ["one", " two"]}, "a space"),
        ("multiple", {"options": ["a|b", "c"]}, "separates"),
        ("multiple", {"options": ["a", "b"], "least": 3}, "do not fit its 2 options"),
        ("multiple", {"options": ["a", "b"], "most": 3}, "do not fit its 2 options"),
        ("scale", {"options": ["a", "b", "c"]}, "the ends of its scale"),
        ("scale", {"points": 12}, "11"),
        ("number", {"least": 3, "most": 3}, "above least"),
        ("age_band", {"ages": [20, 18]}, "ascending order"),
        ("attention", {"expected": "Maybe"}, "not among its options"),
        ("attention", {**EXAMPLES["attention"], "translations": {"de": GERMAN}}, "in its text in 'de'"),
        ("attention", {"text": "How attentive are you?"}, "must name the expected answer"),
        ("text", {"options": ["a", "b"]}, "Extra inputs"),
    ],
)
def test_settings_that_are_refused(kind: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        make(kind, **settings)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("type = 'singel'", "'questions.0.type': a question is one of text, single, multiple"),
        ("", "'questions.0.type': a question is one of"),
        ("type = 'scale'\npionts = 3", "unknown key 'questions.0.pionts'; did you mean 'points'?"),
        ("type = 'number'\nleast = 'x'", "'questions.0.least'"),
        ("type = 'scale'\npoints = 99", "'questions.0.points'"),
    ],
)
def test_a_mistake_in_study_toml_is_one_sentence(tmp_path: Path, toml: str, words: str) -> None:
    text = f"[study]\nname = 'T'\n[corpus]\naudio = 'm'\n[[questions]]\nid = 'a'\ntext = 'Which?'\n{toml}\n"
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(RootnoteError) as caught:
        load_study(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
