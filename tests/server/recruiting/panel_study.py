"""A study whose listeners come from a panel by link, and a server of that panel on this machine."""

from __future__ import annotations

import contextlib
import html
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

from server.identity.vault import new_key
from tests.commands import run
from tests.server.conftest import SECRET, Site, Walker

KEY = new_key()
GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "panel-by-link.md"
QUIET = '[prescreen]\nsteps = []\n[recruiter]\nkind = "link"\n'
TONES = QUIET.replace("[]", '["tones"]') + "[prescreen.tones]\nattempts = 1\n"


def recipe(heading: str) -> str:
    """The settings under a heading of the documentation."""
    part = GUIDE.read_text("utf-8").split(f"\n### {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    found = re.search(r"```toml\n(.*?)```", part, re.DOTALL)
    assert found, heading
    return found[1]


def environment_of(site: Site) -> dict[str, str]:
    """The variables with which commands work on the site's database."""
    return {
        "ROOTNOTE_SECRET": SECRET,
        "ROOTNOTE_VAULT_KEY": KEY,
        "ROOTNOTE_DATABASE_URL": site.database_url,
        "ROOTNOTE_PUBLIC_URL": "https://study.example.org",
        "LOGNAME": "researcher",
    }


def command(site: Site, *words: str) -> str:
    """Run `rootnote server …` on the site's study and database; its output."""
    done = run("server", words[0], site.study.folder, *words[1:], environment=environment_of(site))
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Panelist(Walker):
    """A person whom a panel sends."""

    sent: dict[str, str] = field(default_factory=dict)

    def come(self, **sent: str) -> Panelist:
        """Arrive with the panel's parameters."""
        self.sent = sent or self.sent
        self.page = self.client.get("/take?" + urlencode(self.sent))
        if self.page.status_code == 303:
            self.address = str(self.page.location)
            self.reload()
        return self

    def agree(self) -> Panelist:
        names = [name for name in ("entry", "arrival", "lang") if f'name="{name}"' in self.html]
        reply = self.client.post("/take", data={name: self.find(rf'name="{name}" value="([^"]*)"') for name in names})
        if reply.status_code == 303:
            self.address = str(reply.location)
            self.reload()
        else:
            self.page = reply
        return self

    def complete(self) -> Panelist:
        """Consent and take the whole study."""
        if self.step == "consent":
            self.agree()
        if self.step == "prescreen":
            self.screen()
        self.go("instructions").listen().finish()
        return self

    @property
    def back(self) -> str:
        """The address of the button that leads back to the panel; empty if there is none."""
        found = re.search(r'href="([^"]+)" data-back', self.html)
        return html.unescape(found[1]) if found else ""

    @property
    def panel_code(self) -> str:
        found = re.search(r"<code data-panel-code>([\w-]+)</code>", self.html)
        return found[1] if found else ""


@dataclass
class PanelServer:
    """A panel's server: the paths it was asked for, and the statuses it answers with (the last one for ever)."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=lambda: [200])

    def answer(self, path: str) -> int:
        self.asked.append(path)
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


@contextlib.contextmanager
def panel_server() -> Iterator[PanelServer]:
    """Run a panel's server; status 0 breaks the connection without an answer."""
    panel = PanelServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status := panel.answer(self.path):
                body = b"<!doctype html><title>Panel</title><h1>Welcome back</h1>"
                self.send_response(status)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            else:
                self.connection.close()

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        panel.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield panel
        finally:
            server.shutdown()
            thread.join()
