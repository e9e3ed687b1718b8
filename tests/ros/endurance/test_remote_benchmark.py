"""The benchmark of a remote reasoner: a server that is killed costs no query its one result."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("openai")

from benchmarks import remote
from benchmarks.serving import Server


@pytest.mark.slow
def test_every_query_ends_in_one_result_however_often_the_server_is_killed(
    own_domain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ROBOTS", 2)
    with Server(scripted=True, chunk_s=0.003) as server:
        figures = remote.restart(server, 2)

    assert figures["restarts"] == 2
    assert figures["with_one_result"] == figures["queries"] > 0
    assert "0" in figures["codes"]


def test_a_reply_that_is_stopped_is_abandoned_by_the_server() -> None:
    with Server(scripted=True, chunk_s=0.01) as server:
        figures = remote.cancel(server, 2)
        counts = server.counts()

    assert figures["cancelled"] == 2
    assert counts["asked"] == counts["answered"] + counts["abandoned"] == 7
    # A reply that came whole may be left before the server has closed it.
    assert counts["abandoned"] >= 2
