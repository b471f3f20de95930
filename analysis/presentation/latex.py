r"""LaTeX: Table 1 as a `table` environment that compiles whatever the names of embedders are.

pdfLaTeX stops at a character that its fonts lack, so the output is ASCII. A character that has a command is written
with it (\'e, $\beta$, \textemdash). For any other character, the PDF shows its number (U+97F3) under pdfLaTeX, and the
character itself under XeLaTeX or LuaLaTeX.
Conventions: the file needs \usepackage{booktabs}; the layout is the paper's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from analysis.presentation.tables import COLUMNS, PRIMARY_NAMES, ROWS, SIMULATED, one_line, percent, sidedness, stars
from analysis.statistics.agreement import Cell, EmbedderTable, Table1
from analysis.statistics.bins import Bins

_LONG = 30  # letters
# Defined in the file, for characters without a command.
_CHARACTER = (
    r"\providecommand{\rootnotechar}[2]{\ifdefined\XeTeXrevision\char#1\else\ifdefined\directlua\char#1\else"
    r"{\normalfont U+#2}\fi\fi}"
)


def to_latex(tables: Table1, bins: Mapping[str, Bins] | None = None, rehearsed: bool = False) -> str:
    r"""A `table` environment to be \input into a paper that has \usepackage{booktabs}."""
    names = {name: escape(name) for name in tables}
    parts = [
        r"% Table 1, written by Rootnote. In the preamble: \usepackage{booktabs}",
        *([_CHARACTER] if any(r"\rootnotechar" in name for name in names.values()) else []),
        r"\begin{table}[htbp]",
        r"\centering",
        r"\small",
    ]
    for number, (name, table) in enumerate(tables.items()):
        parts += [r"\par\medskip"] if number else []
        parts += [rf"\textbf{{{names[name]}}}\par\smallskip", *_layout(table, (bins or {}).get(name))]
    caption = (
        r"How often listeners rated the clip of the more similar bin (A, rows) as more similar to the prompt "
        r"than the clip of the less similar bin (B, columns). "
        + ", ".join(dict.fromkeys(PRIMARY_NAMES[table.primary].capitalize() for table in tables.values()))
        + " ("
        + sidedness(tables)
        + r") against "
        r"50\,\%, Holm's correction over the bin pairs of one embedder: "
        r"$^{*}p<0.05$, $^{**}p<0.01$, $^{***}p<0.001$."
    )
    caption += f" {SIMULATED}" if rehearsed else ""
    parts += [rf"\caption{{{caption}}}", r"\label{tab:agreement}", r"\end{table}", ""]
    return "\n".join(parts)


def _layout(table: EmbedderTable, bins: Bins | None) -> list[str]:
    def centre(number: int) -> str:
        return rf"${round(bins.centres[number], 3) + 0.0:.3f} \pm {bins.half_width:g}$" if bins else ""

    lines = [
        r"\begin{tabular}{l" + "c" * (len(COLUMNS) + 1) + "}",
        r"\toprule",
        " & ".join([r"A \textbackslash{} B", *(rf"\textbf{{Bin {low}}}" for low in COLUMNS), r"\textbf{Total}"])
        + r" \\",
    ]
    if bins:
        lines.append(" & ".join(["", *map(centre, COLUMNS), "(all trials)"]) + r" \\")
    lines.append(r"\midrule")
    for high in ROWS:
        cells = [table.pairs[high, low] if low > high else None for low in COLUMNS] + [table.totals[high]]
        rates = [_rate(cell) if cell else "" for cell in cells]
        counts = [f"($n = {cell.n}$)" if cell else "" for cell in cells]
        lines.append(" & ".join([rf"\textbf{{Bin {high}}}", *rates]) + r" \\")
        lines.append(" & ".join([centre(high), *counts]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _rate(cell: Cell) -> str:
    if not cell.n:
        return "--"
    mark = stars(cell)
    return rf"{percent(cell)}\,\%" + (f"$^{{{mark}}}$" if mark else "")


def escape(text: str) -> str:
    """The text as LaTeX in ASCII, escaped and without line breaks."""
    words = unicodedata.normalize("NFC", one_line(text)).split(" ")
    return " ".join(map(_word, words))


def _word(word: str) -> str:
    """A word; if it is longer than a column, it may be broken at any character."""
    commands = [_command(character) for character in word]
    return (r"\allowbreak{}" if len(word) > _LONG else "").join(commands)


def _command(character: str) -> str:
    if character in _COMMANDS:
        return _COMMANDS[character]
    if character.isascii():
        return character
    base, *marks = list(unicodedata.normalize("NFD", character))
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
        # An i or j loses its dot under an accent above it.
        under = {"i": r"\i", "j": r"\j"}.get(base, base) if marks[0] not in _BELOW else base
        return rf"{{\{_ACCENTS[marks[0]]}{{{under}}}}}"
    return rf"\rootnotechar{{{ord(character)}}}{{{ord(character):04X}}}"


# Accents that TeX's default encoding (OT1) has; it lacks others, such as the ogonek.
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
_BELOW = "\u0323\u0327\u0331"
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "µ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho",
    "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma",
    "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi",
    "Ω": "Omega", "×": "times", "±": "pm", "≤": "leq", "≥": "geq", "≠": "neq", "→": "rightarrow", "∞": "infty",
    "·": "cdot",
}  # fmt: skip
_COMMANDS = {
    # Special characters of TeX, and those that form ligatures: --, '', ``, ?`.
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "[": r"{[}", "]": r"{]}", "-": "{-}", "'": "{'}", "`": r"{\char96}",
    '"': r"{\char34}", "*": "{*}",
    "ß": r"{\ss}", "æ": r"{\ae}", "Æ": r"{\AE}", "œ": r"{\oe}", "Œ": r"{\OE}", "ø": r"{\o}", "Ø": r"{\O}",
    "ł": r"{\l}", "Ł": r"{\L}", "ı": r"{\i}", "ȷ": r"{\j}", "¡": r"{\textexclamdown}", "¿": r"{\textquestiondown}",
    "–": r"{\textendash}", "—": r"{\textemdash}", "‘": r"{\textquoteleft}", "’": r"{\textquoteright}",
    "“": r"{\textquotedblleft}", "”": r"{\textquotedblright}", "…": r"{\ldots}", "§": r"{\S}", "©": r"{\copyright}",
    "£": r"{\pounds}", "♭": r"$\flat$", "♯": r"$\sharp$", "♮": r"$\natural$",
    **{character: rf"$\{name}$" for character, name in _GREEK.items()},
}  # fmt: skip
