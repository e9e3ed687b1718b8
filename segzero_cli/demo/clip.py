"""The demo's recorded clip: images of the tabletop in an mcap file that carries their truth.

`ros2 bag play` plays it too. Each shot is one image of the camera with depth, camera info and
truth of the same stamp. Reading and writing need `rosbags`, no ROS.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segzero_core.checkpoints.registry import BUNDLED
from segzero_core.types import RgbImage
from worlds.common.scene import Query, Scene

CLIP: Final = Path("demo/clip.mcap")
"""Where the recorded clip of the table lies in a checkout."""
TOPICS: Final = {
    "color": "/camera/color/image_raw",
    "depth": "/camera/depth/image_raw",
    "info": "/camera/color/camera_info",
    "truth": "/truth/scene",
    "instances": "/truth/instances",
}
FRAME_ID: Final = "camera_color_optical_frame"
SHOT_PERIOD_S: Final = 2.0
FIRST_STAMP_S: Final = 1_700_000_000
"""Arbitrary but fixed, so that the same scenes give the same file."""


def clip_of(model: str | None) -> Path:
    """The clip of a bundled model's own world; the table's for any other model."""
    own = CLIP.with_name(f"{model}.mcap") if model in BUNDLED else CLIP
    return own if own.exists() else CLIP


def find_clip(model: str) -> Path | None:
    """Find a bundled model's clip, in the source tree or where pip installed it."""
    package = Path(__file__).resolve().parents[1]
    clip = CLIP if model == BUNDLED[0] else CLIP.with_name(f"{model}.mcap")
    places = (package.parent / clip, package / "_demo" / clip.name)
    return next((place for place in places if place.is_file()), None)


@dataclass(frozen=True, eq=False)
class Shot:
    """One image of the clip, its truth, and the query that the demo asks about it."""

    scene: Scene  # objects, camera and queries
    question: Query  # one of the scene's queries
    color: RgbImage  # uint8 [H, W, 3] RGB
    depth_mm: NDArray[np.uint16]  # uint16 [H, W], 0 where unknown
    # uint16 [H, W], the id of the object at each pixel, 0 for the background.
    instances: NDArray[np.uint16]
    # The recorded messages of the camera in CDR, by their key in `TOPICS`; empty for a shot that
    # was rendered.
    serialized: dict[str, bytes] = field(default_factory=dict)

    def truth(self) -> NDArray[np.bool_]:
        """Return bool [H, W]: the pixels of all objects that the question means."""
        return np.isin(self.instances, self.question.ids)

    @cached_property
    def camera(self) -> dict[str, Any]:
        """The ROS messages of color, depth and info as recorded; needs rclpy."""
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import CameraInfo, Image

        types = {"color": Image, "depth": Image, "info": CameraInfo}
        return {key: deserialize_message(self.serialized[key], types[key]) for key in types}


def write_clip(path: Path, shots: Iterable[Shot]) -> None:
    """Record shots into an mcap file, replacing an old one."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "clip"
        writer = Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            connections: dict[str, Any] = {}
            for number, shot in enumerate(shots):
                stamp_ns = FIRST_STAMP_S * 10**9 + round(number * SHOT_PERIOD_S * 1e9)
                for key, msg in _messages(store, shot, stamp_ns).items():
                    if key not in connections:
                        connections[key] = writer.add_connection(
                            TOPICS[key], msg.__msgtype__, typestore=store
                        )
                    data = store.serialize_cdr(msg, msg.__msgtype__)
                    writer.write(connections[key], stamp_ns, data)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(next(bag.glob("*.mcap")), path)


def _messages(store: Any, shot: Shot, stamp_ns: int) -> dict[str, Any]:
    """Build the messages of one shot, by their key in `TOPICS`."""
    stamp = store.types["builtin_interfaces/msg/Time"](
        sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
    )
    header = store.types["std_msgs/msg/Header"](stamp=stamp, frame_id=FRAME_ID)
    record = json.loads(shot.scene.to_json())
    record["demo_query"] = shot.scene.queries.index(shot.question)
    return {
        "color": _image(store, header, shot.color, "rgb8"),
        "depth": _image(store, header, shot.depth_mm, "16UC1"),
        "info": _camera_info(store, header, shot.scene),
        "instances": _image(store, header, shot.instances, "mono16"),
        "truth": store.types["std_msgs/msg/String"](data=json.dumps(record)),
    }


def _image(store: Any, header: Any, pixels: NDArray[Any], encoding: str) -> Any:
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
    return store.types["sensor_msgs/msg/Image"](
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=len(data) // height,
        data=data,
    )


def _camera_info(store: Any, header: Any, scene: Scene) -> Any:
    width, height = scene.image_size_wh
    fx, fy, cx, cy = (scene.intrinsics[name] for name in ("fx", "fy", "cx", "cy"))
    return store.types["sensor_msgs/msg/CameraInfo"](
        header=header,
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1], float),
        r=np.eye(3).reshape(-1),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0], float),
        binning_x=0,
        binning_y=0,
        roi=store.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def read_clip(path: Path) -> list[Shot]:
    """Read all shots; an OSError without a file, a ValueError if it is no clip of the demo."""
    from rosbags.rosbag2 import Reader, ReaderError
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    keys = {topic: key for key, topic in TOPICS.items()}
    moments: dict[int, dict[str, Any]] = {}
    serialized: dict[int, dict[str, bytes]] = {}
    try:
        with Reader(path) as reader:
            for connection, stamp_ns, data in reader.messages():
                if key := keys.get(connection.topic):
                    msg = store.deserialize_cdr(data, connection.msgtype)
                    moments.setdefault(stamp_ns, {})[key] = msg
                    serialized.setdefault(stamp_ns, {})[key] = bytes(data)
    except ReaderError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    shots = []
    for stamp_ns, messages in moments.items():
        missing = [TOPICS[key] for key in TOPICS if key not in messages]
        if missing:
            raise ValueError(f"{path}: a shot lacks {', '.join(missing)}")
        record = messages["truth"].data
        scene = Scene.from_json(record)
        color, depth, instances = (messages[key] for key in ("color", "depth", "instances"))
        shots.append(
            Shot(
                scene,
                scene.queries[json.loads(record)["demo_query"]],
                color.data.reshape(color.height, color.width, 3),
                depth.data.view("<u2").reshape(depth.height, depth.width),
                instances.data.view("<u2").reshape(instances.height, instances.width),
                serialized[stamp_ns],
            )
        )
    if not shots:
        raise ValueError(f"{path}: there is no image in it")
    return shots
