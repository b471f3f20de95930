"""Languages: the catalogues fit the texts, and each page is in one language."""

from __future__ import annotations

import ast
import gettext
import importlib.machinery
import importlib.util
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from embeddings.errors import RootnoteError
from server.web import i18n, markdown
from server.web.markdown import read_study_texts
from study.check import PLACEHOLDER, check_study
from study.cli import cli
from study.config import load_study
from study.languages import LANGUAGES, SOURCE, Language
from tests.server.conftest import Site, Walker, count_tones
from tests.server.small_study import make_study

ROOT = Path(__file__).parents[3]
OTHERS = [code for code in LANGUAGES if code != SOURCE]
KINDS = """
[[questions]]
id = "plays"
type = "multiple"
text = "Which do you play, 100 %?"
options = ["Piano", "Oud"]
least = 2
required = true
[questions.translations.de]
text = "Welche spielen Sie, zu 100 %?"
options = ["Klavier", "Laute"]
[questions.translations.ar]
text = "ماذا تعزف؟"
options = ["بيانو", "عود"]
[[questions]]
id = "age"
type = "age_band"
"""


def load_script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("translate", str(ROOT / "scripts" / "translate"))
    spec = importlib.util.spec_from_loader("translate", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script()


# ------------------------------------------------------------------ the catalogues


def test_each_language_has_a_catalogue() -> None:
    assert sorted(path.name for path in i18n.FOLDER.iterdir()) == sorted(OTHERS)


@pytest.mark.parametrize("code", OTHERS)
def test_translations_have_what_their_texts_have(script: ModuleType, code: str) -> None:
    """That every text is translated is for `scripts/translate --check`, before a release."""
    catalogue = script.read(code)
    for one in (one for one in catalogue if one.id):
        texts, translations = ([words] if isinstance(words, str) else list(words) for words in (one.id, one.string))
        for words in filter(None, translations):
            text, plural = texts[-1], len(texts) > 1
            kept, wanted = script.placeholders(words), script.placeholders(text)
            assert kept == wanted or (plural and set(kept) < set(wanted)), text
            assert not re.search(r"[\"<>&]", re.sub(r"</?\w+>", "", words)), f"may be in an attribute: {words}"
            assert words == words.strip() and (text.endswith(".") == words.endswith(".")), text
    catalogue.num_plurals  # noqa: B018 (a language that Babel does not know fails here)


def test_the_release_check_finds_what_is_not_translated(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(i18n.FOLDER, tmp_path / "server" / "locale")
    monkeypatch.setattr(script, "LOCALE", tmp_path / "server" / "locale")
    texts = script.extract()
    monkeypatch.setattr(script, "extract", lambda: texts)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    assert script.main([]) == 0 and script.main(["--check"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("rootnote.*")}
    texts.add("A new sentence.")
    assert script.main(["--check"]) == 1
    assert "does not translate: A new sentence." in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}, "a check writes nothing"
    assert script.main([]) == 0, "a text without a translation is no error until the release"


def test_a_text_without_a_translation_appears_in_english() -> None:
    assert i18n.catalogue("de").gettext("A new sentence.") == "A new sentence."


@pytest.mark.parametrize("code", OTHERS)
def test_the_compiled_catalogues_are_up_to_date(script: ModuleType, code: str) -> None:
    folder = i18n.FOLDER / code / "LC_MESSAGES"
    catalogue = script.read(code)
    assert script.written(catalogue) == (folder / "rootnote.po").read_bytes(), "run scripts/translate"
    assert script.compiled(catalogue) == (folder / "rootnote.mo").read_bytes(), "run scripts/translate"
    assert gettext.translation(i18n.DOMAIN, i18n.FOLDER, [code]).gettext("Continue") != "Continue"


def test_every_word_of_a_page_comes_from_the_catalogues() -> None:
    """What templates contain outside `_("…")` has no words."""
    bare = set()
    for path in sorted((ROOT / "server" / "templates").rglob("*.html")):
        if "desk" not in path.parts:
            words = _Words()
            words.feed(re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", path.read_text(), flags=re.DOTALL))
            bare |= {(path.name, word) for word in words.found}
    assert {word for _, word in bare} <= {"X", "A", "B", "Enter"}, bare


class _Words(HTMLParser):
    """The words of a page: its text, and the attributes that are read out or shown."""

    SHOWN_ATTRIBUTES = ("alt", "aria-label", "title", "placeholder", "data-then", "data-name")

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_data(self, data: str) -> None:
        attributes = r'[\w-]+="[^"]*"'  # of a tag that another template began
        self.found |= set(re.findall(r"[^\W\d_]+", re.sub(attributes, "", data)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in self.SHOWN_ATTRIBUTES:
                self.handle_data(value or "")


def test_scripts_contain_no_sentences() -> None:
    """They show the texts of `data-words` in base.html, which are translated."""
    base = (ROOT / "server" / "templates" / "base.html").read_text()
    template = re.search("<template data-words (.*?)></template>", base)
    assert template
    given = {re.sub("-(.)", lambda m: m[1].upper(), name) for name in re.findall(r"data-([\w-]+)=", template[1])}
    for name in ("player.js", "rootnote.js"):
        code = (ROOT / "server" / "static" / name).read_text()
        code = re.sub(r"/\*.*?\*/|(?<![:\w])//[^\n]*", "", code, flags=re.DOTALL)
        literals = {"".join(found) for found in re.findall(r'"([^"\n]*)"|`([^`]*)`', code)}
        assert {text for text in literals if re.search(r"[a-z]{2,} [a-z]{2,}", text)} <= {"use strict"}
        assert set(re.findall(r'word\("(\w+)"', code)) <= given


def test_errors_for_listeners_can_be_extracted(script: ModuleType) -> None:
    """They are raised with a literal sentence, or with one that `mark` has marked."""
    for folder in ("server", "study"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
                if name in {*script.KEYWORDS} - {"_", "gettext", "ngettext"}:
                    assert isinstance(node, ast.Call)
                    # The error was raised with a sentence elsewhere.
                    passed_on = ast.unparse(node.args[0]) in ("str(problem)", "str(error)")
                    assert passed_on or isinstance(node.args[0], (ast.Constant, ast.Name)), path


# ------------------------------------------------------------------ pages


# For what no database can change.
on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Languages in which every text is put into brackets, so that what is not translated stands out."""

    class Brackets(gettext.NullTranslations):
        def gettext(self, message: str) -> str:
            return f"⟦{message}⟧"

    for module in (i18n, markdown):
        monkeypatch.setattr(module, "catalogue", lambda code: Brackets())


class _VisibleText(HTMLParser):
    """The words of a page outside brackets."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.skip = "", 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.text += " ".join(value or "" for name, value in attrs if name in _Words.SHOWN_ATTRIBUTES)

    def handle_data(self, data: str) -> None:
        self.text += data


def outside_brackets(page: str) -> set[str]:
    visible = _VisibleText()
    visible.feed(page)
    while "⟦" in visible.text:
        visible.text = re.sub(r"⟦[^⟦⟧]*⟧", " ", visible.text, count=1)
    return set(re.findall(r"[^\W\d_]{2,}", visible.text))


def write_texts(folder: Path, *codes: str) -> None:
    for code in codes:
        (folder / f"consent.{code}.md").write_text(f"# 123 {code}\n")


@pytest.fixture
def make_whole(make_site: Callable[..., Site], tmp_path: Path) -> Callable[..., Site]:
    """A site in every language."""

    def make(**options: Any) -> Site:
        (tmp_path / "study").mkdir()
        write_texts(tmp_path / "study", *OTHERS)
        options["toml"] = KINDS + options.get("toml", "")
        return make_site(languages=list(LANGUAGES), **options)

    return make


@on_one_database
def test_a_listener_reads_one_language_only(make_whole: Callable[..., Site], brackets: None) -> None:
    site = make_whole(trials=1, toml="[player]\nconfidence = true\n")
    untranslated: dict[str, set[str]] = {}
    allowed = {"Test", "study", "researcher", "example", "org", "de", "Enter", "English", "Deutsch", "العربية"}
    allowed |= {"Klavier", "Laute", "Welche", "spielen", "Sie", "zu"}  # the researcher's own

    def look(walker: Walker) -> Walker:
        untranslated[walker.step] = outside_brackets(re.sub(r"<code.*?</code>", "", walker.html)) - allowed
        return walker

    walker = look(site.walker().open("?lang=de"))
    look(walker.agree())
    while walker.step == "prescreen":
        walker.screen()
    look(walker).go("instructions")
    look(walker).hear_all()
    look(walker.go("trial", confidence=3, **walker.answer_fields()))
    walker.page = walker.post("questions", q_plays="Oud")
    assert "⟦Please choose more answers: at least 2.⟧" in walker.html
    look(walker).go("questions", q_plays=["Oud", "Piano"])
    look(walker)
    late = site.walker().open("?lang=ar").agree()
    look(late.go("leave", confirm="yes"))
    for path in ("/a/unknown", "/take?link=x"):
        walker.page = walker.client.get(path)
        look(walker)
    assert untranslated.keys() >= {
        "consent",
        "prescreen",
        "instructions",
        "trial",
        "questions",
        "done",
        "withdrawn",
        "error",
    }
    assert not any(untranslated.values()), untranslated


@on_one_database
def test_the_link_then_the_browser_then_the_study_decides_the_language(make_whole: Callable[..., Site]) -> None:
    site = make_whole(trials=1)
    client = site.walker().client

    def of(query: str, accepted: str) -> tuple[str, str]:
        page = client.get(f"/take{query}", headers={"Accept-Language": accepted}).text
        found = re.search(r'<html lang="([\w-]+)" dir="(\w+)">', page)
        assert found and ("# 123" not in page)
        assert (f"<h1>123 {found[1]}" in page) == (found[1] != "en"), "the consent text is in the page's language"
        return found[1], found[2]

    assert of("?lang=ar", "de") == ("ar", "rtl")
    assert of("", "fr, de-AT;q=0.8, en;q=0.5") == ("de", "ltr")
    assert of("?lang=xx", "ar-EG") == ("ar", "rtl")
    assert of("?lang=", "fr") == of("", "") == of("", ";;q=,") == ("en", "ltr")
    links = re.findall(r'<a href="([^"]+)" lang="(\w+)"', client.get("/take?worker=W%201&lang=de").text)
    assert [code for _, code in links] == list(LANGUAGES)
    assert all(address == f"/take?worker=W+1&amp;lang={code}" for address, code in links)


def test_after_consent_the_language_does_not_change(make_whole: Callable[..., Site]) -> None:
    site = make_whole(trials=1)
    walker = site.walker().open("?lang=de")
    entry = walker.find(r'name="entry" value="([^"]+)"')
    reply = walker.client.post("/take", data={"entry": entry, "lang": "de"})
    assert (reply.status_code, reply.headers.getlist("Set-Cookie")) == (303, [])
    for accepted in ("ar", "en", ""):
        page = walker.client.get(reply.location, headers={"Accept-Language": accepted}).text
        assert '<html lang="de" dir="ltr">' in page and "Hörprobe" in page
    refused = walker.client.post(f"{reply.location}/trial", data={}, headers={"Accept-Language": "ar"})
    assert "Bitte wählen Sie A oder B." in refused.text and 'lang="de"' in refused.text
    texts = read_study_texts(site.study)
    assert site.query("SELECT language, consent_version FROM assignments") == [("de", texts["de"].consent_version)]
    assert len({one.consent_version for one in texts.values()}) == len(LANGUAGES)


@on_one_database
def test_answers_are_stored_as_study_toml_words_them(make_whole: Callable[..., Site]) -> None:
    site = make_whole(trials=1)
    walker = site.walker().open("?lang=de").agree().screen().go("instructions").answer()
    assert "Welche spielen Sie, zu 100 %?" in walker.html and "> Klavier<" not in walker.html
    assert re.search(r'value="Piano"[^>]*><span>Klavier<', walker.html)
    assert "Wie alt sind Sie?" in walker.html and "18 bis 24" in walker.html
    assert walker.go("questions", q_plays=["Oud", "Piano"], q_age="18 to 24").step == "done"
    assert dict(site.query("SELECT question, value FROM answers")) == {"plays": "Piano|Oud", "age": "18 to 24"}


@on_one_database
def test_a_number_of_tones_may_be_entered_in_the_digits_of_the_language(make_whole: Callable[..., Site]) -> None:
    walker = make_whole(trials=1).walker().open("?lang=ar").agree()
    heard = count_tones(walker.hear("tones"))
    written = str(heard).translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))
    walker.go("prescreen", item=walker.find(r'name="item" value="([^"]+)"'), count=written)
    assert walker.site.query("SELECT answer FROM prescreen_items WHERE answer IS NOT NULL") == [(heard,)]


@on_one_database
def test_amounts_have_the_decimal_sign_of_the_language(make_whole: Callable[..., Site]) -> None:
    site = make_whole(trials=1)
    for code, amount in (("en", "1.50 US dollars"), ("de", "1,50 US-Dollar"), ("ar", "1.50 دولار")):
        assert amount in site.walker().open(f"?lang={code}").agree().screen(right=False).html
        site.clock.advance(90)


@on_one_database
def test_a_study_of_one_language_offers_no_choice(site: Site) -> None:
    page = site.walker().client.get("/take?lang=de", headers={"Accept-Language": "ar"}).text
    assert 'lang="en" dir="ltr"' in page and "hreflang" not in page


# ------------------------------------------------------------------ texts of the study


def test_texts_are_required_in_each_language(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", languages=["de", "en"])
    write_texts(study.folder, "en")
    texts = read_study_texts(study)
    assert "In jedem Vergleich" in texts["de"].instructions and "In each comparison" in texts["en"].instructions
    (study.folder / "debrief.en.md").write_text("Thanks!")
    with pytest.raises(RootnoteError, match=r"debrief\.md is missing or empty"):
        read_study_texts(study)
    (study.folder / "debrief.md").write_text("Danke!")
    assert "Danke!" in read_study_texts(study)["de"].debrief
    (study.folder / "consent.en.md").unlink()
    with pytest.raises(RootnoteError, match=r"consent\.en\.md is missing or empty"):
        read_study_texts(study)


def test_init_writes_the_texts_of_every_language(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    command = ["init", str(tmp_path / "s"), "--audio", str(tmp_path / "music"), "--languages", "ar, en,de"]
    assert CliRunner().invoke(cli, command).exit_code == 0
    study = load_study(tmp_path / "s")
    assert study.config.study.languages == ["ar", "en", "de"]
    texts = read_study_texts(study)
    assert [re.search("<h1>(.*)</h1>", text.consent) and len({*text.consent.split()}) > 100 for text in texts.values()]
    left = {code: sorted(PLACEHOLDER.findall(study.text("consent", code).read_text())) for code in texts}
    assert left["ar"] == left["de"] == left["en"]
    assert len({text.instructions for text in texts.values()} | {text.debrief for text in texts.values()}) == 6
    refused = CliRunner().invoke(cli, ["init", str(tmp_path / "t"), *command[2:4], "--languages", "en,fr"])
    assert refused.exit_code == 1 and "one or more of en, de, ar" in str(refused.exception)
    assert not (tmp_path / "t").exists()


SWISS = Language("Schwyzerdütsch", "Swiss German")


def test_a_study_in_a_language_without_texts_starts_from_the_english_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LANGUAGES, "built_in", {**LANGUAGES.built_in, "gsw": f"{__name__}:SWISS"})
    (tmp_path / "music").mkdir()
    command = ["init", str(tmp_path / "s"), "--audio", str(tmp_path / "music"), "--languages", "en,gsw"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0 and "no Swiss German texts" in done.output
    study = load_study(tmp_path / "s")
    assert study.text("consent", "gsw").read_text() == study.text("consent", "en").read_text()
    assert any("no word list for Swiss German" in warning for warning in check_study(study).warnings)


def test_markdown_is_safe(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    (study.folder / "consent.md").write_text(
        '<b onclick=x>raw</b> ![i](http://evil/i.png) [js](javascript:alert(1)) [ok](https://ok.example/?a=1&b=2 "t")\n'
        "\n<iframe src=http://evil></iframe>\n\n<https://auto.example> [data](data:text/html,x) [m](mailto:a@b.org)\n"
    )
    html = str(read_study_texts(study)["en"].consent)
    assert "<b" not in html and "<iframe" not in html and "<img" not in html
    assert re.findall(r'href="([^"]+)"', html)[1:] == [  # the first leads to the image, which is not loaded
        "https://ok.example/?a=1&amp;b=2",
        "https://auto.example",
        "mailto:a@b.org",
    ]
    assert html.count('target="_blank" rel="noopener noreferrer"') == 4


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('languages = ["en", "fr"]', "'study': 'fr' is not a language of the pages; choose from en, de, ar"),
        ('languages = ["en", "en"]', "languages must be distinct"),
        ("languages = []", "'study.languages'"),
        (
            'languages = ["en", "de"]\n[[questions]]\nid = "a"\ntype = "text"\ntext = "Own?"',
            "[questions.translations.de]",
        ),
        (
            '[[questions]]\nid = "a"\ntype = "single"\ntext = "Own?"\noptions = ["x", "y"]\n'
            '[questions.translations.de]\ntext = "Eigen?"\noptions = ["x"]',
            "has 2 options, but in 'de' 1",
        ),
    ],
)
def test_mistakes_about_languages_are_one_sentence(tmp_path: Path, toml: str, words: str) -> None:
    (tmp_path / "study.toml").write_text(f'[corpus]\naudio = "m"\n[study]\nname = "T"\n{toml}\n')
    with pytest.raises(RootnoteError, match=re.escape(words)) as caught:
        load_study(tmp_path)
    assert "\n" not in str(caught.value)
