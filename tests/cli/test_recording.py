"""`--rerun`: each part of an answer is read back from the recording."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segzero_cli.bag.depth import cloud_of, measure_all, open_depth
from segzero_cli.bag.reader import BagImage
from segzero_cli.demo.clip import FIRST_STAMP_S, TOPICS, Shot, read_clip
from segzero_core.errors import ConfigError, InputError, ReasoningError
from segzero_core.images.palette import choose_colors
from segzero_core.testing.fakes import fake_segzero
from segzero_core.types import Box, ObjectPrompt, Point, Result, Segmentation
from tests.recordings import has_layout, image_of, lines, plane_of, read_recording, values

CLIP = Path(__file__).parents[2] / "demo" / "clip.mcap"
STAMP_NS = FIRST_STAMP_S * 10**9
REPLY = (
    "<think>There are two mugs. One is red</think><answer>"
    '[{"bbox_2d": [10, 10, 30, 40], "point_2d": [20, 25]},'
    ' {"bbox_2d": [50, 60, 90, 95], "point_2d": [70, 80]}]</answer>'
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answer.rrd"


def test_each_part_of_an_answer_is_an_entity(out: Path) -> None:
    from segzero_cli.recording import Recording

    image = np.full((100, 100, 3), (200, 60, 30), np.uint8)
    events = fake_segzero(REPLY).stream(image, "the mugs")
    with Recording("elapsed", with_space=False, path=out) as recording:
        *_, last = recording.follow(image, "the mugs", events)
    result = last.result
    found = read_recording(out)

    assert has_layout(out)
    assert np.abs(image_of(found["/world/camera/image"][0]).astype(int) - image).max() <= 3
    (masks,) = found["/world/camera/instances"]
    assert (plane_of(masks, "SegmentationImage") == result.segmentation.instance_ids()).all()
    (boxes,) = found["/world/camera/boxes"]
    assert boxes["Boxes2D:centers"] == [[20, 25], [70, 77.5]]
    assert boxes["Boxes2D:half_sizes"] == [[10, 15], [20, 17.5]]
    assert boxes["Boxes2D:class_ids"] == [1, 2]
    scores = [f"{score:.2f}" for score in result.segmentation.scores]
    assert boxes["Boxes2D:labels"] == [f"1: the mugs {scores[0]}", f"2: the mugs {scores[1]}"]
    (points,) = found["/world/camera/points"]
    assert points["Points2D:positions"] == [[20, 25], [70, 80]]
    classes = values(found, "/world", "AnnotationContext:context")[0]
    names = {each["class_id"]: each["class_description"]["info"] for each in classes}
    assert (names[0]["label"], names[2]["label"]) == ("background", "object 2")
    # The viewer does not look at a context that begins at some time.
    assert not {"elapsed", "log_time"} & set(found["/world"][0])
    assert names[0]["color"] == 0
    red, green, blue = choose_colors(image, result.segmentation.masks)[0]
    assert names[1]["color"] == red << 24 | green << 16 | blue << 8 | 255
    assert lines(found, "query") == ["the mugs"]
    assert lines(found, "thinking") == ["There are two mugs.", "One is red"]
    assert lines(found, "answer") == ["2 found: the mugs"]
    assert all("elapsed" in row for row in (*found["/trace/thinking"], masks, boxes))
    assert not [name for name in found if "objects" in name or "depth" in name]


def test_an_answer_that_fails_is_a_line_with_the_reason(out: Path) -> None:
    from segzero_cli.recording import Recording

    image = np.zeros((20, 20, 3), np.uint8)
    events = fake_segzero("<think>Hm.</think> no answer").stream(image, "the mug")
    with (
        Recording("elapsed", with_space=False, path=out) as recording,
        pytest.raises(ReasoningError),
    ):
        list(recording.follow(image, "the mug", events))
    found = read_recording(out)

    assert values(found, "/trace/answer", "TextLog:level") == ["ERROR"]
    assert "/world/camera/boxes" not in found


@pytest.fixture(scope="module")
def shot() -> Shot:
    return read_clip(CLIP)[0]


def true_answer(shot: Shot) -> Result:
    """An answer with the true mask."""
    box = next(each.box_xyxy for each in shot.scene.objects if each.id in shot.question.ids)
    result = fake_segzero(REPLY).segment(shot.color, shot.question.text)
    prompt = ObjectPrompt(Box(*map(float, box)), (Point(float(box[0]), float(box[1])),))
    return replace(
        result,
        reasoning=replace(result.reasoning, prompts=(prompt,)),
        segmentation=Segmentation(shot.truth()[None], np.ones(1, np.float32)),
    )


def record_bag(out: Path, *written: tuple[BagImage, Result | None, str]) -> dict[str, Any]:
    from segzero_cli.bag.recorder import BagRecorder

    with (
        open_depth(CLIP, TOPICS["depth"], TOPICS["info"]) as depth,
        BagRecorder(out, "the mug", depth) as recorder,
    ):
        for each in written:
            recorder.write(*each)
    return read_recording(out)


def test_depth_boxes_and_grasps_are_in_space(shot: Shot, out: Path) -> None:
    result = true_answer(shot)
    image = BagImage(0, STAMP_NS, STAMP_NS, "camera", shot.color)
    found = record_bag(out, (image, result, ""))
    with open_depth(CLIP, TOPICS["depth"], TOPICS["info"]) as depth:
        depth_m, camera = depth.at(STAMP_NS), depth.camera
    objects, reasons = measure_all(result.segmentation, depth_m, camera)
    (measured,) = objects
    assert measured is not None
    assert not reasons

    (plane,) = found["/world/camera/depth"]
    assert (plane_of(plane, "DepthImage") == shot.depth_mm).all()
    assert plane["DepthImage:meter"] == [1000.0]
    (matrix,) = values(found, "/world/camera", "Pinhole:image_from_camera")
    assert np.allclose(np.reshape(matrix, (3, 3)).T, camera.k)
    (resolution,) = values(found, "/world/camera", "Pinhole:resolution")
    assert resolution == list(shot.scene.image_size_wh)
    (boxes,) = found["/world/objects/boxes"]
    assert np.allclose(boxes["Boxes3D:centers"], [measured.box.center_m])
    assert np.allclose(boxes["Boxes3D:half_sizes"], [measured.box.size_m / 2])
    assert boxes["Boxes3D:class_ids"] == [1]
    (turn,) = boxes["Boxes3D:rotation_axis_angles"]
    assert np.isclose(1 + 2 * np.cos(turn["angle"]), np.trace(measured.box.rotation), atol=1e-5)
    (grasps,) = found["/world/objects/grasps"]
    strips = np.array(grasps["LineStrips3D:strips"])
    assert np.allclose(strips.reshape(8, 3), measured.grasps[0].gripper_lines_m())
    (cloud,) = found["/world/objects/cloud"]
    points, colors = cloud_of(objects, shot.color)
    assert np.allclose(cloud["Points3D:positions"], points)
    red, green, blue = map(int, colors[0])
    assert cloud["Points3D:colors"][0] == red << 24 | green << 16 | blue << 8 | 255
    stamps = {row["stamp"].value for name in found for row in found[name] if "stamp" in row}
    assert stamps == {STAMP_NS}


def test_where_depth_is_missing_nothing_stays_in_space(shot: Shot, out: Path) -> None:
    result = true_answer(shot)
    images = [
        BagImage(n, stamp, stamp, "camera", shot.color)
        for n, stamp in enumerate([STAMP_NS, STAMP_NS + 10**9])
    ]
    found = record_bag(out, *((image, result, "") for image in images))

    assert values(found, "/world/objects", "Clear:is_recursive") == [True]
    assert lines(found, "notes") == ["no objects in space: no depth of the image's stamp"]
    assert len(found["/world/camera/boxes"]) == 2


def test_an_image_without_an_answer_shows_none_of_the_one_before(shot: Shot, out: Path) -> None:
    image = BagImage(0, STAMP_NS, STAMP_NS, "camera", shot.color)
    bad = BagImage(1, STAMP_NS + 10**9, error="unreadable")
    found = record_bag(out, (image, true_answer(shot), ""), (bad, None, "unreadable"))

    for name in ("camera/instances", "camera/boxes", "camera/points", "objects"):
        assert "Clear:is_recursive" in found[f"/world/{name}"][-1]
    assert lines(found, "answer")[-1] == "no answer: unreadable"


def test_the_commands_write_recordings(
    run: Callable, tiny_model: Path, image_file: Path, tmp_path: Path
) -> None:
    model = ("--model", tiny_model, "--device", "cpu")
    out = tmp_path / "segment.rrd"
    out.write_text("an older one, which is replaced")
    assert run("segment", image_file, "the red mug", *model, "--rerun", out).code == 0
    found = read_recording(out)
    (boxes,) = found["/world/camera/boxes"]
    assert boxes["Boxes2D:half_sizes"] == [[20, 20]]
    (sees,) = found["/world/camera/image"]
    assert image_of(sees).shape == np.array(Image.open(image_file)).shape
    assert lines(found, "thinking") == ["I see a red mug and a blue one; the red one is meant."]

    where = ("--out", tmp_path / "found", "--rerun", tmp_path / "bag.rrd", "--no-video")
    wanted = ("--query", "the red mug", "--limit", 2, "--every", 2, "--depth", TOPICS["depth"])
    assert run("bag", CLIP, "--topic", TOPICS["color"], *wanted, *where, *model).code == 0
    found = read_recording(tmp_path / "bag.rrd")
    masks = found["/world/camera/instances"]
    assert [row["frame"] for row in masks] == [0, 2]
    for row in masks:
        png = Image.open(tmp_path / "found" / "masks" / f"{row['frame']:06d}.png")
        assert (plane_of(row, "SegmentationImage") == np.array(png)).all()
    assert len(found["/world/camera/depth"]) == len(found["/world/objects/boxes"]) == 2


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "is a folder; name a file such as"),
        ("none/answer.rrd", "there is no folder"),
        ("answer.png", "the name must end in .rrd"),
    ],
)
def test_a_place_where_no_recording_can_be_is_refused(
    run: Callable, image_file: Path, tmp_path: Path, name: str, complaint: str
) -> None:
    ran = run("segment", image_file, "the mug", "--rerun", tmp_path / name, "--model", "none")

    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert complaint in ran.err


def test_a_file_that_the_system_does_not_let_be_written_is_refused() -> None:
    from segzero_cli.recording import Recording

    with pytest.raises(InputError, match="cannot be written"):
        Recording("elapsed", with_space=False, path=Path("/proc/answer.rrd"))


def test_depth_without_a_recording_is_refused(run: Callable, tmp_path: Path) -> None:
    wanted = ("--query", "the mug", "--out", tmp_path / "out", "--depth", TOPICS["depth"])
    ran = run("bag", CLIP, "--topic", TOPICS["color"], *wanted)

    assert (ran.code, "give --rerun too" in ran.err) == (2, True)


@pytest.mark.parametrize("topic", ["/none", TOPICS["color"]])
def test_a_calibration_that_is_none_is_refused(run: Callable, tmp_path: Path, topic: str) -> None:
    wanted = ("--query", "the mug", "--out", tmp_path / "out", "--rerun", tmp_path / "a.rrd")
    depth = ("--depth", TOPICS["depth"], "--camera-info", topic)
    ran = run("bag", CLIP, "--topic", TOPICS["color"], *wanted, *depth)

    assert (ran.code, f"topics of camera_info: {TOPICS['info']}" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda patch: patch.setitem(sys.modules, "rerun", None), "pip install 'segzero.rerun.'"),
        (lambda patch: patch.setattr(np, "__version__", "1.26.4"), "Rerun needs NumPy 2, .* 1.26"),
    ],
    ids=["no package", "old numpy"],
)
def test_what_is_missing_is_said_with_the_command(
    monkeypatch: pytest.MonkeyPatch, change: Callable, complaint: str
) -> None:
    monkeypatch.delitem(sys.modules, "segzero_cli.recording", raising=False)
    change(monkeypatch)
    with pytest.raises(ConfigError, match=complaint):
        import segzero_cli.recording  # noqa: F401


def test_a_viewer_that_cannot_be_reached_is_a_sentence() -> None:
    from segzero_cli.recording import Recording

    with pytest.raises(ConfigError, match="name it with --connect"):
        Recording("arrived", with_space=True, url="laptop")
