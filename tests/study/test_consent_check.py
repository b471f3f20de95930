"""Consent texts: the templates say everything; what is taken out is named."""

from __future__ import annotations

from importlib.resources import files

import pytest
from click.testing import CliRunner

import rootnote
from study.consent_check import ELEMENTS, missing_elements

LANGUAGES = ("consent.md", "consent.de.md", "consent.ar.md")


def template(name: str) -> str:
    return files("study").joinpath(f"templates/{name}").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_templates_say_everything(name):
    assert missing_elements(template(name)) == []


@pytest.mark.parametrize("name", LANGUAGES)
@pytest.mark.parametrize(
    ("paragraph", "unsaid"),
    [(4, {"risks", "benefits", "the alternative"}), (5, {"confidentiality", "later use of de-identified data"}),
     (6, {"that it is voluntary", "leaving without penalty"})],
)  # fmt: skip
def test_a_paragraph_that_is_taken_out_is_missed(name, paragraph, unsaid):
    paragraphs = template(name).split("\n\n")
    del paragraphs[paragraph]
    assert set(missing_elements("\n\n".join(paragraphs))) == unsaid


def test_an_empty_text_says_nothing():
    assert missing_elements("") == list(ELEMENTS)


def test_check_names_what_the_consent_leaves_out(tmp_path):
    (tmp_path / "music").mkdir()
    run = CliRunner().invoke
    assert run(rootnote.cli, ["study", "init", str(tmp_path / "s"), "--audio", str(tmp_path / "music")]).exit_code == 0
    consent = tmp_path / "s" / "consent.md"
    consent.write_text(consent.read_text().replace("voluntary", "welcome"))
    done = run(rootnote.cli, ["study", "check", str(tmp_path / "s")])
    assert "consent.md does not seem to mention: that it is voluntary." in " ".join(done.output.split())
