"""A node whose reasoner is on a server: every fault is one result in time, and no key anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("openai")

from diagnostic_msgs.msg import DiagnosticArray

from segzero_core.checkpoints.description import BUILT_IN
from segzero_core.reasoner.fallback import NamedReasoner
from segzero_core.reasoner.remote import API_KEY_VARIABLE, RemoteReasoner
from segzero_core.reasoner.server_address import ServerAddress
from segzero_core.reasoner.server_client import ServerLimits
from segzero_core.testing.fakes import FakeEncoder, ScriptedReasoner
from segzero_core.types import ModelIdentity
from segzero_ros.msg import SegmentationResult
from tests.core.reasoner.fault_server import Connection, FaultServer, Script, event, silent
from tests.ros.scripted import SIZE_WH, TWO_OBJECTS, pipeline_of

KEY = "sk-very-secret-0123456789"
DESCRIPTION = BUILT_IN["Ricky06662/VisionReasoner-7B"]
LIMITS = ServerLimits(connect_s=1.0, first_token_s=0.5, stall_s=0.5, total_s=4.0, retries=0)
FAILED = SegmentationResult.MODEL_FAILURE


def page(status: int, **headers: str) -> Script:
    """An error page of a server that repeats what it was sent."""

    def script(connection: Connection) -> None:
        text = f"no, {connection.headers['authorization']}"
        connection.json(status, {"error": {"message": text}}, **headers)

    return script


def cut(connection: Connection) -> None:
    connection.head()
    connection.send(event("<think>a m"))


FAULTS: dict[str, tuple[Script, int, str]] = {
    "401": (page(401), FAILED, "refused the key"),
    "404": (page(404), FAILED, "does not serve"),
    "429": (page(429, retry_after="0"), FAILED, "answered 429"),
    "500": (page(500), FAILED, "answered 500"),
    "redirect": (page(307, location=f"http://127.0.0.1:9/{KEY}"), FAILED, "not followed"),
    "cut": (cut, FAILED, "closed the connection"),
    "slow": (silent(20.0), FAILED, "sent nothing for 0.5 s"),
    "prose": (
        lambda connection: connection.stream(["I do not know."]),
        SegmentationResult.UNUSABLE_ANSWER,
        "no <answer>",
    ),
    "answer": (lambda connection: connection.stream([TWO_OBJECTS]), SegmentationResult.OK, ""),
}


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RemoteReasoner]]:
    """Make a reasoner on a server of scripts."""
    monkeypatch.setenv(API_KEY_VARIABLE, KEY)
    opened: list[Any] = []

    def make(*scripts: Script) -> RemoteReasoner:
        server = FaultServer(*scripts).__enter__()
        reasoner = RemoteReasoner(ServerAddress.parse(f"{server.url}#m"), DESCRIPTION, LIMITS)
        opened.append((server, reasoner))
        return reasoner

    yield make
    for server, reasoner in opened:
        reasoner.close()
        server.__exit__(None, None, None)


def test_every_fault_is_one_result_and_the_key_stands_nowhere(
    start_node: Callable[..., Any],
    client: Any,
    remote: Callable[..., RemoteReasoner],
    capfd: pytest.CaptureFixture[str],
) -> None:
    client.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda msg: client.heard.add("diagnostics", msg), 10
    )
    reasoner = remote(*(script for script, _, _ in FAULTS.values()))
    node = start_node(pipeline_of(reasoner, FakeEncoder()), timeout_s=20.0)
    client.connect()
    client.send_image(node, SIZE_WH)

    for name, (_, code, words) in FAULTS.items():
        result = client.ask_and_wait(f"the mug, {name}", code)
        assert words in result.error_msg
        assert "\n" not in result.error_msg
        assert result.answered_by == ("scripted" if code == SegmentationResult.OK else "")

    results = client.heard.all("result")
    assert [result.query for result in results] == [f"the mug, {name}" for name in FAULTS]
    reported = client.heard.wait("diagnostics", lambda msg: "answered" in str(msg))
    logged = "".join(capfd.readouterr())
    assert "Traceback" not in logged
    heard = str([client.heard.all(topic) for topic in (*client.TOPICS, "diagnostics")])
    for text in (logged, heard, str(reported)):
        assert KEY not in text


def test_what_a_server_cannot_answer_the_fallback_does(
    start_node: Callable[..., Any], client: Any, remote: Callable[..., RemoteReasoner]
) -> None:
    local = NamedReasoner(ModelIdentity("local", "1" * 16, "fake"), ScriptedReasoner(TWO_OBJECTS))
    pipeline = pipeline_of(remote(page(401), page(500), silent(20.0)), FakeEncoder())
    node = start_node(replace(pipeline, fallbacks=(local,)), timeout_s=20.0)
    client.connect()
    client.send_image(node, SIZE_WH)

    for number in range(4):
        result = client.ask_and_wait(f"the mug, {number}", SegmentationResult.OK)
        assert result.answered_by == "local"
