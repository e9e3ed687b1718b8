"""`segzero check-model`: what it says of right boxes, of wrong frames and of weak models."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from segzero_cli.check_model import command
from segzero_cli.check_model.command import Asked, questions, summarize
from segzero_cli.main import main
from segzero_core.errors import ReasoningError
from segzero_core.geometry import scale_box
from segzero_core.testing.fakes import ScriptedReasoner, fake_description
from segzero_core.types import Box

DESCRIPTION = fake_description((840, 840))


def answered(change: Callable[[Box, tuple[int, int]], Box | None]) -> list[Asked]:
    """What a model would have said that knows everything, with each box changed."""
    found = []
    for image, query, truth in questions():
        size = (image.shape[1], image.shape[0])
        box = None if truth is None else change(truth, size)
        said = () if box is None else (box,)
        found.append(Asked(query, truth, said, "", 20, 10.0, 50.0, size))
    return found


def seen(box: Box, size: tuple[int, int]) -> Box:
    return scale_box(box, size, (840, 840))


def test_the_package_has_images_with_boxes_inside_them() -> None:
    found = questions()

    assert len({id(image) for image, _, _ in found}) >= 5
    assert sum(truth is None for _, _, truth in found) >= 3
    for image, _, truth in found:
        if truth is not None:
            assert truth.x_max <= image.shape[1]
            assert truth.y_max <= image.shape[0]
            assert truth.area > 1000


def test_right_boxes_are_fine() -> None:
    report = summarize(answered(seen), DESCRIPTION)

    assert (report["ok"], report["problem"]) == (True, "")
    assert report["found"] == report["asked"]
    assert report["refused"] == report["absent"] > 0
    assert report["mean_iou"] > 0.99


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda b, s: scale_box(b, s, (1000, 1000)), "thousandths", id="0..1000"),
        pytest.param(lambda b, s: b, "pixels of the image as it is", id="input pixels"),
        pytest.param(lambda b, s: scale_box(b, s, (1, 1)), "parts of one", id="0..1"),
        pytest.param(
            lambda b, s: Box(*(seen(b, s).xyxy[i] for i in (1, 0, 3, 2))), "y before x", id="yx"
        ),
        pytest.param(
            lambda b, s: scale_box(b, s, (896, 896)), "factor of 0.93[78] in x", id="resized"
        ),
        pytest.param(lambda b, s: Box(1, 1, 9, 9), "finds too little", id="weak"),
        pytest.param(lambda b, s: None, "finds too little", id="refuses all"),
    ],
)
def test_what_is_wrong_is_named(change: Any, words: str) -> None:
    report = summarize(answered(change), DESCRIPTION)

    assert not report["ok"]
    assert re.search(words, report["problem"])


def test_thousandths_are_right_where_they_are_described() -> None:
    native = replace(DESCRIPTION, coordinates="normalized_1000")
    report = summarize(answered(lambda b, s: scale_box(b, s, (1000, 1000))), native)

    assert report["ok"]


def test_replies_in_another_form_are_named() -> None:
    asked = [replace(each, said=None, error="no <answer>") for each in answered(seen)]

    assert "in the form of the template multi_object" in summarize(asked, DESCRIPTION)["problem"]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the command load a reasoner of given replies."""

    def use(replies: Any) -> None:
        reasoner = ScriptedReasoner(replies, description=DESCRIPTION)
        loaded = type("Loaded", (), {"reasoner": reasoner})
        monkeypatch.setattr("segzero_core.loading.load_reasoner", lambda *_, **__: loaded)

    return use


def test_the_command_asks_everything_and_reports(
    scripted: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    replies = []
    for image, _, truth in questions():
        box = None if truth is None else seen(truth, (image.shape[1], image.shape[0])).xyxy
        item = "" if box is None else json.dumps({"bbox_2d": box, "point_2d": box[:2]})
        replies.append(f"<think>Here.</think><answer>[{item}]</answer>")
    scripted(replies)

    assert main(["check-model", "some/model"]) == 0
    out = capsys.readouterr().out
    assert "IoU 1.00, largest error 0 px, 1 boxes" in out
    assert "refused, it is not there" in out
    assert "asked as it should be: template multi_object, frame 840x840" in out


def test_a_weak_model_is_reported_and_fails(
    scripted: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(["prose", "<answer>[]</answer>"])

    assert main(["check-model", "some/model", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["unusable"] == 1
    assert report["found"] == 0


def test_a_server_that_fails_is_an_error(
    scripted: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(ReasoningError("server h: answered 500"))

    assert main(["check-model", "some/model"]) == 2
    assert "answered 500" in capsys.readouterr().err


def test_the_scenes_are_part_of_the_package() -> None:
    assert command.SCENES.parent.name == "check_model"
    assert sum(path.stat().st_size for path in command.SCENES.iterdir()) < 300_000
