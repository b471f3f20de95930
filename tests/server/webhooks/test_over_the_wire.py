"""Events from the local Prolific to a real server: subscribed by the command, signed, and acted on within seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import pytest

from embeddings.errors import RootnoteError
from server.simulation.page_parser import read_page
from server.simulation.server_process import own_server
from study.config import load_study
from tests.server.recruiting.typed_commands import Launched, launched

__all__ = ["launched"]

WITHIN_SECONDS = 5.0


def soon(condition: Callable[[], bool], seconds: float = WITHIN_SECONDS) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def consent(address: str) -> None:
    page = read_page(httpx.get(address, follow_redirects=True).text)
    form = next(form for form in page.forms if form.action.endswith("/take"))
    reply = httpx.post(str(httpx.URL(address).join(form.action)), data=form.fields, follow_redirects=True)
    assert reply.status_code == 200


@pytest.mark.slow
def test_a_returned_place_is_free_within_five_seconds(launched: Launched) -> None:
    market, environment = launched.market, launched.environment
    with pytest.raises(RootnoteError, match="ROOTNOTE_WEBHOOK_SECRET is not set"):
        launched.type("webhooks")
    environment["ROOTNOTE_WEBHOOK_SECRET"] = launched.type("webhooks", "--secret").strip()
    with own_server(load_study(launched.folder), {**os.environ, **environment}) as address:
        environment["ROOTNOTE_PUBLIC_URL"] = address
        right = environment["ROOTNOTE_WEBHOOK_SECRET"]
        with pytest.raises(RootnoteError, match="is not the secret of the workspace"):
            environment["ROOTNOTE_WEBHOOK_SECRET"] = "wrong"
            launched.type("webhooks")
        environment["ROOTNOTE_WEBHOOK_SECRET"] = right
        launched.type("open", "--yes")
        for _ in range(2):
            assert f"Prolific sends to {address}/hooks/prolific" in launched.type("webhooks")
        assert [one.is_enabled for one in market.hooks.subscriptions.values()] == [True, True]
        market.participants.add("b" * 24)
        [study] = [one for one, found in market.state.studies.items() if found.status == "ACTIVE"]
        held = market.take("b" * 24, study)
        consent(held.external_url)
        unseen = "SELECT count(*) FROM webhook_events WHERE handled_at IS NULL"
        taken = "SELECT count(*) FROM places WHERE assignment_id IS NOT NULL"
        assert launched.query(taken) == [(1,)]
        command = [sys.executable, "-m", "rootnote", "server", "sync", str(launched.folder), "--rehearsal"]
        watch = subprocess.Popen([*command, "--watch", "--every", "600"], env={**os.environ, **environment})
        try:
            assert soon(lambda: launched.calls("ListSubmissions") > 0, 30), "the first pass"
            assert soon(lambda: launched.query(unseen) == [(0,)])
            before = launched.calls("ListSubmissions")
            market.return_(held.submission_id)
            assert soon(lambda: launched.query(taken) == [(0,)]), "the server frees the place by itself"
            assert soon(lambda: launched.calls("ListSubmissions") > before), "and the watch looks at once"
        finally:
            watch.terminate()
            assert watch.wait(10) == 0
        assert "Prolific sends no more events." in launched.type("webhooks", "--off")
        assert market.hooks.subscriptions == {}
