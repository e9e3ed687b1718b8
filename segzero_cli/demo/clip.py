"""The demo's recorded clip: pictures of the tabletop in an mcap file that carries their truth.

`ros2 bag play` plays it too. Each shot is one picture of the camera with depth, camera info and
truth of the same stamp. `read_clip` needs rclpy; `write_clip` does not.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from worlds.tabletop.scene import Query, Scene

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo, Image

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
"""Any moment; a fixed one, so that the same scenes give the same file."""


@dataclass(frozen=True, eq=False)
class Take:
    """A rendered scene and the question that the demo asks about it.

    Attributes:
        scene: Everything but the pixels.
        question: One of the scene's queries.
        color: uint8 [H, W, 3] RGB.
        depth_mm: uint16 [H, W], 0 where unknown.
        instances: uint16 [H, W], 0 where nothing stands.
    """

    scene: Scene
    question: Query
    color: NDArray[np.uint8]
    depth_mm: NDArray[np.uint16]
    instances: NDArray[np.uint16]

    def truth(self) -> NDArray[np.bool_]:
        """Return bool [H, W]: the pixels of all objects that the question means."""
        return np.isin(self.instances, self.question.ids)


@dataclass(frozen=True, eq=False)
class Shot:
    """One moment of the clip, as it is played.

    Attributes:
        camera: Messages of color, depth and info, by their key in `TOPICS`.
        scene: What is to be seen.
        question: What the demo asks about it.
        instances: uint16 [H, W], the id of the object at each pixel.
    """

    camera: dict[str, Image | CameraInfo]
    scene: Scene
    question: Query
    instances: NDArray[np.uint16]

    def truth(self) -> NDArray[np.bool_]:
        """Return bool [H, W]: the pixels of all objects that the question means."""
        return np.isin(self.instances, self.question.ids)


def write_clip(path: Path, takes: Iterable[Take]) -> None:
    """Record scenes into an mcap file, replacing an old one."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "clip"
        writer = Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            connections: dict[str, Any] = {}
            for number, take in enumerate(takes):
                stamp_ns = FIRST_STAMP_S * 10**9 + round(number * SHOT_PERIOD_S * 1e9)
                for key, msg in _messages(store, take, stamp_ns).items():
                    if key not in connections:
                        connections[key] = writer.add_connection(
                            TOPICS[key], msg.__msgtype__, typestore=store
                        )
                    data = store.serialize_cdr(msg, msg.__msgtype__)
                    writer.write(connections[key], stamp_ns, data)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(next(bag.glob("*.mcap")), path)


def _messages(store: Any, take: Take, stamp_ns: int) -> dict[str, Any]:
    """Build the messages of one shot, by their key in `TOPICS`."""
    stamp = store.types["builtin_interfaces/msg/Time"](
        sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
    )
    header = store.types["std_msgs/msg/Header"](stamp=stamp, frame_id=FRAME_ID)
    record = json.loads(take.scene.to_json())
    record["demo_query"] = take.scene.queries.index(take.question)
    return {
        "color": _image(store, header, take.color, "rgb8"),
        "depth": _image(store, header, take.depth_mm, "16UC1"),
        "info": _camera_info(store, header, take.scene),
        "instances": _image(store, header, take.instances, "mono16"),
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
    """Read all shots.

    Raises:
        OSError: There is no such file.
        ValueError: It is no clip of the demo.
    """
    shots = []
    for messages in _moments(path):
        missing = [TOPICS[key] for key in TOPICS if key not in messages]
        if missing:
            raise ValueError(f"{path}: a shot lacks {', '.join(missing)}")
        record = messages["truth"].data
        scene = Scene.from_json(record)
        labels = messages["instances"]
        instances = np.frombuffer(labels.data, "<u2").reshape(labels.height, labels.width)
        camera = {key: messages[key] for key in ("color", "depth", "info")}
        question = scene.queries[json.loads(record)["demo_query"]]
        shots.append(Shot(camera, scene, question, instances))
    if not shots:
        raise ValueError(f"{path}: there is no picture in it")
    return shots


def _moments(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the messages of each stamp, by their key in `TOPICS`."""
    from rclpy.serialization import deserialize_message
    from rosbags.rosbag2 import Reader, ReaderError
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import String

    types = {"color": Image, "depth": Image, "info": CameraInfo, "truth": String}
    keys = {topic: key for key, topic in TOPICS.items()}
    moment: dict[str, Any] = {}
    moment_ns = None
    with contextlib.ExitStack() as stack:
        try:
            reader = stack.enter_context(Reader(path))
        except ReaderError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        for connection, stamp_ns, data in reader.messages():
            if connection.topic not in keys:
                continue
            if moment and stamp_ns != moment_ns:
                yield moment
                moment = {}
            key, moment_ns = keys[connection.topic], stamp_ns
            moment[key] = deserialize_message(bytes(data), types.get(key, Image))
    if moment:
        yield moment
