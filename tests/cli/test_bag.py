"""`segzero bag` over the demo's clip and bags made here, with a tiny model of the real kind."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PilImage
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from segzero_core import OutOfMemoryError, SegmentationError, SegZero
from segzero_core.types import Segmentation

CLIP = Path(__file__).parents[2] / "demo" / "clip.mcap"
COLOR = "/camera/color/image_raw"
STORE = get_typestore(Stores.ROS2_JAZZY)


@pytest.fixture
def bag(run: Callable, tiny_model: Path, tmp_path: Path) -> Callable:
    """Run the command into a folder of the test's."""

    def call(path: Path, *arguments: object, topic: str = COLOR) -> Any:
        where = ("--out", tmp_path / "out", "--model", tiny_model, "--device", "cpu")
        return run("bag", path, "--topic", topic, "--query", "the red mug", *where, *arguments)

    return call


def image(pixels: np.ndarray, second: int, encoding: str = "rgb8") -> Any:
    header = STORE.types["std_msgs/msg/Header"](
        stamp=STORE.types["builtin_interfaces/msg/Time"](sec=second, nanosec=0), frame_id="eye"
    )
    height, width = pixels.shape[:2]
    return STORE.types["sensor_msgs/msg/Image"](
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.nbytes // height,
        data=pixels.reshape(-1),
    )


def jpeg(pixels: np.ndarray, second: int) -> Any:
    written = io.BytesIO()
    PilImage.fromarray(pixels).save(written, "JPEG")
    return STORE.types["sensor_msgs/msg/CompressedImage"](
        header=image(pixels, second).header,
        format="jpeg",
        data=np.frombuffer(written.getvalue(), np.uint8),
    )


def write_bag(
    path: Path, topic: str, messages: list[Any], plugin: Any = StoragePlugin.MCAP
) -> Path:
    """Write messages; bytes are written as they are."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        (kind,) = {msg.__msgtype__ for msg in messages if not isinstance(msg, bytes)}
        connection = writer.add_connection(topic, kind, typestore=STORE)
        for number, msg in enumerate(messages):
            data = msg if isinstance(msg, bytes) else STORE.serialize_cdr(msg, kind)
            writer.write(connection, number * 10**9, data)
    return path


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (60, 81, 3), dtype=np.uint8)


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "result.json").read_text())


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "out" / "result.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def three_images(tmp_path: Path) -> Path:
    return write_bag(tmp_path / "bag", "/eye", [image(pixels(i), i + 1) for i in range(3)])


@pytest.fixture
def at_image(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Do something when the model is asked about an image, instead of or after answering."""

    def install(number: int, do: Callable[[Any], Any]) -> None:
        answer, calls = SegZero.segment, iter(range(1000))

        def segment(self: SegZero, pixels: Any, query: str) -> Any:
            if next(calls) == number:
                return do(lambda: answer(self, pixels, query))
            return answer(self, pixels, query)

        monkeypatch.setattr(SegZero, "segment", segment)

    return install


def raising(error: BaseException) -> Callable[[Any], Any]:
    def do(_answer: Any) -> Any:
        raise error

    return do


@pytest.mark.parametrize("error", [OutOfMemoryError("no memory"), SegmentationError("failed")])
def test_an_image_that_the_model_fails_on_is_a_row_and_the_run_goes_on(
    bag: Callable, three_images: Path, at_image: Callable, tmp_path: Path, error: Exception
) -> None:
    at_image(1, raising(error))
    assert bag(three_images, "--no-video", topic="/eye").code == 0
    kept = record(tmp_path)
    assert (kept["asked"], kept["answered"]) == (3, 2)
    assert kept["pictures"][1]["error"] == str(error)


def test_each_row_is_on_the_disk_before_the_next_image_is_asked_about(
    bag: Callable, three_images: Path, at_image: Callable, tmp_path: Path
) -> None:
    seen: list[int] = []
    at_image(2, lambda answer: (seen.extend(row["number"] for row in rows(tmp_path)), answer())[1])
    assert bag(three_images, topic="/eye").code == 0
    assert seen == [0, 1]
    assert rows(tmp_path) == record(tmp_path)["pictures"]


