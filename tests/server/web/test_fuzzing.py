"""No request makes the server fail, show its inside or come to a state that cannot be; 10,000: benchmarks/fuzz.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.conftest import Site
from tests.server.web.fuzzing import Sent, Target, requests


@pytest.mark.both_databases
@pytest.mark.slow
def test_nothing_that_is_sent_breaks_anything(make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.web.rate_limits.TOKEN_BURST", 1e9)  # else most were turned away unread
    target = Target(make_site(listeners=12, settings={"requests_per_second": 0}))

    @settings(max_examples=15, deadline=None, database=None)
    @given(st.lists(requests, min_size=5, max_size=15))
    def send_all(many: list[Sent]) -> None:
        for sent in many:
            target.check(target.send(sent), sent)
        target.check_state()

    send_all()
    assert target.answered >= 100
