"""The page's server: answers as events, several visitors, and everything that is refused."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segzero_cli.web import fair_queue
from segzero_cli.web.app import VISITOR_HEADER
from segzero_cli.web.examples import load_examples
from segzero_cli.web.uploads import MAX_UPLOAD_BYTES
from segzero_core.errors import ReasoningError
from segzero_core.pipeline import SegZero
from segzero_core.testing.fakes import BoxSegmenter, FakeEncoder, fake_description
from segzero_core.types import ModelIdentity
from tests.cli.web.conftest import TIMEOUT_S, Reply, Served, parse, png
from tests.ros.scripted import NOTHING, THINKING, TWO_OBJECTS

ORIENTATION = 274
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


def wait_until(condition: Callable[[], Any]) -> None:
    pause, deadline = threading.Event(), time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        pause.wait(0.01)


def questions(server: Served) -> int:
    return json.loads(server.send("GET", "/api/status").body)["questions"]


def test_the_answer_comes_as_events_in_the_order_of_the_core(serve: Callable) -> None:
    reply = serve().ask("the%20red%20mug")
    names = [name for name, _ in reply.events]

    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "".join(data["text"] for data in reply.named("thinking")) == THINKING
    assert names.index("started") < names.index("thinking") < names.index("object")
    assert names.index("object") < names.index("mask") < names.index("done")
    done = reply.named("done")[0]
    assert done["query"] == "the red mug"
    assert done["size_wh"] == [100, 100]
    assert [each["box_xyxy"] for each in done["objects"]] == [[10, 10, 30, 40], [50, 60, 90, 95]]


def test_a_mask_is_a_png_at_its_place(serve: Callable) -> None:
    mask = serve().ask().named("mask")[0]
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(mask["png"]))))

    assert mask["offset_xy"] == [10, 10]
    assert pixels.shape == (30, 20)
    assert (pixels == 255).sum() == mask["area_px"] == 600


def test_nothing_found_is_an_answer(serve: Callable) -> None:
    reply = serve(NOTHING).ask("fruit")

    assert reply.named("done")[0]["objects"] == []
    assert reply.named("object") == []


def test_an_error_is_a_sentence_and_the_next_question_is_answered(serve: Callable) -> None:
    server = serve([ReasoningError("the reasoner is down; start it"), TWO_OBJECTS])

    assert server.ask().named("error") == [{"message": "the reasoner is down; start it"}]
    assert len(server.ask().named("done")) == 1


class Broken:
    """A model with a defect."""

    name, is_robot, state = "scripted", False, "ready"

    def prepare(self) -> None: ...

    def answer(self, question: Any, cancel: threading.Event) -> Any:
        raise KeyError("lost")
        yield


def test_a_defect_is_a_sentence_too(serve: Callable, caplog: pytest.LogCaptureFixture) -> None:
    reply = serve(answerers={"scripted": Broken()}).ask()

    assert reply.named("error")[0]["message"].startswith("KeyError: 'lost'; the terminal")
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("query=", "it is empty", id="an empty question"),
        pytest.param("query=%3C/answer%3E", "markup", id="markup"),
        pytest.param("query=" + "a" * 2001, "2001 characters", id="a long question"),
        pytest.param("query=a&model=none", "only scripted", id="an unknown model"),
        pytest.param("query=a&example=none", "no such example", id="an unknown example"),
    ],
)
def test_an_unusable_question_is_refused_with_a_sentence(
    serve: Callable, path: str, message: str
) -> None:
    model = "" if "model=" in path else "&model=scripted"
    reply = serve().send("POST", f"/api/ask?{path}{model}", png(), **{VISITOR_HEADER: "a"})

    assert 400 <= reply.status < 500
    assert message in reply.error


def test_a_question_without_the_pages_header_is_refused(serve: Callable) -> None:
    reply = serve().send("POST", "/api/ask?query=a&model=scripted", png())

    assert reply.status == 400
    assert VISITOR_HEADER in reply.error


def test_a_camera_without_a_robot_is_refused(serve: Callable) -> None:
    server = serve()

    assert "choose one" in server.ask(camera="1").named("error")[0]["message"]
    assert server.send("GET", "/api/camera/segzero").status == 404


# ---- images


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()


BAD_IMAGES = [
    pytest.param(b"", "the file is empty", id="an empty file"),
    pytest.param(b"I am a text, named image.png", "is not an image", id="a text"),
    pytest.param(png()[:200], "is damaged", id="cut off"),
    pytest.param(bomb(), "too large: 10000x10000 pixels", id="100 megapixels"),
    pytest.param(png(kind="GIF"), "is not an image", id="a format that is not read"),
]


@pytest.mark.parametrize(("data", "message"), BAD_IMAGES)
def test_a_bad_image_is_refused_when_it_is_chosen(
    serve: Callable, data: bytes, message: str
) -> None:
    reply = serve().send("POST", "/api/image", data)

    assert reply.status == 400
    assert message in reply.error


@pytest.mark.parametrize(("data", "message"), BAD_IMAGES)
def test_a_bad_image_is_an_error_of_its_question_alone(
    serve: Callable, data: bytes, message: str
) -> None:
    server = serve()

    assert message in server.ask(image=data).named("error")[0]["message"]
    assert len(server.ask().named("done")) == 1


def test_more_bytes_than_allowed_are_refused_before_they_come(serve: Callable) -> None:
    length = str(MAX_UPLOAD_BYTES + 1)
    reply = serve().send("POST", "/api/image", **{"Content-Length": length})

    assert reply.status == 413
    assert "more than 40 MB" in reply.error


def test_bytes_that_were_not_announced_are_counted(
    serve: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segzero_cli.web.app.MAX_UPLOAD_BYTES", 10)
    server = serve()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    connection.request("POST", "/api/image", iter([b"x" * 8, b"x" * 8]), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    assert connection.getresponse().status == 413
    connection.close()


def rotated(kind: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # a quarter turn to the right
    return png((60, 20), kind, exif=exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_rotation_by_exif_is_honored_in_check_and_answer(serve: Callable, kind: str) -> None:
    server = serve()

    assert json.loads(server.send("POST", "/api/image", rotated(kind)).body) == {
        "size_wh": [20, 60]
    }
    assert server.ask(image=rotated(kind)).named("done")[0]["size_wh"] == [20, 60]
    back = server.send("POST", "/api/image?as=png", rotated(kind))
    shown = np.array(Image.open(io.BytesIO(back.body)))
    assert shown.shape[:2] == (60, 20)
    assert shown[:25, :, 0].min() > 150  # what was left is above
    assert shown[35:, :, 2].min() > 150


def test_a_format_that_browsers_lack_comes_back_as_png(serve: Callable) -> None:
    reply = serve().send("POST", "/api/image?as=png", png(kind="TIFF"))

    assert reply.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(reply.body)).format == "PNG"


def test_nothing_is_kept_on_disk(
    serve: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    server = serve()

    assert len(buffer.getvalue()) > 2_000_000
    assert server.send("POST", "/api/image", buffer.getvalue()).status == 200
    assert len(server.ask(image=buffer.getvalue()).named("done")) == 1
    assert list(tmp_path.rglob("*")) == []


# ---- an answer that is saved as an image


def drawing(server: Served, data: bytes = b"", **changes: Any) -> Reply:
    mask = np.full((20, 30), 255, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    object_ = {
        "box_xyxy": [10, 20, 45, 45],
        "points": [[20, 30]],
        "label": "1",
        "color": [0, 114, 178],
        "png": base64.b64encode(buffer.getvalue()).decode(),
        "offset_xy": [12, 22],
        "lines": [[10, 10], [1e300, 40]],
        "grasp_lines": None,
    }
    answer = {"query": "red", "thinking": "so it is", "example": None}
    answer |= {name: value for name, value in changes.items() if name in answer}
    answer["objects"] = changes.get("objects", [object_ | changes])
    return server.send(
        "POST", "/api/drawing", json.dumps(answer).encode() + b"\n" + (data or png())
    )


def test_an_answer_is_drawn_as_it_was_shown(serve: Callable) -> None:
    reply = drawing(serve())
    drawn = np.array(Image.open(io.BytesIO(reply.body)))

    assert reply.status == 200
    assert drawn.shape[1] == 100
    assert drawn.shape[0] > 110  # question and thinking stand below the image
    assert drawn[40, 40, 2] > 50  # the object, which was red
    assert drawn[5, 5].tolist() == [200, 0, 0]


def test_an_answer_about_an_example_is_drawn(serve: Callable) -> None:
    examples = load_examples()
    reply = drawing(serve(examples=examples), example=next(iter(examples)), objects=[])

    assert Image.open(io.BytesIO(reply.body)).width == 640


@pytest.mark.parametrize(
    "changes",
    [
        {"data": b"text"},
        {"png": "***"},
        {"png": base64.b64encode(png((200, 200))).decode()},  # larger than the image
        {"png": base64.b64encode(b"text").decode()},
        {"offset_xy": [90, 90]},
        {"offset_xy": [-1, 0]},
        {"box_xyxy": [0, 0, float("nan"), 9]},
        {"box_xyxy": "none"},
        {"points": [["a", "b"]]},
        {"color": [1]},
        {"lines": [[1, 2]]},
        {"lines": [[1, float("nan")], [1, 2]]},
        {"objects": [{}] * 1001},
        {"objects": 3},
        {"example": "none"},
        {"example": ["a"]},
    ],
)
def test_what_is_no_answer_is_not_drawn(serve: Callable, changes: dict[str, Any]) -> None:
    reply = drawing(serve(), **changes)

    assert reply.status == 400
    assert reply.error


# ---- several visitors


class SlowReasoner:
    """Thinks until the gate is opened or it is cancelled."""

    def __init__(self) -> None:
        self.description = fake_description()
        self.gate = threading.Event()
        self.cancelled: list[str] = []

    def stream(self, image: Any, query: str, *, cancel: threading.Event | None = None) -> Any:
        yield TWO_OBJECTS[:20]
        while not self.gate.wait(0.01):
            if cancel is not None and cancel.is_set():
                self.cancelled.append(query)
            yield ""  # the pipeline raises here
        yield TWO_OBJECTS[20:]

    def pipeline(self) -> SegZero:
        identity = ModelIdentity("scripted", "0" * 16, "fake")
        return SegZero(self, FakeEncoder(), BoxSegmenter(), identity)


def begin(server: Served, query: str, visitor: str) -> Any:
    """Ask, and return the connection when the first event has come."""
    headers = {VISITOR_HEADER: visitor}
    connection = server.connect("POST", f"/api/ask?model=scripted&query={query}", png(), **headers)
    response = connection.getresponse()
    block = response.readline() + response.readline()
    assert response.readline() == b"\n"
    return connection, parse(block.decode().strip())


def test_closing_the_tab_cancels_the_own_question_and_no_other(serve: Callable) -> None:
    reasoner = SlowReasoner()
    server = serve(model=reasoner.pipeline())
    first, _ = begin(server, "first", "a")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(server.ask, "second", visitor="b")
        wait_until(lambda: questions(server) == 2)
        first.close()
        wait_until(lambda: questions(server) == 1)
        reasoner.gate.set()

        assert second.result(TIMEOUT_S).named("done")[0]["query"] == "second"
    assert reasoner.cancelled in (["first"], [])  # noticed by the reasoner or by the pipeline


def test_a_question_that_waits_can_be_given_up(serve: Callable) -> None:
    reasoner = SlowReasoner()
    server = serve(model=reasoner.pipeline())
    first, _ = begin(server, "first", "a")
    waiting, event = begin(server, "second", "b")

    assert event == ("queued", {"before": 1})
    waiting.close()
    wait_until(lambda: questions(server) == 1)
    reasoner.gate.set()
    wait_until(lambda: questions(server) == 0)
    first.close()


def test_a_full_queue_is_a_sentence(serve: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "MAX_WAITING", 1)
    reasoner = SlowReasoner()
    server = serve(model=reasoner.pipeline())
    held = [begin(server, "first", "a")[0], begin(server, "second", "b")[0]]
    reply = server.ask("third", visitor="c")

    assert reply.status == 503
    assert reply.error == "1 questions wait already; ask again in a minute"
    reasoner.gate.set()
    wait_until(lambda: questions(server) == 0)
    assert len(server.ask("third", visitor="c").named("done")) == 1
    for connection in held:
        connection.close()


def test_ten_at_once_get_ten_answers_each_about_the_own_image(serve: Callable) -> None:
    server = serve(delay_s=0.001)

    def ask(number: int) -> Any:
        image = png((100 + number, 100))
        return server.ask(f"query%20{number}", image=image, visitor=str(number))

    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(ask, range(10)))

    for number, reply in enumerate(replies):
        (done,) = reply.named("done")
        assert done["query"] == f"query {number}"
        assert done["size_wh"] == [100 + number, 100]
        assert reply.named("started")[0]["size_wh"] == [100 + number, 100]
        assert "".join(data["text"] for data in reply.named("thinking")) == THINKING
