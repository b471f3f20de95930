"""`rootnote server` open, status, sync, approve, pay and close, as a researcher types them; and what they refuse."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from click.testing import CliRunner
from sqlalchemy import make_url, select

import rootnote
from embeddings.errors import RootnoteError
from server.app import create_app
from server.db import database
from server.db.models import Listener
from server.identity.vault import Vault, load_identity
from server.recruiting import direct_payments
from server.recruiting.marketplaces import mturk_client
from server.settings import read_settings
from server.simulation.marketplaces import turk_wire
from tests.server.conftest import SECRET, Site
from tests.server.recruiting.mturk_study import KEY, NO_PRESCREEN, MTurkStudy, make_mturk

__all__ = ["make_mturk"]
MakeMTurk = Callable[..., MTurkStudy]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run `rootnote server NAME STUDY --rehearsal …` in this process: the exit status and all that was printed."""

    def ask(
        mturk: MTurkStudy, name: str, *arguments: str, rehearsal: bool = True, **environment: str
    ) -> tuple[int, str]:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(key, raising=False)
        nowhere = dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), "/nowhere")
        given = {
            "ROOTNOTE_SECRET": SECRET,
            "ROOTNOTE_VAULT_KEY": KEY,
            "ROOTNOTE_MARKET_URL": mturk.market.url,
            "ROOTNOTE_PUBLIC_URL": "http://127.0.0.1:9",
            "ROOTNOTE_REHEARSAL_DATABASE_URL": mturk.site.database_url,
            "ROOTNOTE_DATABASE_URL": mturk.site.database_url,
            "AWS_EC2_METADATA_DISABLED": "true",
            **nowhere,
            **environment,
        }
        for key, value in given.items():
            monkeypatch.setenv(key, value)
        options = ["--rehearsal"] if rehearsal else []
        run = CliRunner().invoke(rootnote.cli, ["server", name, str(mturk.site.study.folder), *options, *arguments])
        if isinstance(run.exception, RootnoteError):
            return 1, str(run.exception)
        assert run.exception is None or isinstance(run.exception, SystemExit), run.exception
        return run.exit_code, run.output

    return ask


Ask = Callable[..., tuple[int, str]]
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def made(mturk: MTurkStudy) -> list[str]:
    return [call.operation for call in mturk.market.calls if call.operation.startswith(("Create", "Send", "Approve"))]


@pytest.mark.slow
@on_sqlite
def test_from_open_to_close(make_mturk: MakeMTurk, ask: Ask) -> None:
    mturk = make_mturk(listeners=11, trials=1, toml=NO_PRESCREEN)
    status, output = ask(mturk, "open", "--dry-run")
    assert (status, made(mturk)) == (0, [])
    assert "11 x ($1.50 + $0.30 fee) = $19.80" in output
    assert "11 would cost $23.10" in output
    assert ask(mturk, "open")[0] == 1, "without confirmation"
    assert made(mturk) == []
    status, output = ask(mturk, "open", "--yes")
    assert (status, "Opened 11 places" in output) == (0, True)
    assert "0 places" in ask(mturk, "open", "--yes")[1]
    for number in range(10):
        mturk.worker(f"A{number}").take_part().hand_in()
    lost = mturk.worker("ALOST").take_part()
    assert "approve: 10 x reward, $18.00 with fees" in ask(mturk, "sync", "--dry-run")[1]
    assert "ApproveAssignment" not in made(mturk)
    name = mturk.site.query("SELECT pseudonym FROM assignments ORDER BY id")[0][0]
    assert "Approved 1 submission." in ask(mturk, "approve", name, "--yes")[1]
    assert "Approved 9" in ask(mturk, "sync")[1]
    counted = json.loads(ask(mturk, "status", "--json")[1])
    assert counted["money"]["paid"] == "$18.00"
    assert counted["money"]["in_doubt"] == 0
    assert counted["marketplace"]["approved"] == 10
    mturk.market.abandon(lost.accepted.assignment_id)
    unlisted = ask(mturk, "sync")[1]
    waits = re.search(r"Not confirmed by Mechanical Turk: assignment ([0-9a-f]+), finished, \$1\.50\.", unlisted)
    assert waits and "Nothing is owed for it." in unlisted, "Mechanical Turk lists nobody who did not submit"
    assert "Nothing is due" in ask(mturk, "pay", "--yes")[1]
    assert ask(mturk, "confirm", waits[1])[0] == 2, "without a reason"
    assert ask(mturk, "confirm", "0000", "--reason", "wrote to us") == (
        1,
        "there is no assignment 0000; `rootnote server sync` and the desk list them.",
    )
    assert ask(mturk, "confirm", waits[1], "--reason", "wrote to us") == (0, f"Confirmed the run {waits[1]}.\n")
    assert "1 person is owed $1.50" in ask(mturk, "sync")[1]
    assert "1 x reward, $1.80" in ask(mturk, "pay", "--dry-run")[1]
    assert ask(mturk, "pay", "--yes")[1].endswith("Paid 0. Opened 1 place for payment only.\n")
    mturk.worker("ALOST").hand_in()
    bonus = ("pay", "--bonus", name, "0.25", "--reason", "Thank you.", "--yes")
    assert "the budget of $19.80 is $0.30 too low" in ask(mturk, *bonus)[1]
    assert ask(mturk, "open", "--budget", "20.10", "--yes")[0] == 0
    status, output = ask(mturk, *bonus)
    assert (status, "Paid 1." in output) == (0, True)
    assert ask(mturk, "pay", "--bonus", name, "0.25", "--reason", "Thank you.", "--yes")[0] == 1
    assert "answers" in ask(mturk, "close", "--yes")[1]
    assert mturk.cost == mturk.paid == 11 * 180 + 30
    assert mturk.market.on_hold == 0
    assert "paid" in ask(mturk, "status")[1]


