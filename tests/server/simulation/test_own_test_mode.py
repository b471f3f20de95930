"""`rootnote server rehearse --prolific-test`: a launch with a test participant on the local Prolific, at no cost."""

from __future__ import annotations

import os
import threading
import time

import pytest

from embeddings.errors import RootnoteError
from server.simulation.bots import ResponseModel, SimulatedListener, StimulusLookup
from server.simulation.server_process import own_server
from study.config import load_study
from study.trial_plan import read_plan
from tests.server.recruiting.typed_commands import Launched, launched

__all__ = ["launched"]
EMAIL = "tester@example.org"
CALM = {"fail_prescreen": 0.0, "abandon": 0.0, "reload": 0.0, "double_submit": 0.0}


def take_test_study(launch: Launched) -> None:
    """What the test participant does in a browser."""
    market, study = launch.market, load_study(launch.folder)
    until = time.monotonic() + 30
    while not (found := [one.id for one in list(market.state.studies.values()) if one.test]):
        assert time.monotonic() < until, "no test study"
        time.sleep(0.05)
    [who] = [one.id for one in market.participants if one.test]
    held = market.take(who, found[0])
    model = ResponseModel(study.config.rehearsal.model_copy(update=CALM), {})
    listener = SimulatedListener(
        "", 0, 1, StimulusLookup(read_plan(study), study.config.questions), model, start_url=held.external_url
    )
    assert listener.take_study().outcome == "finished"
    back = listener.page.back
    assert back is not None
    market.complete(held.submission_id, back.action.partition("cc=")[2])


@pytest.mark.slow
def test_a_test_participant_takes_the_study_at_no_cost(
    launched: Launched,
) -> None:
    with own_server(load_study(launched.folder), {**os.environ, **launched.environment}) as address:
        launched.environment["ROOTNOTE_PUBLIC_URL"] = address
        launched.market.state.features -= {"test_studies"}
        with pytest.raises(RootnoteError, match="without it, run a pilot of a few listeners"):
            launched.type("rehearse", "--prolific-test", EMAIL, rehearsal=False)
        assert launched.market.state.studies == {}
        launched.market.state.features |= {"test_studies"}
        browser = threading.Thread(target=take_test_study, args=(launched,))
        browser.start()
        output = launched.type("rehearse", "--prolific-test", EMAIL, rehearsal=False)
        browser.join()
        assert f"{EMAIL} is a test participant." in output
        assert "approved 1 submission" in output and "The test launch is over." in output
        [study] = launched.market.state.studies.values()
        assert (study.test, study.status) == (True, "COMPLETED")
        assert launched.market.ledger() == () and launched.market.on_hold == 0
        assert launched.query("SELECT state FROM assignments") == [("paid",)]
        with pytest.raises(RootnoteError, match="holds a launch already"):
            launched.type("rehearse", "--prolific-test", EMAIL, rehearsal=False)
