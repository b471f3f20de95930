"""`table1.tex` compiles and shows every embedder under its name, whatever that is.

Two readers check it: pylatexenc, which converts LaTeX to text, and pdfLaTeX if it is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pylatexenc import latex2text, macrospec
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexWalker, get_default_latex_context_db

from analysis.presentation.latex import _COMMANDS, escape, to_latex
from analysis.presentation.tables import one_line
from analysis.statistics.agreement import Table1, paper_counts, tabulate
from study.design.bin_pairs import BIN_PAIRS
from tests.analysis.paper_bins import paper_bins

NAMES = (
    "clap_50%&$#{x}~^\\", "[a] <b> |c| \"d\" 'e' `f` -- --- ?` !` << >> *", "Müsliß-çãñőšạø, łódź, Ångström, ‘’“”–—…",
    "".join(_COMMANDS),
    "β-VAE ≥ 3 × ±½ ♯♭", "音楽 موسيقى 🎵 ѯ ą", "\\input{x} \\end{table} %", "a" * 120,
)  # fmt: skip


def table(*names: str) -> Table1:
    counts = paper_counts()
    clap = counts[counts["embedder"] == "CLAP"]
    return {name: tabulate(clap.assign(embedder=name))[name] for name in names}


_UNKNOWN_TO_IT = {"textless": "<", "textgreater": ">", "textbar": "|", "S": "§", "copyright": "©", "pounds": "£"}


def contexts() -> tuple[Any, Any]:
    parsed, shown = get_default_latex_context_db(), latex2text.get_default_latex_context_db()
    numbered = latex2text.MacroTextSpec("rootnotechar", lambda node: chr(int(node.nodeargs[0].nodelist[0].chars)))
    parsed.add_context_category("rootnote", macros=[macrospec.MacroSpec("rootnotechar", "{{")], prepend=True)
    plain = [latex2text.MacroTextSpec(name, shows) for name, shows in _UNKNOWN_TO_IT.items()]
    shown.add_context_category("rootnote", macros=[numbered, *plain], prepend=True)
    return parsed, shown


PARSED, SHOWN = contexts()


def nodes_of(latex: str) -> Any:
    return LatexWalker(latex, latex_context=PARSED, tolerant_parsing=False).get_latex_nodes()[0]


def read_back(latex: str) -> str:
    """The text that LaTeX shows, according to pylatexenc; a character given by its number counts as that character."""
    # A number of TeX's own, which a reader of commands does not know.
    latex = re.sub(r"\{\\char(\d+)\}", lambda match: rf"\rootnotechar{{{match[1]}}}{{}}", latex)
    return str(latex2text.LatexNodes2Text(SHOWN, strict_latex_spaces=True).nodelist_to_text(nodes_of(latex)))


# What pylatexenc writes by a character that looks the same.
LOOKS = str.maketrans({"µ": "μ", "·": "⋅", "ˆ": "^"})


def same(text: str) -> str:
    """A name with characters that look the same normalised."""
    return unicodedata.normalize("NFC", one_line(text)).translate(LOOKS)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_ascii_and_read_back_as_they_were(name: str) -> None:
    assert escape(name).isascii()
    assert same(read_back(escape(name))) == same(name)


@given(st.text(max_size=30))
def test_any_name_is_read_back(name: str) -> None:
    assert escape(name).isascii()
    assert same(read_back(escape(name))) == same(name)


def test_the_table_has_its_rows_and_columns() -> None:
    text = to_latex(table(*NAMES), {name: paper_bins()["CLAP"] for name in NAMES[:2]})
    (whole,) = (node for node in nodes_of(text) if node.isNodeType(LatexEnvironmentNode))
    assert whole.environmentname == "table"
    inner = [node for node in whole.nodelist if node.isNodeType(LatexEnvironmentNode)]
    assert [node.environmentname for node in inner] == ["tabular"] * len(NAMES)
    for node in inner:
        rows = re.sub(r"\\(textbackslash|[%&])", "", node.latex_verbatim()).split(r"\\")[:-1]
        assert {row.count("&") for row in rows} == {4}
        assert len(rows) in (7, 8)  # names of bins, where they lie, two lines for each of three rows
    for high, low in BIN_PAIRS:
        assert f"Bin {high}" in text
        assert f"Bin {low}" in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_pdflatex_compiles_it(tmp_path: Path) -> None:
    tables = [to_latex(table(name), {name: paper_bins()["CLAP"]}) for name in NAMES]
    both = to_latex(table("CLAP_a", "β"), {})
    document = ["\\documentclass{article}", "\\usepackage{booktabs}", "\\begin{document}", "\\input{table1}"]
    document += ["\\clearpage".join(tables), "\\end{document}"]
    (tmp_path / "table1.tex").write_text(both, encoding="utf-8")
    (tmp_path / "paper.tex").write_text("\n".join(document), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "paper.log").read_text(encoding="utf-8", errors="replace")
    assert "Missing character" not in log
    assert "Overfull" not in log
