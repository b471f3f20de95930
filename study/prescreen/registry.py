"""The steps of the prescreen by name: one file in this package and one line here for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.registry import Registry

if TYPE_CHECKING:
    from study.prescreen.item import Item

STEPS: Registry[type[Item]] = Registry(
    "rootnote.prescreen_steps",
    {
        "volume": "study.prescreen.volume:VolumeItem",
        "tones": "study.prescreen.tone_counting:ToneItem",
        "huggins": "study.prescreen.huggins:HugginsItem",
        "antiphase": "study.prescreen.antiphase:AntiphaseItem",
    },
)
