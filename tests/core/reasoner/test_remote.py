"""A reasoner on a server: what is sent, what is read, and what every fault of a server becomes."""

from __future__ import annotations

import base64
import io
import logging
import re
import shutil
import ssl
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segzero_core import CancelledError, ConfigError, ModelLoadError, RgbImage, parse_completion
from segzero_core.checkpoints.description import BUILT_IN, ModelDescription
from segzero_core.reasoner.image_tokens import QWEN2_5_VL, QWEN3_VL, ImageTokens
from segzero_core.reasoner.remote import API_KEY_VARIABLE, RemoteReasoner
from segzero_core.reasoner.server_address import ServerAddress
from segzero_core.reasoner.server_client import ServerLimits
from segzero_core.reasoner.server_reply import ServerError
from tests.core.reasoner.fault_server import (
    DONE,
    Connection,
    FaultServer,
    Script,
    endless,
    event,
    silent,
)

DESCRIPTION = BUILT_IN["Ricky06662/VisionReasoner-7B"]
ANSWER = '[{"bbox_2d": [1, 2, 30, 40], "point_2d": [5, 6]}]'
REPLY = f"<think>a mug</think><answer>{ANSWER}</answer>"
QUICK = ServerLimits(connect_s=1.0, first_token_s=1.0, stall_s=1.0, total_s=8.0, reply_chars=2000)
KEY = "sk-very-secret-0123456789"

Ask = Callable[..., str]


