"""The licences under which a release can be published."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """A licence for data: its name, the address of its text, and what it allows in one sentence."""

    name: str
    url: str
    summary: str


LICENCES = {
    "CC-BY-4.0": Licence(
        "Creative Commons Attribution 4.0 International",
        "https://creativecommons.org/licenses/by/4.0/legalcode",
        "You may share and adapt the data for any purpose if you give credit as described in CITATION.cff.",
    ),
    "CC0-1.0": Licence(
        "Creative Commons Zero 1.0 Universal",
        "https://creativecommons.org/publicdomain/zero/1.0/legalcode",
        "The authors waive all their rights in the data as far as the law allows. Please cite the data anyway.",
    ),
}
