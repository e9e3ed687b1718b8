"""The segzero node as who is asked: the action ~/segment, about an image that the goal brings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.node import Node
from std_msgs.msg import Header

from examples.pick_and_place.interfaces import Image, Sight
from examples.pick_and_place.ros.calls import NoAnswerError, run_goal
from segzero_core.images.encodings import array_from_msg
from segzero_ros.action import Segment
from segzero_ros.conversions.images import msg_from_array


class RosEyes:
    """See `examples.pick_and_place.interfaces.Eyes`.

    The image comes with the question, so that masks and depth are of one moment.

    Args:
        node: Spins in another thread.
        target: Full name of the segzero node.
        patience_s: For an answer, or any sign of work on it.
    """

    def __init__(self, node: Node, target: str = "/segzero", patience_s: float = 120.0) -> None:
        self._node, self._target, self._patience_s = node, target, patience_s
        self._actions = ActionClient(node, Segment, f"{target}/segment")

    def find(self, text: str, image: Image) -> Sight:
        """See `Eyes`."""
        goal = Segment.Goal(query=text, image=msg_from_array(image.color, "rgb8", Header()))
        goal.timeout_s = self._patience_s
        none = np.zeros((0, *image.depth_m.shape), np.bool_)
        try:
            answer = run_goal(self._node, self._actions, goal, self._target, self._patience_s)
        except NoAnswerError as error:
            return Sight(none, error=str(error))
        result = answer.result
        if result.error_code:
            return Sight(none, error=f"error {result.error_code}: {result.error_msg}")
        masks = [mask_of(instance, image.depth_m.shape) for instance in result.instances]
        return Sight(np.array(masks) if masks else none, "", result.ambiguous, result.thinking)


def mask_of(instance: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return bool [H, W]: an instance's mask, put back where it was cropped from."""
    mask = np.zeros(shape, np.bool_)
    if instance.area_px:
        crop = array_from_msg(instance.mask) > 0
        top, left = instance.mask_y_offset, instance.mask_x_offset
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return mask
