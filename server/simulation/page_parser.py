"""Parsing a page as a browser would: its step, sounds, forms and completion code.

It reads what every listener's browser gets: `data-step` on <main>, `data-clip` on <audio>, the fields of forms,
`data-code` and `data-back`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class ParsedForm:
    """A form: its address, its fields with their values, and the choices (name of radio buttons or boxes -> values).

    A link back to a marketplace is a form without fields (`method` "get").
    """

    action: str
    fields: dict[str, str | list[str]] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)
    method: str = "post"

    @property
    def names(self) -> set[str]:
        """The names of all fields and choices."""
        return {*self.fields, *self.choices}


@dataclass
class ParsedPage:
    """The contents of a page; `sounds` maps the name of a clip (X, A, B, tones, volume) to its address."""

    step: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    sounds: dict[str, str] = field(default_factory=dict)
    forms: list[ParsedForm] = field(default_factory=list)
    code: str = ""
    back: ParsedForm | None = None  # the way back to the marketplace

    @property
    def position(self) -> int:
        return int(self.attributes.get("data-position", "0"))

    def form(self, ending: str) -> ParsedForm:
        """The form whose address ends with `ending`.

        Raises:
            LookupError: if the page has none.
        """
        for form in self.forms:
            if form.action.endswith(ending):
                return form
        raise LookupError(f"the page '{self.step}' has no form for '{ending}'")


def read_page(html: str) -> ParsedPage:
    """Parse a page."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.page


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = ParsedPage()
        self._form: ParsedForm | None = None
        self._in_code = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "main":
            self.page.step, self.page.attributes = given.get("data-step", ""), given
        elif tag == "audio" and "data-clip" in given:
            self.page.sounds[given["data-clip"]] = given.get("src", "")
        elif tag == "form":
            self._form = ParsedForm(given.get("action", ""))
            self.page.forms.append(self._form)
            self.page.back = self._form if "data-back" in given else self.page.back
        elif tag == "a" and "data-back" in given:
            self.page.back = ParsedForm(given.get("href", ""), method="get")
        elif tag == "code":
            self._in_code = "data-code" in given
        elif self._form is not None and given.get("name"):
            self._read_field(tag, given, self._form)

    def _read_field(self, tag: str, given: dict[str, str], form: ParsedForm) -> None:
        name, value = given["name"], given.get("value", "")
        if (tag == "input" and given.get("type") in ("radio", "checkbox")) or (tag == "button" and value):
            form.choices.setdefault(name, []).append(value)
        elif tag in ("input", "textarea", "select"):
            form.fields[name] = value

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "code":
            self._in_code = False

    def handle_data(self, data: str) -> None:
        if self._in_code:
            self.page.code += data.strip()
