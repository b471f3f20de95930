"""Blocks: the parts of a section. Text is escaped by the template; markup comes from our own renderers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from server.irb.screen_list import Picture

SHORT = 16  # rows


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Points:
    """A list."""

    points: Sequence[str]
    ordered: bool = False
    kind: str = "points"


@dataclass(frozen=True)
class BlockTable:
    """A table with row headers in its first column; `title` is its caption."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    dense: bool = False
    kind: str = "rows"

    @property
    def short(self) -> bool:
        """Whether the table fits on one page, so that it is not split."""
        return len(self.rows) <= SHORT


@dataclass(frozen=True)
class Prose:
    """A text of the study, in its language."""

    title: str
    markup: Markup
    language: str = "en"
    direction: str = "ltr"
    note: str = ""
    kind: str = "prose"


@dataclass(frozen=True)
class Drawing:
    """A diagram as SVG."""

    svg: Markup
    kind: str = "drawing"


@dataclass(frozen=True)
class Plate:
    """A screen in one language, with its pictures by width."""

    number: int
    caption: str
    detail: str
    pictures: Sequence[Picture]
    kind: str = "plate"


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: str = "heading"


Block = Text | Points | BlockTable | Prose | Drawing | Plate | Heading


@dataclass(frozen=True)
class Section:
    """A numbered part of the packet."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z]+", "-", self.title.lower()).strip("-")
