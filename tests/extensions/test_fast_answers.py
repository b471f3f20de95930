"""The worked example of docs/extending/report-section.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import rootnote
from tests.analysis.report.test_html import one_embedder

pytestmark = pytest.mark.slow


def test_the_section_is_on_the_page_in_the_numbers_and_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = {"rootnote.report_sections": {"fast_answers": "tests.extensions.fast_answers:FastAnswersSection"}}
    monkeypatch.setattr("study.registry._entry_points", lambda group: added.get(group, {}))
    frame = one_embedder()
    frame["response_ms"] = [500 if row % 4 == 0 else 5000 for row in range(len(frame))]
    frame.to_csv(tmp_path / "responses.csv", index=False)
    words = ["analysis", "report", str(tmp_path / "responses.csv"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(rootnote.cli, words)
    assert done.exit_code == 0, (done.output, done.exception)
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf-8"))
    assert list(numbers["fast_answers"].values()) == [pytest.approx(0.25, abs=0.05)]
    assert "% within a second." in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "fast_answers.csv").read_text(encoding="utf-8").startswith("embedder,fast")
