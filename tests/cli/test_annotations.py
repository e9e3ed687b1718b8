"""`segzero bag --foxglove`: images and annotations are read back from the mcap by themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from segzero_cli.bag.annotations import TOPIC, AnnotationWriter, outlines
from segzero_cli.bag.reader import BagImage, open_topic
from segzero_cli.demo.clip import TOPICS, read_clip
from segzero_core.images.palette import choose_colors
from segzero_core.testing.fakes import fake_segzero
from segzero_core.types import Box, ObjectPrompt, Point, Segmentation

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "demo" / "clip.mcap"
# The fields that Foxglove reads: https://docs.foxglove.dev/docs/sdk/schemas
SCHEMA = {
    "ImageAnnotations": {
        "circles": "CircleAnnotation[]",
        "points": "PointsAnnotation[]",
        "texts": "TextAnnotation[]",
    },
    "PointsAnnotation": {
        "timestamp": "Time",
        "type": "uint8",
        "points": "Point2[]",
        "outline_color": "Color",
        "outline_colors": "Color[]",
        "fill_color": "Color",
        "thickness": "float64",
    },
    "CircleAnnotation": {
        "timestamp": "Time",
        "position": "Point2",
        "diameter": "float64",
        "thickness": "float64",
        "fill_color": "Color",
        "outline_color": "Color",
    },
    "TextAnnotation": {
        "timestamp": "Time",
        "position": "Point2",
        "text": "string",
        "font_size": "float64",
        "text_color": "Color",
        "background_color": "Color",
    },
    "Color": dict.fromkeys("rgba", "float64"),
    "Point2": dict.fromkeys("xy", "float64"),
}


def read(path: Path) -> tuple[dict[str, list[Any]], str]:
    """Return the messages by topic, by the definitions in the file, and that of annotations."""
    messages: dict[str, list[Any]] = {}
    with AnyReader([path]) as reader:
        for connection, _, data in reader.messages():
            msg = reader.deserialize(data, connection.msgtype)
            messages.setdefault(connection.topic, []).append(msg)
        (text,) = (each.msgdef.data for each in reader.connections if each.topic == TOPIC)
    return messages, text


def fields_of(text: str) -> dict[str, dict[str, str]]:
    """Return the fields of each message of a definition as mcap files carry it."""
    found: dict[str, dict[str, str]] = {}
    name = "ImageAnnotations"
    for line in text.splitlines():
        if line.startswith("MSG: "):
            name = line.rpartition("/")[2]
        elif line and not line.startswith("=") and "=" not in line:
            kind, field = line.split()
            found.setdefault(name, {})[field] = kind.rpartition("/")[2]
    return found


def test_boxes_outlines_points_and_labels_lie_on_the_images(tmp_path: Path) -> None:
    shot = read_clip(CLIP)[0]
    result = fake_segzero("<answer>[]</answer>").segment(shot.color, "the mug")
    prompt = ObjectPrompt(Box(10.0, 20.0, 50.0, 60.0), (Point(30.0, 40.0),))
    masks = shot.truth()[None]
    result = replace(
        result,
        reasoning=replace(result.reasoning, prompts=(prompt,)),
        segmentation=Segmentation(masks, np.full(1, 0.75, np.float32)),
    )
    out = tmp_path / "found.mcap"
    out.write_text("an older one, which is replaced")
    with open_topic(CLIP, TOPICS["color"]) as topic:
        first, second = topic.images(limit=2)
    with AnnotationWriter(out, TOPICS["color"]) as writer:
        writer.write(first, result, "")
        writer.write(second, None, "no answer")
    messages, text = read(out)

    found = fields_of(text)
    assert {name: found[name] for name in SCHEMA} == SCHEMA
    images = messages[TOPICS["color"]]
    assert (images[0].data.reshape(shot.color.shape) == shot.color).all()
    drawn, nothing = messages[TOPIC]
    assert (nothing.circles, nothing.points, nothing.texts) == ([], [], [])
    box, outline = drawn.points[0], drawn.points[1:]
    assert [(point.x, point.y) for point in box.points] == [(10, 20), (50, 20), (50, 60), (10, 60)]
    assert {each.type for each in drawn.points} == {box.LINE_LOOP} == {2}
    red, green, blue = choose_colors(shot.color, masks)[0]
    assert np.allclose([box.outline_color.r, box.outline_color.g], [red / 255, green / 255])
    filled = np.zeros(masks[0].shape, np.uint8)
    for each in outline:
        corners = np.array([(point.x - 0.5, point.y - 0.5) for point in each.points])
        cv2.fillPoly(filled, [corners.astype(np.int32)], 1)
        assert 0 < each.fill_color.a < 1
    assert (filled[masks[0]] == 1).mean() > 0.99
    (circle,) = drawn.circles
    assert (circle.position.x, circle.position.y) == (30, 40)
    (label,) = drawn.texts
    assert (label.text, label.position.x, label.position.y) == ("1: 0.75", 10, 20)
    stamp = images[0].header.stamp
    assert (label.timestamp.sec, label.timestamp.nanosec) == (stamp.sec, stamp.nanosec)
    assert blue / 255 == pytest.approx(label.background_color.b)


def test_an_image_that_cannot_be_read_has_no_annotations(tmp_path: Path) -> None:
    out = tmp_path / "found.mcap"
    with AnnotationWriter(out, "/eye") as writer:
        writer.write(BagImage(0, 10**9, error="unreadable"), None, "unreadable")
    messages, _ = read(out)

    assert list(messages) == [TOPIC]
    assert messages[TOPIC][0].points == []


def test_what_is_cut_off_leaves_the_older_file(tmp_path: Path) -> None:
    out = tmp_path / "found.mcap"
    out.write_text("an older one")

    def interrupted() -> None:
        with AnnotationWriter(out, "/eye") as writer:
            writer.write(BagImage(0, 10**9, error="unreadable"), None, "unreadable")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert out.read_text() == "an older one"
    assert list(tmp_path.iterdir()) == [out]


def test_a_mask_of_two_parts_has_two_outlines_and_an_empty_one_none() -> None:
    mask = np.zeros((20, 30), np.bool_)
    assert outlines(mask) == []
    mask[2:6, 3:9] = mask[10:15, 20:25] = True
    parts = sorted(outlines(mask), key=lambda part: part[0, 0])

    assert [part.min(axis=0).tolist() for part in parts] == [[3.5, 2.5], [20.5, 10.5]]


def test_the_layout_shows_the_annotations_on_the_camera() -> None:
    layout = json.loads((ROOT / "rviz" / "segzero.foxglove.json").read_text())
    camera = layout["configById"]["Image!camera"]["imageMode"]

    assert camera["imageTopic"] == TOPICS["color"]
    assert camera["annotations"] == {TOPIC: {"visible": True}}


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("", "is a folder"), ("none/a.mcap", "no folder"), ("a.bag", "must end in .mcap")],
)
def test_a_place_where_no_mcap_can_be_is_refused(
    run: Callable, tmp_path: Path, name: str, complaint: str
) -> None:
    wanted = ("--query", "the mug", "--out", tmp_path / "out", "--foxglove", tmp_path / name)
    ran = run("bag", CLIP, "--topic", TOPICS["color"], *wanted)

    assert (ran.code, complaint in ran.err) == (2, True)


def test_the_command_writes_an_annotation_for_each_image(
    run: Callable, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.mcap"
    wanted = ("--query", "the mug", "--out", tmp_path / "out", "--foxglove", out, "--limit", 2)
    model = ("--model", tiny_model, "--device", "cpu", "--no-video")
    assert run("bag", CLIP, "--topic", TOPICS["color"], *wanted, *model).code == 0
    messages, _ = read(out)

    assert len(messages[TOPIC]) == len(messages[TOPICS["color"]]) == 2
    (label,) = messages[TOPIC][0].texts
    answers = json.loads((tmp_path / "out" / "result.json").read_text())["pictures"]
    assert [label.position.x, label.position.y] == answers[0]["objects"][0]["box_xyxy"][:2]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
