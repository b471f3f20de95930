"""Blinding: what the build of an earlier version revealed to listeners."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.report.section import ReportInputs, ReportSection
from study.leaks import LEAKS, describe_leaks


class BlindingSection(ReportSection):
    """One sentence for each leak; nothing for a study without any."""

    template = "blinding.html.j2"

    def compute(self, inputs: ReportInputs) -> tuple[str, ...]:
        return inputs.leaks

    def values(self, result: tuple[str, ...], report: object) -> dict[str, list[str]]:
        return {"leaks": [LEAKS.get(name, name) for name in result]}

    def data(self, result: tuple[str, ...]) -> dict[str, list[str]]:
        return {"leaks": list(result)} if result else {}

    def warnings(self, result: tuple[str, ...]) -> Sequence[str]:
        if not result:
            return ()
        text = "An earlier version of Rootnote built this study, and an attacker among the listeners could cheat: "
        return (f"{text}{describe_leaks(result)}.",)
