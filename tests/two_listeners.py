"""Two listeners take a study for real people, on a clock that they set: `python -m tests.two_listeners FOLDER`.

A server for real listeners measures their time, so simulated ones that do not wait cannot use it. Here the same pages
answer in this process, on the study's own database, and each listener takes as long as the sounds last.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.app import create_app
from server.identity.tokens import TokenSigner
from server.settings import read_settings
from study.config import load_study
from study.questions.attention import AttentionQuestion
from tests.server import conftest
from tests.server.conftest import FakeClock, Site, Walker

conftest.TAKEN["trial"] = 20.0


class PatientWalker(Walker):
    """A listener who hears all three clips of three seconds."""

    def answer_fields(self, choice: str = "A", plays: int = 1) -> dict[str, Any]:
        heard = {f"seconds_{clip}": 3.0 * plays for clip in "xab"}
        return super().answer_fields(choice, plays) | heard | {"response_ms": 15_000}


def main(folder: Path) -> None:
    study = load_study(folder)
    settings = read_settings(study, os.environ)
    clock = FakeClock(datetime.now(UTC))
    site = Site(study, create_app(study, settings, clock=clock), clock, str(settings.database))
    signer = TokenSigner(settings.secret)
    for _ in range(2):
        walker = PatientWalker(site)
        walker.consent(f"?link={signer.make_link()}").screen().hear("volume")
        walker.go("instructions").listen()
        answers = {"q_device": "Headphones or earbuds", "q_music": "None"}
        checks = {f"q_{one.id}": one.expected for one in study.config.questions if isinstance(one, AttentionQuestion)}
        walker.go("questions", **answers, **checks)
        assert walker.step == "done", walker.step


if __name__ == "__main__":
    main(Path(sys.argv[1]))
