"""The perturbations by name, in the order of tables and figures: one file and one line here for each.

An installed package adds its own through an entry point of the group "rootnote.perturbations".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.registry import Registry

if TYPE_CHECKING:
    from analysis.retrieval.robustness.perturbations import Perturbation

_HERE = "analysis.retrieval.robustness.perturbations"
# name -> "module:attribute", a Perturbation of this name.
PERTURBATIONS: Registry[Perturbation] = Registry(
    "rootnote.perturbations",
    {
        "pitch": f"{_HERE}:PITCH",
        "stretch": f"{_HERE}:STRETCH",
        "noise": f"{_HERE}:NOISE",
        "mashup": f"{_HERE}:MASHUP",
        "mashup-outside": f"{_HERE}:MASHUP_OUTSIDE",
        "mashup-generation": f"{_HERE}:MASHUP_GENERATION",
        "mp3": f"{_HERE}:MP3",
        "opus": f"{_HERE}:OPUS",
        "resynthesis": f"{_HERE}:RESYNTHESIS",
        "lowpass": f"{_HERE}:LOWPASS",
        "highpass": f"{_HERE}:HIGHPASS",
        "reverb": f"{_HERE}:REVERB",
        "gain": f"{_HERE}:GAIN",
        "compression": f"{_HERE}:COMPRESSION",
        "speed": f"{_HERE}:SPEED",
        "late": f"{_HERE}:LATE",
        "mix": f"{_HERE}:MIX",
    },
)
