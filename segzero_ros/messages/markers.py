"""An answer as markers for RViz.

The reasoner's boxes and its thinking are drawn on a plane one meter before the camera, where a box
covers in the camera's view what it covers in the image. What was measured by depth is drawn where
it is: a box around each object, and a gripper at its best grasp.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from segzero_core.images.palette import Color
from segzero_core.types import Box, Result
from segzero_ros.conversions.text import valid_text
from segzero_ros.spatial.scene import ObjectPoses

WHITE: Final = (255, 255, 255)
PLANE_M: Final = 1.0
LINE_M: Final = 0.004
TEXT_M: Final = 0.03
TEXT_ABOVE_M: Final = 0.4
WRAP_CHARS: Final = 60
MAX_LINES: Final = 12
EDGE_M: Final = 0.002


def markers_to_msg(
    result: Result,
    header: Header,
    info: CameraInfo | None,
    poses: ObjectPoses,
    colors: Sequence[Color],
) -> MarkerArray:
    """Build the markers of an answer; they replace those of the answer before.

    The header is the image's, for what depth has no part in; each object has a color. Without the
    camera's calibration the reasoner's boxes are not drawn.
    """
    markers = [Marker(header=header, action=Marker.DELETEALL), _thinking(result, header)]
    if info is not None and info.k[0] > 0 and info.k[4] > 0:
        prompts = zip(result.reasoning.prompts, colors, strict=True)
        markers += [
            _image_box(index, prompt.box, header, info, color)
            for index, (prompt, color) in enumerate(prompts, start=1)
        ]
    for index, (measured, color) in enumerate(zip(poses.objects, colors, strict=False), start=1):
        if measured is None:
            continue
        markers.append(_lines(poses, "objects", index, measured.box.edges_m(), color))
        if measured.grasps:
            best = measured.grasps[0]
            markers.append(_lines(poses, "grasps", index, best.gripper_lines_m()))
    return MarkerArray(markers=markers)


def _thinking(result: Result, header: Header) -> Marker:
    text = result.reasoning.thinking or "(no thinking)"
    lines = textwrap.wrap(text, WRAP_CHARS, max_lines=MAX_LINES, placeholder=" …")
    marker = _marker(header, "reasoning", 0, Marker.TEXT_VIEW_FACING)
    marker.text = valid_text("\n".join([f"“{result.query}”", *lines]))
    marker.pose.position = Point(x=0.0, y=-TEXT_ABOVE_M, z=PLANE_M)
    marker.scale.z = TEXT_M
    return marker


def _image_box(index: int, box: Box, header: Header, info: CameraInfo, color: Color) -> Marker:
    marker = _marker(header, "boxes", index, Marker.LINE_STRIP, color)
    x_min, y_min, x_max, y_max = box.xyxy
    corners = ((x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max), (x_min, y_min))
    marker.points = [
        Point(
            x=(x - info.k[2]) / info.k[0] * PLANE_M,
            y=(y - info.k[5]) / info.k[4] * PLANE_M,
            z=PLANE_M,
        )
        for x, y in corners
    ]
    marker.scale.x = LINE_M
    return marker


def _lines(
    poses: ObjectPoses,
    namespace: str,
    index: int,
    ends_m: NDArray[np.float64],
    color: Color = WHITE,
) -> Marker:
    marker = _marker(poses.header, namespace, index, Marker.LINE_LIST, color)
    ends = poses.transform.apply(ends_m).tolist()
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in ends]
    marker.scale.x = EDGE_M
    return marker


def _marker(header: Header, namespace: str, index: int, kind: int, color: Color = WHITE) -> Marker:
    marker = Marker(header=header, ns=namespace, id=index, type=kind)
    marker.pose.orientation.w = marker.color.a = 1.0
    marker.color.r, marker.color.g, marker.color.b = (each / 255.0 for each in color)
    return marker
