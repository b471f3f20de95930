"""Requests that nobody in their right mind sends: every route, field and header, with known and hostile values.

`requests` draws them; `Target` has listeners at every step and a signed-in researcher, sends them, and says what the
server must never do: fail (5xx), show its inside, or come to a state that cannot be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st
from werkzeug.test import Client, TestResponse

from tests.server.conftest import Site, Walker
from tests.server.desk.desk_client import Visit, add_researcher

METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "BREW")
FIELDS = """
entry worker link item count answer position choice response_ms plays_x plays_a plays_b seconds_x seconds_a seconds_b
play_order focus_losses sample_rate output_latency_ms confidence confirm language lang q_device q_music q_remarks name
password form reason message page state PROLIFIC_PID STUDY_ID SESSION_ID assignmentId workerId hitId turkSubmitTo
""".split()  # noqa: SIM905 (a list of forty words is read more easily so)
VALUES = """
A B yes 1 2 3 0 -1 1-1 1-2 99 10000 999999999999 99999999999999999999 1e3 1e309 nan inf 0.1 4321 XAB ٣ ½ １ en de ar xx
../../etc/passwd %00 {{7*7}} ${7*7} <script>alert(1)</script> ' " '; -- None null true [] {} ASSIGNMENT_ID_NOT_AVAILABLE
""".split()  # noqa: SIM905
HEADERS = {
    "Range": ["bytes=0-", "bytes=-1", "bytes=5-2", "bytes=0-1,3-4", "bytes=99999999-", "lines=1-2", "bytes=x", ""],
    "Content-Type": ["application/json", "multipart/form-data", "multipart/form-data; boundary=x", "text/plain", "/"],
    "User-Agent": ["", "x" * 5000, "Mozilla/5.0 (iPhone) Safari/1", "\x80"],
    "Cookie": ["desk=x", "=;=;", "rootnote_desk=" + "a" * 300, "__Host-desk=1"],
    "Authorization": ["Bearer x", "Basic Og==", "Bearer", "Digest username="],
    "Origin": ["null", "https://evil.example", "http://localhost", "x"],
    "Sec-Fetch-Site": ["cross-site", "same-origin", "none"],
    "Accept-Language": ["de", "ar;q=0.5,en", "*", ";;q=x", "x" * 1000],
    "X-Forwarded-For": ["1.2.3.4", "x", "::1, 6.6.6.6"],
    "Host": ["evil.example", "localhost:99999", "[::1", ""],
    "If-Range": ["x", "Mon, 01 Jan 2026 00:00:00 GMT"],
    "If-None-Match": ["*", '"x"'],
    "Content-Length": ["0", "5", "99999999", "-1", "x"],
    "Transfer-Encoding": ["chunked", "x"],
    "Sec-Purpose": ["prefetch"],
}
hostile = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    "\0\r\n\t '\"<&%\x7f\x80 ", max_size=9
)
long = st.integers(1, 70_000).map(lambda length: "9" * length)


@dataclass(frozen=True)
class Sent:
    """One request before the target fills in what it knows: `known` picks among tokens, names and forms."""

    route: int
    method: str
    known: tuple[int, ...]
    parts: tuple[str, ...]
    query: dict[str, str]
    form: dict[str, str]
    raw: bytes | None
    headers: dict[str, str]
    signed_in: bool


fields = st.dictionaries(
    st.sampled_from(FIELDS) | hostile, st.sampled_from(VALUES) | st.just("KNOWN") | hostile | long, max_size=8
)
headers = st.lists(
    st.sampled_from(sorted(HEADERS)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(HEADERS[name]))),
    max_size=3,
).map(dict)
requests = st.builds(
    Sent,
    route=st.integers(0, 200),
    method=st.sampled_from(("GET", "POST")) | st.sampled_from(METHODS),
    known=st.tuples(*[st.integers(0, 1000)] * 4),
    parts=st.tuples(hostile, hostile),
    query=st.just({}) | fields,
    form=fields,
    raw=st.none() | st.none() | st.binary(max_size=200),
    headers=st.just({}) | headers,
    signed_in=st.booleans(),
)


class Target:
    """A server with somebody at every step, which takes what is sent."""

    def __init__(self, site: Site) -> None:
        self.site = site
        add_researcher(site)
        self.visit = Visit(site).signed_in()
        self.form = self.visit.form("study")
        self.anyone = Client(site.app)
        self.walkers = self._people()
        self.routes = [*sorted({rule.rule for rule in site.app.url_map.iter_rules()}), "/nothing/<token>", "//", "/%"]
        self.answered = 0

    def _people(self) -> list[Walker]:
        walkers = [self.site.walker().consent() for _ in range(6)]
        for walker in walkers[1:]:
            walker.screen()
        for walker in walkers[2:]:
            walker.hear("volume")
            walker.go("instructions")
        for walker in walkers[3:]:
            walker.hear_all()
        walkers[4].listen()
        walkers[5].listen().finish()
        return walkers

    def known(self, number: int) -> str:
        """Something that the server made: a token, a name of a sound, an entry, a form's token, a pseudonym."""
        walker = self.walkers[number % len(self.walkers)]
        kinds = (
            [walker.address.rpartition("/")[2]] * 3
            + re.findall(r"/audio/([\w-]{43})", walker.html)[:3]
            + [self.form, self.site.query("SELECT pseudonym FROM assignments ORDER BY id")[0][0]]
            + re.findall(r'name="entry" value="([^"]+)"', self.anyone.get("/take").text)
        )
        return str(kinds[number // 7 % len(kinds)])

    def send(self, sent: Sent) -> TestResponse:
        rule = self.routes[sent.route % len(self.routes)]
        names = iter((*sent.parts, *sent.known) if sent.known[2] % 5 == 0 else (*sent.known[:2], *sent.parts))
        path = re.sub(r"<[^>]+>", lambda _: self._part(next(names), sent.known[2]), rule)
        # Whoever signs out has no forms to send any more.
        client = self.visit.client if sent.signed_in and "sign-out" not in path else self.anyone
        form = {name: self.known(sent.known[3]) if value == "KNOWN" else value for name, value in sent.form.items()}
        body: dict[str, Any] = {"data": sent.raw if sent.raw is not None else form}
        if sent.signed_in and path.startswith("/desk") and sent.raw is None:
            body["data"] = {"form": self.form, **form}
        reply = client.open(path, method=sent.method, query_string=sent.query, headers=_latin(sent.headers), **body)
        self.answered += 1
        return reply

    def _part(self, given: int | str, number: int) -> str:
        if isinstance(given, int) and number % 5:
            return self.known(given)
        return quote(str(given), errors="replace") or "x"

    def check(self, reply: TestResponse, sent: Sent) -> None:
        """That nothing broke."""
        assert reply.status_code < 500 or reply.request.path == "/readyz", (reply.status_code, sent)
        for inside in (b"Traceback", b"sqlalchemy", b"werkzeug", b"psycopg", b"sqlite3"):
            assert inside not in reply.data, (inside, sent)
        assert "Content-Security-Policy" in reply.headers

    def check_state(self) -> None:
        """That what the database holds can be."""
        holders = [
            row[0] for row in self.site.query("SELECT assignment_id FROM places WHERE assignment_id IS NOT NULL")
        ]
        assert len(holders) == len(set(holders))
        finished = "SELECT id FROM assignments WHERE state IN ('finished', 'submitted', 'approved', 'paid')"
        filled = self.site.query("SELECT assignment_id FROM places WHERE filled")
        assert {row[0] for row in filled} == {row[0] for row in self.site.query(finished)}
        by_assignment: dict[int, list[int]] = {}
        for assignment, position in self.site.query("SELECT assignment_id, position FROM responses ORDER BY 1, 2"):
            by_assignment.setdefault(assignment, []).append(position)
        assert all(positions == list(range(1, len(positions) + 1)) for positions in by_assignment.values())
        assert self.site.query("SELECT count(*) FROM responses WHERE choice NOT IN ('A', 'B')")[0][0] == 0
        assert self.anyone.get("/readyz").status_code == 200
        for walker in self.walkers:
            assert self.anyone.get(walker.address).status_code == 200


def _latin(headers: dict[str, str]) -> dict[str, str]:
    return {name: value.encode("latin-1", "replace").decode("latin-1") for name, value in headers.items()}
