"""docs/security.md: its tests exist, no item of the ASVS is missing, and tests of items that no other file covers."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import socket
from pathlib import Path

import pytest
from werkzeug.test import Client

from embeddings.errors import RootnoteError
from server.accounts import users
from server.db import database
from server.identity.arrival import Arrival
from server.identity.tokens import ConsentTicket, TokenSigner, random_token
from server.identity.vault import Vault, new_key
from server.web import logs
from tests.server.conftest import SECRET, TAKEN, Site
from tests.server.desk.desk_client import Visit, add_researcher
from tests.server.real_server import ROOT, real_server

DOCUMENT = (ROOT / "docs/security.md").read_text("utf-8")
ITEMS = Path(__file__).with_name("asvs-5.0-level-2.txt").read_text().split()
ROWS = re.findall(r"^\| ([\d.*, ]+) \|(.*)\|(.*)\|$", DOCUMENT, re.MULTILINE)


def covered(item: str) -> list[str]:
    """The cells of the table that cover an item."""
    cells = [name for names, _, _ in ROWS for name in names.split(", ")]
    chapters = {".".join(item.split(".")[:length]) + ".*" for length in (1, 2)}
    return [cell for cell in cells if cell == item or cell in chapters]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """Only SQLite: these tests do not depend on the database."""
    return f"sqlite:///{tmp_path / 'answers.sqlite3'}"


# ------------------------------------------------------------------ the document


def test_every_item_is_covered_once() -> None:
    assert len(ITEMS) == 253
    assert {item: covered(item) for item in ITEMS if len(covered(item)) != 1} == {}
    named = {cell for names, _, _ in ROWS for cell in names.split(", ") if not cell.endswith("*")}
    assert named - set(ITEMS) == set()


def test_every_item_has_a_test_or_a_reason() -> None:
    policies = {"11.1.1", "14.1.1", "16.1.1"}  # they require a text, which is this document
    for names, how, test in ROWS:
        tested = "`" in test
        reasoned = "n/a" in how or "n/a" in test or "xception" in how
        assert tested or reasoned or names.split(", ")[0] in policies, names


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:\w+/)*\w+)::(\w+)`", DOCUMENT))
    assert len(named) > 60
    for module, name in named:
        path = ROOT / "tests" / f"{module}.py"
        assert path.is_file(), module
        functions = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{module}::{name}"


# ------------------------------------------------------------------ the browser, requests


def test_other_sites_can_neither_read_nor_send(site: Site) -> None:
    client = Client(site.app)
    for path in ("/take", "/healthz", "/desk/sign-in", "/static/player.js"):
        reply = client.get(path, headers={"Origin": "https://evil.example"}, buffered=True)
        assert not [name for name, _ in reply.headers if name.startswith("Access-Control")]
        for method in ("TRACE", "PUT", "DELETE", "PATCH"):
            assert client.open(path, method=method).status_code == 405


def test_types_come_with_their_charset(site: Site) -> None:
    client = Client(site.app)
    types = {
        "/take": "text/html; charset=utf-8",
        "/nothing": "text/html; charset=utf-8",
        "/desk/sign-in": "text/html; charset=utf-8",
        "/healthz": "text/plain; charset=utf-8",
        "/static/rootnote.css": "text/css; charset=utf-8",
        "/audio/volume": "audio/wav",
    }
    assert {path: client.get(path, buffered=True).headers["Content-Type"] for path in types} == types
    assert client.get("/static/player.js", buffered=True).headers["Content-Type"] == "text/javascript; charset=utf-8"


def test_scripts_write_no_foreign_html() -> None:
    """Scripts parse only pages of this server; they evaluate nothing and write no HTML."""
    scripts = sorted((ROOT / "server/static").glob("*.js"))
    assert len(scripts) >= 3
    for path in scripts:
        text = path.read_text()
        for pattern in (
            r"\.(inner|outer)HTML\s*\+?=[^=]",
            "insertAdjacentHTML",
            r"document\.write",
            r"\beval\(",
            "__proto__",
        ):
            assert not re.search(pattern, text), f"{path.name}: {pattern}"


def test_requests_of_two_lengths_are_refused(site: Site, tmp_path: Path) -> None:
    """Requests that two servers in a row could split differently are refused (request smuggling)."""
    with real_server(site.study.folder, site.database_url, tmp_path / "log", workers=1) as server:
        for lengths in (
            b"Content-Length: 3\r\nContent-Length: 9\r\n",
            b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Length: +3\r\n",
            b"Content-Length : 3\r\n",
        ):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                connection.sendall(
                    b"POST /take HTTP/1.1\r\nHost: localhost\r\n"
                    + lengths
                    + b"\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n"
                )
                connection.shutdown(socket.SHUT_WR)
                with connection.makefile("rb") as replies:
                    received = replies.read()
            assert received.startswith(b"HTTP/1.1 400"), (lengths, received[:80])
            assert received.count(b"HTTP/1.1") == 1, lengths


def test_a_field_sent_twice_or_in_the_address_gains_nothing(site: Site) -> None:
    walker = site.walker().begin().hear_all()
    fields = walker.answer_fields("A")
    site.clock.advance(TAKEN["trial"] / 60)
    assert (
        walker.client.post(f"{walker.address}/trial?choice=B", data={**fields, "choice": ["A", "B"]}).status_code == 303
    )
    assert site.query("SELECT choice FROM responses") == [("A",)]


# ------------------------------------------------------------------ signing in


def test_no_page_of_the_desk_opens_without_signing_in(site: Site) -> None:
    client = Client(site.app)
    rules = [rule for rule in site.app.url_map.iter_rules() if rule.rule.startswith("/desk") and not rule.alias]
    opened = []
    for rule in rules:
        path = re.sub(r"<[^>]+>", "1", rule.rule)
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            reply = client.open(path, method=method)
            if not (reply.status_code == 303 and reply.location.endswith("/desk/sign-in")):
                opened.append((method, rule.rule, reply.status_code))
    assert len(rules) > 8
    forms = [("POST", "/desk/sign-in", 400), ("POST", "/desk/sign-in/code", 400)]  # without their cookie
    assert sorted(opened) == [("GET", "/desk/sign-in", 200), *forms]


def test_every_page_of_the_desk_has_a_sign_out(site: Site) -> None:
    add_researcher(site, "anna")
    visit = Visit(site).signed_in("anna")
    for path in ("", "listeners", "triplets", "agreement", "study", "log"):
        assert "/desk/sign-out" in visit.page(path), path


def test_password_managers_are_supported(site: Site) -> None:
    page = Client(site.app).get("/desk/sign-in").text
    assert re.search(r'<input[^>]*type="password"[^>]*autocomplete="current-password"', page)
    assert 'autocomplete="username"' in page
    assert "onpaste" not in page


@pytest.mark.parametrize("password", [" 密码 with spaces around ", "so long" + "y" * 1017])
def test_passwords_are_accepted_as_typed(password: str) -> None:
    stored = users._hash("anna", password)
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,")
    assert users.is_password(stored, password)
    for other in (password[:-1], password.upper(), password + "x", password.strip() + "  "):
        assert other == password or not users.is_password(stored, other)


@pytest.mark.parametrize(
    "password",
    [
        "password1234",
        "PasswordPassword",
        "rootnote-study",
        "anna.b-anna.b-1",
        "123456789012",
        "qwertyuiop12",
        "aaaaaaaaaaaaaaa",
    ],
)
def test_common_passwords_are_refused(site: Site, password: str) -> None:
    with database.writing(site.app.extensions["rootnote"].engine) as session:
        with pytest.raises(RootnoteError, match="easy to guess"):
            users.add(session, "anna.b", password, site.clock.now)
        users.add(session, "anna.b", "a word nobody knows: " + password, site.clock.now)
        with pytest.raises(RootnoteError, match="easy to guess"):
            users.change_password(session, "anna.b", password)


def test_signing_in_again_is_another_sign_in(site: Site) -> None:
    add_researcher(site, "anna")
    for _ in range(2):
        Visit(site).signed_in("anna")
    assert site.query("SELECT count(DISTINCT token_hash) FROM sign_ins") == [(2,)]


def test_tokens_are_long_and_random() -> None:
    tokens = {random_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(token) for token in tokens} == {43}  # 256 bits in base64url
    assert len(set("".join(tokens))) == 64
    signer = TokenSigner(SECRET)
    addresses = {signer.token_for(ConsentTicket(token, "consent")) for token in tokens}
    assert {len(address) for address in addresses} == {43}
    assert len(addresses) == 1000


def test_signed_texts_expire_and_serve_one_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    signer, link = TokenSigner(SECRET), TokenSigner(SECRET).make_link()
    ticket = signer.new_ticket("consent")
    assert ticket is not None
    signed = signer.sign_ticket(ticket)
    assert signer.read_ticket(signed) == ticket
    assert signer.read_ticket(link) is None
    assert signer.new_ticket("consent", link=signed) is None
    assert TokenSigner(SECRET[::-1]).read_ticket(signed) is None
    monkeypatch.setattr("server.identity.tokens.TICKET_SECONDS", -1)
    assert signer.read_ticket(signed) is None


def test_the_vault_opens_only_what_its_own_keys_sealed() -> None:
    old, new = new_key(), new_key()
    arrival = Arrival("A1WORKER", "an assignment")
    sealed = Vault([old]).seal(arrival)
    assert "A1WORKER" not in sealed
    assert Vault([old]).open(sealed) == arrival
    assert Vault([new]).open(sealed) is None
    assert Vault([old]).open(sealed[:-6] + "AAAA==") is None
    again = Vault([new, old]).reseal(sealed)
    assert Vault([new]).open(again) == arrival
    with pytest.raises(RootnoteError, match="ROOTNOTE_VAULT_KEY does not decrypt"):
        Vault([new]).reseal(sealed)


# ------------------------------------------------------------------ code, logs


def test_no_weak_hash_is_used() -> None:
    found = set()
    weak = re.compile(r"\b(md5|sha1|SHA1|MD5|random\.random|random\.choice|random\.randint)\b(?!-)")
    for folder in ("server", "study"):
        for path in (ROOT / folder).rglob("*.py"):
            if weak.search(ast.unparse(_without_docstrings(ast.parse(path.read_text())))):
                found.add(path.relative_to(ROOT).as_posix())
    assert found == {"server/accounts/totp.py"}, "authenticator apps support only HMAC-SHA-1 (pyotp computes it)"


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0] = ast.Pass()
    return tree


def test_a_log_line_stays_one_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines())
    record = logging.LogRecord("server.x", logging.INFO, "", 0, 'a\n{"level": "error"}\r\u2028', (), None)
    record.route = "b\nc"
    handler.emit(record)
    assert len(stream.getvalue().splitlines()) == 1
    assert json.loads(stream.getvalue())["route"] == "b\nc"


def test_the_audit_is_part_of_the_checks() -> None:
    check = re.search(r"^check:.*?(?=^\S+:)", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    assert check is not None
    assert "scripts/audit" in check[0]
    project = (ROOT / "pyproject.toml").read_text()
    for line in re.findall(r"^(?:server|s3|recruiters) = \[.*\]$", project, re.MULTILINE):
        for package in re.findall(r'"([^"]+)"', line):
            assert ">=" in package or package.startswith("rootnote["), f"{package} has no lower bound"