@pytest.fixture
def image() -> RgbImage:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture
def start(image: RgbImage) -> Iterator[Callable[..., tuple[FaultServer, RemoteReasoner]]]:
    """Start a server of scripts and a reasoner that asks it."""
    opened: list[Any] = []

    def make(
        *scripts: Script,
        limits: ServerLimits = QUICK,
        name: str = "m",
        description: ModelDescription = DESCRIPTION,
        **options: Any,
    ) -> tuple[FaultServer, RemoteReasoner]:
        server = FaultServer(*scripts).__enter__()
        address = ServerAddress.parse(f"{server.url}#{name}")
        reasoner = RemoteReasoner(address, description, limits, **options)
        opened.append((server, reasoner))
        return server, reasoner

    yield make
    for server, reasoner in opened:
        reasoner.close()
        server.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def key_is_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Every test of this file has a key, which must not stand in any log."""
    monkeypatch.setenv(API_KEY_VARIABLE, KEY)
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text


def whole(reasoner: RemoteReasoner, image: RgbImage, query: str = "the mug") -> str:
    return "".join(reasoner.stream(image, query))


def says(*texts: str, finish_reason: str = "stop") -> Script:
    return lambda connection: connection.stream(texts, finish_reason)


def test_the_reply_comes_as_it_is_sent(start: Any, image: RgbImage) -> None:
    _, reasoner = start(says(*REPLY))

    chunks = list(reasoner.stream(image, "the mug"))

    assert len(chunks) > 20
    assert parse_completion("".join(chunks)).prompts[0].box.xyxy == (1, 2, 30, 40)


def test_the_request_has_the_seen_image_first_and_is_greedy(start: Any, image: RgbImage) -> None:
    server, reasoner = start(says(REPLY), name="org/some-model")
    whole(reasoner, image)

    asked = server.connections[0].request
    image_part, text_part = asked["messages"][0]["content"]
    kind, _, data = image_part["image_url"]["url"].partition(",")
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (kind, sent.format, sent.size) == ("data:image/png;base64", "PNG", (840, 840))
    assert "the mug" in text_part["text"]
    assert asked["model"] == "org/some-model"
    assert (asked["temperature"], asked["top_p"], asked["stream"]) == (0, 1, True)
    assert asked["max_completion_tokens"] == DESCRIPTION.max_new_tokens


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thoughts_that_come_on_their_own_get_their_tags(
    start: Any, image: RgbImage, field: str
) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(event(**{field: "a "}) + event(**{field: "mug"}))
        connection.send(event(f"<answer>{ANSWER}</answer>") + event(finish_reason="stop") + DONE)

    _, reasoner = start(script)

    assert whole(reasoner, image) == REPLY


@pytest.mark.parametrize(
    ("events", "reply"),
    [
        ([event("a "), event("mug</think>[]")], "<think>a mug</think>[]"),
        ([event("<think>a mug</think>[]")], "<think>a mug</think>[]"),
        ([event(reasoning="a mug"), event("[]")], "<think>a mug</think>[]"),
    ],
    ids=["opened by the template", "opened by the model", "on its own"],
)
def test_thinking_that_the_template_opens_gets_its_tag(
    start: Any, image: RgbImage, events: list[bytes], reply: str
) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"".join(events) + event(finish_reason="stop") + DONE)

    described = BUILT_IN["Qwen/Qwen3-VL-2B-Thinking"]
    _, reasoner = start(script, description=described)

    assert whole(reasoner, image) == reply


def test_the_closing_tag_that_stopped_the_server_is_put_back(start: Any, image: RgbImage) -> None:
    _, reasoner = start(says(REPLY.removesuffix("</answer>")))

    assert whole(reasoner, image) == REPLY


def test_a_reply_at_its_token_limit_stays_cut(start: Any, image: RgbImage) -> None:
    cut = REPLY.removesuffix("</answer>")
    _, reasoner = start(says(cut, finish_reason="length"))

    assert whole(reasoner, image) == cut


def test_what_follows_the_first_answer_is_left_out(start: Any, image: RgbImage) -> None:
    _, reasoner = start(says(REPLY[:30], f"{REPLY[30:]} and {REPLY}", REPLY))

    assert whole(reasoner, image) == REPLY


def test_an_answer_ends_the_reply_though_the_server_goes_on(start: Any, image: RgbImage) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(event(REPLY))
        if connection.wait_until_closed(10.0):
            connection.closed_by_client.set()

    server, reasoner = start(script)

    assert whole(reasoner, image) == REPLY
    assert server.connections[0].closed_by_client.wait(5.0)


def error_page(status: int, text: str = "no", **headers: str) -> Script:
    return lambda connection: connection.json(status, {"error": {"message": text}}, **headers)


def raw(data: bytes, kind: str = "text/event-stream") -> Script:
    def script(connection: Connection) -> None:
        connection.head(kind=kind)
        connection.send(data)

    return script


def redirect(connection: Connection) -> None:
    connection.json(307, {}, location="http://127.0.0.1:9/v1/chat/completions")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param(error_page(401, "bad key"), "refused the key .401.", id="401"),
        pytest.param(error_page(404, "no such model"), "does not serve 'm'", id="404"),
        pytest.param(error_page(400, "image too large"), "answered 400: .*too large", id="400"),
        pytest.param(error_page(500, "boom"), "answered 500", id="500"),
        pytest.param(error_page(500, f"Bearer {KEY}"), r"answered 500: .*\[key\]", id="echo"),
        pytest.param(raw(f"data: {KEY}\n\n".encode()), "server", id="garbage that echoes"),
        pytest.param(redirect, "redirects are not followed", id="redirect"),
        pytest.param(raw(b"<html>", "text/html"), "in place of a stream", id="content type"),
        pytest.param(raw(b"data: {garbage\n\n"), "server", id="garbage"),
        pytest.param(raw(b"data: [1, 2]\n\n"), "server", id="another JSON"),
        pytest.param(raw(b'data: {"error": {"message": "worker died"}}\n\n'), "died", id="error"),
        pytest.param(raw(DONE), "closed the connection|empty", id="nothing"),
        pytest.param(raw(event("<think>a m")), "closed the connection", id="cut in a token"),
        pytest.param(says(""), "empty reply", id="empty"),
        pytest.param(endless("a mug and "), "longer than", id="endless"),
        pytest.param(silent(20.0), "nothing for 1 s", id="slow first byte"),
        pytest.param(lambda connection: None, "cannot be reached or broke off", id="hangs up"),
    ],
)
def test_a_fault_of_the_server_is_one_error_in_time(
    start: Any, image: RgbImage, script: Script, words: str
) -> None:
    _, reasoner = start(script)
    started = time.monotonic()

    with pytest.raises(ServerError, match=words) as caught:
        whole(reasoner, image)
    assert "\n" not in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert time.monotonic() - started < 15.0


def test_a_server_that_falls_silent_within_its_reply_is_an_error(
    start: Any, image: RgbImage
) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(event("<think>a m"))
        connection.wait_until_closed(20.0)

    _, reasoner = start(script)

    with pytest.raises(ServerError) as caught:
        whole(reasoner, image)
    assert caught.value.completion == "<think>a m"


def test_nobody_at_the_port_is_an_error(image: RgbImage) -> None:
    with FaultServer(says(REPLY)) as server:
        url = server.url
    reasoner = RemoteReasoner(ServerAddress.parse(f"{url}#m"), DESCRIPTION, QUICK)

    with pytest.raises(ServerError, match="cannot be reached"):
        whole(reasoner, image)
    reasoner.close()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_request_is_repeated_where_nothing_has_come(
    start: Any, image: RgbImage, status: int
) -> None:
    server, reasoner = start(error_page(status, retry_after="0.1"), says(REPLY))

    assert whole(reasoner, image) == REPLY
    assert len(server.connections) == 2


def test_a_wait_beyond_the_limit_is_not_begun(start: Any, image: RgbImage) -> None:
    server, reasoner = start(error_page(429, retry_after="600"), says(REPLY))
    started = time.monotonic()

    with pytest.raises(ServerError, match="answered 429"):
        whole(reasoner, image)
    assert time.monotonic() - started < QUICK.total_s
    assert len(server.connections) == 1


def test_a_reply_that_has_begun_is_not_repeated(start: Any, image: RgbImage) -> None:
    server, reasoner = start(raw(event("<think>a m")), says(REPLY))

    with pytest.raises(ServerError):
        whole(reasoner, image)
    assert len(server.connections) == 1


def test_cancelling_closes_the_connection(start: Any, image: RgbImage) -> None:
    cancel = threading.Event()

    def script(connection: Connection) -> None:
        cancel.set()
        silent(20.0)(connection)

    server, reasoner = start(script, limits=ServerLimits())

    with pytest.raises(CancelledError):
        list(reasoner.stream(image, "the mug", cancel=cancel))
    assert server.connections[0].closed_by_client.wait(5.0)


def test_closing_the_reply_closes_the_connection(start: Any, image: RgbImage) -> None:
    server, reasoner = start(endless("a mug and "))
    chunks = reasoner.stream(image, "the mug")
    next(chunks)

    chunks.close()  # type: ignore[attr-defined]

    assert server.connections[0].closed_by_client.wait(5.0)


def test_replies_run_beside_each_other(start: Any, image: RgbImage) -> None:
    together = threading.Barrier(4, timeout=10.0)

    def script(connection: Connection) -> None:
        together.wait()
        connection.stream([REPLY])

    _, reasoner = start(script, limits=ServerLimits())
    replies: list[str] = []
    threads = [
        threading.Thread(target=lambda: replies.append(whole(reasoner, image))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)

    assert replies == [REPLY] * 4


def test_a_certificate_that_does_not_fit_is_refused_before_the_key_is_sent(
    image: RgbImage, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=elsewhere", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with FaultServer(says(REPLY), tls=context) as server:
        address = ServerAddress.parse(f"{server.url}#m")
        assert address.url.startswith("https://")
        reasoner = RemoteReasoner(address, DESCRIPTION, QUICK)

        with pytest.raises(ServerError, match=r"(?i)certificate"):
            whole(reasoner, image)
        assert server.connections == []
        reasoner.close()


def test_the_key_is_sent_and_reported_nowhere(
    start: Any, image: RgbImage, caplog: pytest.LogCaptureFixture
) -> None:
    def echo(connection: Connection) -> None:
        connection.json(401, {"error": {"message": f"bad {connection.headers['authorization']}"}})

    server, reasoner = start(echo)

    with pytest.raises(ServerError) as caught:
        whole(reasoner, image)
    assert server.connections[0].headers["authorization"] == f"Bearer {KEY}"
    reported = f"{caught.value} {caught.value!r} {caplog.text} {reasoner!r} {reasoner.address}"
    assert KEY not in reported


def counting(**counts: int) -> Script:
    """Answer with the prompt tokens of an image by its width."""

    def script(connection: Connection) -> None:
        if not connection.request:
            connection.json(404, {})  # the list of models
            return
        url = connection.request["messages"][0]["content"][0]["image_url"]["url"]
        sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        tokens = counts.get(f"w{sent.width}", counts.get("default", 0))
        message = {"role": "assistant", "content": "a"}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
        fields = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        connection.json(200, {**fields, "choices": [choice], "usage": usage})

    return script


def lists(owner: str) -> Script:
    """Answer with the list of models."""
    model = {"id": "m", "object": "model", "created": 0, "owned_by": owner}
    return lambda connection: connection.json(200, {"object": "list", "data": [model]})


@pytest.mark.parametrize(
    ("owner", "stop"), [("vllm", ["</answer>"]), ("llamacpp", ["</answer>"]), ("somebody", None)]
)
def test_only_a_server_that_is_known_gets_more_than_the_common_fields(
    start: Any, image: RgbImage, owner: str, stop: list[str] | None
) -> None:
    count = counting(w840=930, w210=94)
    server, reasoner = start(lists(owner), count, count, says(REPLY))
    reasoner.check(QWEN2_5_VL)
    whole(reasoner, image)

    asked = server.connections[-1].request
    assert asked.get("stop") == stop
    assert asked.get("include_stop_str_in_output") == (True if owner == "vllm" else None)


@pytest.mark.parametrize(("owner", "field"), [("vllm", "structured_outputs"), ("sglang", "regex")])
def test_structured_output_is_asked_for_as_the_server_takes_it(
    start: Any, image: RgbImage, owner: str, field: str
) -> None:
    count = counting(w840=930, w210=94)
    server, reasoner = start(lists(owner), count, count, says(REPLY), structured=True)
    reasoner.check(QWEN2_5_VL)
    whole(reasoner, image)

    asked = server.connections[-1].request
    regex = asked[field] if owner == "sglang" else asked[field]["regex"]
    assert re.fullmatch(regex, REPLY)
    assert asked["repetition_penalty"] == 1.0


def test_structured_output_of_an_unknown_server_is_refused(start: Any) -> None:
    _, reasoner = start(lists("somebody"), structured=True)

    with pytest.raises(ConfigError, match="structured output is known"):
        reasoner.check(QWEN2_5_VL)


def test_a_server_that_sees_the_sizes_as_sent_passes(start: Any) -> None:
    server, reasoner = start(counting(w840=930, w210=30 + 64))

    reasoner.check(ImageTokens(28, 3_136, 12_845_056))
    assert len(server.connections) == 3  # its models, and both images


def test_a_connection_that_breaks_during_the_check_is_made_again(start: Any) -> None:
    count = counting(w840=930, w210=94)
    server, reasoner = start(count, lambda connection: None, count)

    reasoner.check(QWEN2_5_VL)
    assert len(server.connections) == 4  # its models, one that broke, and both images


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param(counting(default=500), r"must differ by 836 .* counts 0", id="resizes"),
        pytest.param(counting(w840=1024, w210=94), "counts 930", id="enlarges"),
        pytest.param(error_page(404), "does not serve", id="another model"),
        pytest.param(error_page(401), "refused the key", id="key"),
    ],
)
def test_a_server_that_resizes_is_refused_with_both_numbers(
    start: Any, script: Script, words: str
) -> None:
    _, reasoner = start(script)

    with pytest.raises(ModelLoadError, match=words):
        reasoner.check(QWEN2_5_VL)


def test_the_rules_of_both_families() -> None:
    assert QWEN2_5_VL.count((840, 840)) - QWEN2_5_VL.count((56, 56)) == 896
    assert QWEN3_VL.count((1024, 1024)) - QWEN3_VL.count((256, 256)) == 960
    assert QWEN3_VL.count((840, 840)) == 676  # 832x832


def test_limits_are_numbers_of_seconds() -> None:
    with pytest.raises(ConfigError, match="first_token_s"):
        ServerLimits(first_token_s=float("nan"))