@on_sqlite
def test_a_dry_run_retries_no_payment_in_unknown_state(make_mturk: MakeMTurk, ask: Ask) -> None:
    mturk = make_mturk(listeners=1, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    mturk.worker("A1").take_part().hand_in()
    mturk.sync()
    mturk.market.fail("SendBonus", 1, "fail")
    with pytest.raises(RootnoteError):
        direct_payments.pay_directly(mturk.context, 1, "bonus", 25, "Thank you.", 1)
    for name in ("pay", "sync", "close"):
        assert ask(mturk, name, "--dry-run")[0] == 0
    assert made(mturk).count("SendBonus") == 1
    assert ask(mturk, "sync")[0] == 0
    assert made(mturk).count("SendBonus") == 2
    assert mturk.cost == mturk.paid == 180 + 30


@on_sqlite
def test_bad_input_is_one_sentence_and_costs_nothing(make_mturk: MakeMTurk, ask: Ask) -> None:
    mturk = make_mturk(listeners=2, balance="3.59", toml=NO_PRESCREEN)
    market = mturk.market
    cases: list[tuple[str, Callable[[], tuple[int, str]]]] = [
        ("account has $3.59 and $3.60 are needed", lambda: ask(mturk, "open", "--yes")),
        ("no AWS credentials", lambda: ask(mturk, "open", "--yes", rehearsal=False)),
        ("another region", lambda: _refusing(mturk, ask, "InvalidSignatureException", "scoped")),
        ("account is suspended", lambda: _refusing(mturk, ask, "AWS.MechanicalTurk.Suspended")),
        ("does not know these credentials", lambda: _refusing(mturk, ask, "UnrecognizedClientException")),
        ("may not use Mechanical Turk", lambda: _refusing(mturk, ask, "AccessDeniedException")),
        ("ROOTNOTE_VAULT_KEY is not set", lambda: ask(mturk, "open", rehearsal=False, ROOTNOTE_VAULT_KEY="")),
        ("ROOTNOTE_VAULT_KEY is not a valid key", lambda: ask(mturk, "open", ROOTNOTE_VAULT_KEY="short")),
        ("ROOTNOTE_PUBLIC_URL is not set", lambda: ask(mturk, "open", "--yes", ROOTNOTE_PUBLIC_URL="")),
        ("https only", lambda: ask(mturk, "open", "--yes", ROOTNOTE_PUBLIC_URL="http://study.example.org")),
        ("elsewhere cannot reach", lambda: ask(mturk, "open", "--yes", ROOTNOTE_PUBLIC_URL="https://10.0.0.1")),
        ("not a marketplace on this machine", lambda: ask(mturk, "open", ROOTNOTE_MARKET_URL="http://example.org:1")),
        ("is not an amount", lambda: ask(mturk, "open", "--budget", "1.005")),
        ("above its budget of $1.00", lambda: ask(mturk, "open", "--budget", "1")),
        ("not launched yet", lambda: ask(mturk, "sync")),
        ("not launched yet", lambda: ask(mturk, "pay")),
        ("not launched yet", lambda: ask(mturk, "close")),
    ]
    for expected, case in cases:
        status, output = case()
        assert status == 1, expected
        assert expected in output
        assert len(output.splitlines()[-1:]) == 1 and "Traceback" not in output
    assert made(mturk) == []
    assert mturk.site.query("SELECT * FROM launch") == []
    assert str(market.balance) == "3.59"


def _refusing(mturk: MTurkStudy, ask: Ask, code: str, words: str = "") -> tuple[int, str]:
    if words:
        mturk.market.refused = lambda code: turk_wire.error(code, f"Credential should be {words} to a valid region.")  # type: ignore[method-assign]
    mturk.market.refuse(code)
    try:
        return ask(mturk, "open", "--yes")
    finally:
        mturk.market.refuse("")
        vars(mturk.market).pop("refused", None)


def test_the_sandbox_is_asked_unless_it_is_live_and_always_in_one_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_MTURK", "https://mturk-requester.us-east-1.amazonaws.com")
    for live, host in ((False, "mturk-requester-sandbox"), (True, "mturk-requester")):
        client = mturk_client.connect(live=live, endpoint="", attempts=1)
        assert client.meta.endpoint_url == f"https://{host}.us-east-1.amazonaws.com"
        assert client.meta.region_name == "us-east-1"
        client.close()


@on_sqlite
def test_a_sandbox_launch_never_turns_into_a_real_one(make_mturk: MakeMTurk, ask: Ask) -> None:
    mturk = make_mturk(listeners=1, toml=NO_PRESCREEN)
    ask(mturk, "open", "--yes")
    before = made(mturk)
    status, output = ask(mturk, "open", "--live", "--yes")
    assert (status, "this database holds a sandbox launch" in output) == (1, True)
    assert made(mturk) == before


@on_sqlite
def test_two_people_who_launch_one_study(make_mturk: MakeMTurk, ask: Ask, tmp_path: Path) -> None:
    mturk = make_mturk(listeners=1, toml=NO_PRESCREEN)
    ask(mturk, "open", "--yes")
    other = f"sqlite:///{tmp_path / 'other.sqlite3'}"
    engine = database.connect(make_url(other))
    database.migrate(engine)
    engine.dispose()
    status, output = ask(mturk, "open", "--yes", ROOTNOTE_REHEARSAL_DATABASE_URL=other)
    assert (status, "another database has launched this study" in output) == (1, True)
    assert made(mturk).count("CreateHITWithHITType") == 1


@on_sqlite
def test_a_study_edited_after_its_launch(make_mturk: MakeMTurk, ask: Ask) -> None:
    mturk = make_mturk(listeners=1, toml=NO_PRESCREEN)
    ask(mturk, "open", "--yes")
    path = mturk.site.study.folder / "study.toml"
    path.write_text(path.read_text() + "[pay]\nreward = 1.00\n")
    for name in ("open", "sync", "pay", "close"):
        status, output = ask(mturk, name, *(["--yes"] if name != "sync" else []))
        assert (status, "pay.reward in study.toml was changed after the launch" in output) == (1, True), name


def test_a_clock_that_is_wrong_and_a_service_that_is_gone() -> None:
    response = {"Error": {"Code": "InvalidSignatureException", "Message": "Signature expired: 2026 is now earlier"}}
    assert "clock is wrong" in str(mturk_client.explain(ClientError(response, "GetAccountBalance")))  # type: ignore[arg-type]
    gone = mturk_client.explain(EndpointConnectionError(endpoint_url="https://mturk-requester"))
    assert "2026-09-30" in str(gone)


@on_sqlite
def test_plain_links_are_paid_by_hand_and_recorded(make_site: Callable[..., Site], ask: Ask) -> None:
    site = make_site(listeners=2, trials=1, toml=NO_PRESCREEN)
    mturk: Any = SimpleNamespace(site=site, market=SimpleNamespace(url=""))
    walker = site.walker().consent()
    walker.go("instructions")
    walker.listen().finish()
    assert "/take" in ask(mturk, "open")[1]
    status, output = ask(mturk, "pay", "--yes")
    assert (status, walker.code in output, "$1.50  reward" in output) == (0, True, True)
    assert site.query("SELECT kind, cents, fee_cents, state FROM payments") == [("reward", 150, 0, "paid")]
    assert "Nothing is due" in ask(mturk, "pay", "--yes")[1]
    assert site.query("SELECT state FROM assignments") == [("paid",)]


@on_sqlite
def test_payments_by_hand_are_listed_only_if_the_budget_allows_them(make_site: Callable[..., Site], ask: Ask) -> None:
    site = make_site(listeners=2, trials=1, toml=NO_PRESCREEN)
    mturk: Any = SimpleNamespace(site=site, market=SimpleNamespace(url=""))
    codes = []
    for _ in range(2):
        walker = site.walker().consent()
        walker.go("instructions")
        codes.append(walker.listen().finish().code)
    assert ask(mturk, "open", "--budget", "2.00")[0] == 0
    status, output = ask(mturk, "pay", "--yes")
    assert status == 1 and "is $1.00 too low" in output
    assert not any(code in output for code in codes), "no code is listed for a payment that cannot be recorded"
    assert site.query("SELECT * FROM payments") == []
    assert ask(mturk, "open", "--budget", "3.00")[0] == 0
    assert "Paid 2." in ask(mturk, "pay", "--yes")[1]
    assert site.query("SELECT cents, state FROM payments") == [(150, "paid")] * 2


@on_sqlite
def test_the_vault_key_is_rotated_and_not_dropped_too_early(
    make_mturk: MakeMTurk, monkeypatch: pytest.MonkeyPatch
) -> None:
    mturk = make_mturk(listeners=2, toml=NO_PRESCREEN)
    mturk.launch()
    mturk.worker("A1").agree()
    new = CliRunner().invoke(rootnote.cli, ["server", "vault", "new-key"]).output.strip()
    folder = str(mturk.site.study.folder)
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", mturk.site.database_url)
    monkeypatch.setenv("ROOTNOTE_VAULT_KEY", f"{new},{KEY}")
    rotated = CliRunner().invoke(rootnote.cli, ["server", "vault", "rotate", folder]).output
    assert "1 entry of 1 had another key" in rotated
    assert "then run this command again" in rotated
    # A server that still runs with the old key encrypts the next worker's id with it.
    mturk.worker("A2").agree()
    monkeypatch.setenv("ROOTNOTE_VAULT_KEY", new)
    server_settings = read_settings(mturk.site.study, os.environ)
    with pytest.raises(RootnoteError, match="does not decrypt 1 of 2 identities"):
        create_app(mturk.site.study, server_settings)
    monkeypatch.setenv("ROOTNOTE_VAULT_KEY", f"{new},{KEY}")
    for said in ("1 entry of 2 had another key", "you can now remove the other keys"):
        assert said in CliRunner().invoke(rootnote.cli, ["server", "vault", "rotate", folder]).output
    with mturk.context.reading() as session:
        listener = session.scalars(select(Listener).order_by(Listener.id)).first()
        assert listener is not None
        found = load_identity(session, Vault([new]), listener)
        assert found is not None and found.worker == "A1"
        with pytest.raises(RootnoteError, match="ROOTNOTE_VAULT_KEY does not decrypt"):
            load_identity(session, Vault([KEY]), listener)


def test_marketplaces_are_listed() -> None:
    output = CliRunner().invoke(rootnote.cli, ["study", "recruiters"]).output
    assert "link" in output and "Mechanical Turk" in output
