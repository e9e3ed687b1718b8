"""The node's settings as ROS parameters: declared from the dataclass, and built back into it.

docs/parameters.md has the table of them (make tables).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from segzero_core.ambiguity import NEAR_EQUAL
from segzero_core.config import Bounds, GraspConfig, PipelineConfig, bounds_of, setting
from segzero_core.errors import ConfigError
from segzero_core.limits import MAX_IMAGE_PX, MAX_TIMEOUT_S, USUAL_IMAGE_PX


@dataclass(frozen=True)
class NodeConfig(GraspConfig, PipelineConfig):
    """All settings of the ROS 2 node."""

    autostart: bool = setting(
        True, "Configure and activate without waiting for a lifecycle manager."
    )
    image_transport: str = setting(
        "raw",
        "raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image/compressed`.",
        Bounds(choices=("raw", "compressed")),
    )
    max_image_age_s: float = setting(
        10.0,
        "A query is refused when the latest image arrived longer ago than this; 0: never.",
        Bounds(minimum=0.0, maximum=MAX_TIMEOUT_S, read_only=False),
    )
    max_image_px: int = setting(
        USUAL_IMAGE_PX,
        "A query about an image of more pixels (width times height) is refused.",
        Bounds(minimum=1, maximum=MAX_IMAGE_PX, read_only=False),
    )
    pair_tolerance_s: float = setting(
        0.02,
        "Depth and camera_info belong to an image when their stamps differ by at most this.",
        Bounds(minimum=0.0, maximum=1.0),
    )
    ring_size: int = setting(
        8, "How many images wait for their depth and camera_info.", Bounds(minimum=1, maximum=64)
    )
    when_busy: str = setting(
        "replace",
        "A query that comes while one runs and one waits: replace the waiting one, or be refused"
        " (queue). reject: be refused as soon as one runs.",
        Bounds(choices=("replace", "queue", "reject"), read_only=False),
    )
    timeout_s: float = setting(
        120.0,
        "Longest time from a query's arrival to its answer; a goal may set its own; 0: no limit.",
        Bounds(minimum=0.0, maximum=MAX_TIMEOUT_S, read_only=False),
    )
    stop_grace_s: float = setting(
        120.0,
        "A model that does not stop this long after a timeout or a cancellation counts as hung"
        " (~/status: ERROR). Longer than it takes to read the prompt, which cannot be stopped.",
        Bounds(minimum=0.05, maximum=3600.0, read_only=False),
    )
    exit_on_hang: bool = setting(
        False,
        "End the process with exit code 3 when the model hangs, for a supervisor to respawn it"
        " (launch argument respawn).",
        Bounds(read_only=False),
    )
    deactivate_timeout_s: float = setting(
        2.0,
        "How long deactivation lets the running query finish before it cancels it.",
        Bounds(minimum=0.0, maximum=600.0, read_only=False),
    )
    ambiguity_margin: float = setting(
        NEAR_EQUAL,
        "Objects whose scores differ by at most this are near-equal: a result with two of them"
        " for a query about one thing is marked ambiguous.",
        Bounds(minimum=0.0, maximum=1.0, read_only=False),
    )
    publish_overlay: bool = setting(
        True, "Draw ~/overlay whenever somebody subscribes to it.", Bounds(read_only=False)
    )
    target_frame: str = setting(
        "",
        "Frame with z up that poses, grasps, the cloud and 3-D markers are given in, by TF at the"
        " image's stamp; empty: the camera's own frame.",
        Bounds(read_only=False),
    )
    tf_timeout_s: float = setting(
        0.2,
        "How long an answer waits for the transform to target_frame.",
        Bounds(minimum=0.0, maximum=10.0, read_only=False),
    )
    rectified: bool = setting(
        False,
        "The images are rectified: P of camera_info holds, and no distortion.",
        Bounds(read_only=False),
    )
    overlay_rate_hz: float = setting(
        5.0,
        "The overlay is drawn at most this often; answers in between are left out.",
        Bounds(minimum=0.1, maximum=60.0, read_only=False),
    )
    tracking: bool = setting(
        True,
        "Track the objects of an answer while somebody subscribes to ~/tracks.",
        Bounds(read_only=False),
    )
    tracking_rate_hz: float = setting(
        30.0,
        "Images are tracked at most this often; those in between are skipped.",
        Bounds(minimum=0.1, maximum=1000.0, read_only=False),
    )

    def __post_init__(self) -> None:
        PipelineConfig.__post_init__(self)
        GraspConfig.__post_init__(self)


def declare_parameters(node: Node) -> None:
    """Declare every setting with its description and range.

    Raises:
        rclpy.exceptions.ParameterException: A given value has another type or is out of range.
    """
    for field in dataclasses.fields(NodeConfig):
        bounds = bounds_of(field)
        choices = ", ".join(map(repr, bounds.choices))
        descriptor = ParameterDescriptor(
            description=field.metadata["description"],
            additional_constraints=choices and f"one of {choices}",
            read_only=bounds.read_only,
        )
        low, high = bounds.minimum, bounds.maximum
        if low is not None and high is not None:
            if isinstance(field.default, int):
                limits = IntegerRange(from_value=int(low), to_value=int(high), step=1)
                descriptor.integer_range = [limits]
            else:
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=low, to_value=high)
                ]
        node.declare_parameter(field.name, field.default, descriptor)


def read_config(node: Node, changes: Iterable[Parameter] = ()) -> NodeConfig:
    """Build the settings from the node's parameters and the changes that are about to be made.

    Raises:
        ConfigError: A value is not allowed.
    """
    names = [field.name for field in dataclasses.fields(NodeConfig)]
    values = {name: node.get_parameter(name).value for name in names}
    values.update((change.name, change.value) for change in changes if change.name in values)
    return NodeConfig(**values)


def check_change(node: Node, changes: Iterable[Parameter]) -> SetParametersResult:
    """Check whether parameters may be set; the reason names the allowed values."""
    try:
        read_config(node, changes)
    except ConfigError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def parameter_table() -> str:
    """Return the Markdown table of all parameters that stands in docs/parameters.md."""
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(NodeConfig):
        late = "" if bounds_of(field).read_only else " May change at run time."
        meaning = field.metadata["description"] + late
        lines.append(f"| `{field.name}` | `{json.dumps(field.default)}` | {meaning} |")
    return "\n".join(lines) + "\n"