def test_an_interrupted_run_keeps_what_is_done_and_says_so(
    bag: Callable, three_images: Path, at_image: Callable, tmp_path: Path
) -> None:
    at_image(2, raising(KeyboardInterrupt()))
    ran = bag(three_images, topic="/eye")
    assert ran.code == 130
    assert "2 of 2 images answered" in ran.out
    assert [row["number"] for row in record(tmp_path)["pictures"]] == [0, 1]
    video = cv2.VideoCapture(str(tmp_path / "out" / "overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    video.release()


def test_more_than_255_objects_keep_their_ids(
    bag: Callable, three_images: Path, at_image: Callable, tmp_path: Path
) -> None:
    def many(answer: Callable[[], Any]) -> Any:
        result, count = answer(), 300
        masks = np.zeros((count, 60, 81), np.bool_)
        masks.reshape(count, -1)[np.arange(count), np.arange(count)] = True
        prompts = result.reasoning.prompts[:1] * count
        return replace(
            result,
            reasoning=replace(result.reasoning, prompts=prompts),
            segmentation=Segmentation(masks, np.ones(count, np.float32)),
        )

    at_image(0, many)
    assert bag(three_images, "--limit", 1, "--no-video", topic="/eye").code == 0
    mask = np.array(PilImage.open(tmp_path / "out" / record(tmp_path)["pictures"][0]["mask"]))
    assert sorted(np.unique(mask)) == list(range(301))


def test_a_message_that_cannot_be_decoded_is_counted_and_the_others_are_answered(
    bag: Callable, tmp_path: Path
) -> None:
    whole = [image(pixels(i), i + 1) for i in range(2)]
    cut = STORE.serialize_cdr(whole[0], "sensor_msgs/msg/Image")[:20]
    path = write_bag(tmp_path / "bag", "/eye", [whole[0], bytes(cut), whole[1]])
    assert bag(path, topic="/eye").code == 0
    kept = record(tmp_path)
    assert (kept["asked"], kept["answered"]) == (3, 2)
    assert "message 1 cannot be decoded" in kept["pictures"][1]["error"]


def test_masks_video_and_json_are_written_for_every_second_image(
    bag: Callable, tmp_path: Path
) -> None:
    ran = bag(CLIP, "--every", 2, "--limit", 2)
    assert ran.code == 0
    assert ran.err.splitlines() == ["1/2: 1 objects", "2/2: 1 objects"]
    assert "2 of 2 images answered, 2 with objects" in ran.out
    result = record(tmp_path)
    assert (result["pictures_in_bag"], result["asked"], result["answered"]) == (6, 2, 2)
    first, second = result["pictures"]
    assert [first["number"], second["number"]] == [0, 2]
    assert second["stamp_ns"] - first["stamp_ns"] == 4 * 10**9
    assert first["frame_id"] == "camera_color_optical_frame"
    mask = np.array(PilImage.open(tmp_path / "out" / first["mask"]))
    assert mask.shape == (480, 640)
    assert (mask == 1).sum() == first["objects"][0]["area_px"]
    video = cv2.VideoCapture(str(tmp_path / "out" / "overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(0.25)
    height, width, _ = video.read()[1].shape
    assert width == 640
    assert height > 500  # question and thinking stand below the image
    video.release()


@pytest.mark.parametrize("plugin", list(StoragePlugin), ids=lambda plugin: plugin.name)
@pytest.mark.parametrize("make", [image, jpeg], ids=["raw", "compressed"])
def test_every_kind_of_bag_and_image_is_read(
    bag: Callable, tmp_path: Path, plugin: Any, make: Callable
) -> None:
    path = write_bag(tmp_path / "bag", "/eye", [make(pixels(i), i + 1) for i in range(3)], plugin)
    ran = bag(path, topic="/eye")
    assert ran.code == 0
    assert [row["stamp_ns"] // 10**9 for row in record(tmp_path)["pictures"]] == [1, 2, 3]


def test_an_image_that_cannot_be_read_does_not_stop_the_rest(
    bag: Callable, tmp_path: Path
) -> None:
    odd = image(pixels(), 1, encoding="yuv422")
    path = write_bag(tmp_path / "bag", "/eye", [odd, image(pixels(), 2)])
    ran = bag(path, "--no-video", topic="/eye")
    assert ran.code == 0
    bad, good = record(tmp_path)["pictures"]
    assert "'yuv422' is none of rgb8" in bad["error"]
    assert good["objects"]
    assert not (tmp_path / "out" / "overlay.mp4").exists()


def test_when_nothing_can_be_answered_the_command_fails(bag: Callable, tmp_path: Path) -> None:
    odd = image(pixels(), 1, encoding="yuv422")
    path = write_bag(tmp_path / "bag", "/eye", [odd])
    ran = bag(path, topic="/eye")
    assert ran.code == 2
    assert "nothing could be answered; the first: image encoding" in ran.err
    assert record(tmp_path)["answered"] == 0


def assert_refused(ran: Any, complaint: str) -> None:
    assert ran.code == 2
    assert complaint in ran.err
    assert ran.err.count("\n") == 1


def test_a_bag_that_is_not_there_is_refused(bag: Callable, tmp_path: Path) -> None:
    assert_refused(bag(tmp_path / "none"), "there is no such file or folder")
    assert not (tmp_path / "out").exists()


def test_a_topic_that_is_not_there_is_refused_with_those_that_are(bag: Callable) -> None:
    assert_refused(
        bag(CLIP, topic="/color"), f"has no topic '/color'; topics of images: {COLOR}, "
    )


def test_a_topic_of_another_type_is_refused(bag: Callable) -> None:
    ran = bag(CLIP, topic="/camera/color/camera_info")
    assert_refused(ran, "is sensor_msgs/msg/CameraInfo, neither sensor_msgs/msg/Image nor")


def test_a_bag_that_was_cut_off_is_refused(bag: Callable, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(CLIP.read_bytes()[:200_000])
    assert_refused(bag(cut), "is damaged or no bag")


def test_a_bag_whose_middle_is_damaged_is_refused(bag: Callable, tmp_path: Path) -> None:
    data = bytearray(CLIP.read_bytes())
    data[10_000:400_000] = bytes(390_000)
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(data)
    assert_refused(bag(broken), "is damaged or no bag")


@pytest.mark.parametrize("count", [2**62, 2**64 - 5])
def test_an_index_that_counts_what_cannot_be_is_refused(
    bag: Callable, three_images: Path, count: int
) -> None:
    file = next(three_images.glob("*.mcap"))
    recorded = file.read_bytes()
    row = struct.Struct("<IHQ")  # of the mcap's statistics: length of the table, channel, count
    assert recorded.count(row.pack(10, 1, 3)) == 1
    file.write_bytes(recorded.replace(row.pack(10, 1, 3), row.pack(10, 1, count)))
    assert_refused(bag(file, topic="/eye"), f"its index counts {count} messages of /eye")


def test_a_file_that_is_no_bag_is_refused(bag: Callable, image_file: Path, tmp_path: Path) -> None:
    assert_refused(bag(image_file), "is damaged or no bag")
    (tmp_path / "empty").mkdir()
    assert_refused(bag(tmp_path / "empty"), "is damaged or no bag")


def test_a_place_that_cannot_be_written_to_is_refused(bag: Callable, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    assert_refused(bag(CLIP), "cannot be made")


@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_a_count_that_is_none_is_refused(bag: Callable, value: str) -> None:
    assert_refused(bag(CLIP, f"--every={value}"), "--every")


def test_without_rosbags_the_package_to_install_is_named(
    bag: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    assert_refused(bag(CLIP), "pip install 'segzero[bags]'")
