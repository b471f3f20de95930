"""The licences that a public release may have."""

# Identifier -> name, address of the text, what it allows.
LICENCES = {
    "CC-BY-4.0": (
        "Creative Commons Attribution 4.0 International",
        "https://creativecommons.org/licenses/by/4.0/legalcode",
        "You may share and adapt the data for any purpose, if you give credit as CITATION.cff says.",
    ),
    "CC0-1.0": (
        "Creative Commons Zero 1.0 Universal",
        "https://creativecommons.org/publicdomain/zero/1.0/legalcode",
        "The authors have waived their rights in the data as far as the law lets them; please cite them all the same.",
    ),
}
