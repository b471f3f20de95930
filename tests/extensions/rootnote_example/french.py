"""A language: French, with a part of the translations."""

from __future__ import annotations

from pathlib import Path

from study.languages import Language

FRENCH = Language("Français", "French", decimal=",", folder=Path(__file__).parent)
