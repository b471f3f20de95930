"""Registries: built-in entries, and the error for an entry that cannot be loaded."""

from __future__ import annotations

import pytest

from analysis.report.registry import SECTIONS
from analysis.retrieval.robustness.registry import PERTURBATIONS
from embeddings.errors import RootnoteError
from study.columns import RESPONSE_COLUMNS
from study.languages import LANGUAGES
from study.marketplaces import MARKETPLACES
from study.prescreen.registry import STEPS
from study.questionnaire import QUESTION_TYPES
from study.registry import Registry


@pytest.mark.parametrize(
    "registry", [LANGUAGES, QUESTION_TYPES, STEPS, MARKETPLACES, RESPONSE_COLUMNS, SECTIONS, PERTURBATIONS]
)
def test_every_entry_can_be_loaded(registry: Registry[object]) -> None:
    assert len(registry) == len(list(registry)) > 0
    assert all(registry[name] is registry[name] for name in registry)
    assert "unknown" not in registry
    with pytest.raises(KeyError):
        registry["unknown"]


@pytest.mark.parametrize("reference", ["study.nothing:Thing", "study.registry:Thing"])
def test_an_entry_that_cannot_be_loaded_is_one_sentence(reference: str) -> None:
    registry: Registry[object] = Registry("rootnote.things", {"one": reference})
    with pytest.raises(RootnoteError, match=r"'one' of rootnote\.things cannot be loaded") as caught:
        registry["one"]
    assert reference in str(caught.value) and "\n" not in str(caught.value)
