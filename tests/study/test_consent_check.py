"""Consent texts: the templates mention every element, and a missing element is named."""

from __future__ import annotations

from importlib.resources import files

import pytest
from click.testing import CliRunner

import rootnote
from study.config import text_name
from study.consent_check import ELEMENTS, missing_elements
from study.languages import LANGUAGES, SOURCE


def template(language: str) -> str:
    return (files("study") / "templates" / text_name("consent", language, SOURCE)).read_text(encoding="utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_templates_mention_everything(language):
    assert missing_elements(template(language), language) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("paragraph", "missing"),
    [(4, {"risks", "benefits", "the alternative"}), (5, {"confidentiality", "later use of de-identified data"}),
     (6, {"that it is voluntary", "leaving without penalty"})],
)  # fmt: skip
def test_what_a_removed_paragraph_mentions_is_missing(language, paragraph, missing):
    paragraphs = template(language).split("\n\n")
    del paragraphs[paragraph]
    assert set(missing_elements("\n\n".join(paragraphs), language)) == missing


def test_an_empty_text_mentions_nothing():
    assert missing_elements("", SOURCE) == list(ELEMENTS.values())


def test_check_names_what_the_consent_leaves_out(tmp_path):
    (tmp_path / "music").mkdir()
    run = CliRunner().invoke
    assert run(rootnote.cli, ["study", "init", str(tmp_path / "s"), "--audio", str(tmp_path / "music")]).exit_code == 0
    consent = tmp_path / "s" / "consent.md"
    consent.write_text(consent.read_text().replace("voluntary", "welcome"))
    done = run(rootnote.cli, ["study", "check", str(tmp_path / "s")])
    assert "consent.md does not seem to mention: that it is voluntary." in " ".join(done.output.split())
