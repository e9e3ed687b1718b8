"""Adds to an answer what the depth of its moment tells; whatever goes wrong, the masks stay."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from segzero_core.errors import SegZeroError
from segzero_ros.messages.poses import add_poses, measure_answer
from segzero_ros.parameters import read_config
from segzero_ros.spatial.transforms import Frames

if TYPE_CHECKING:
    from segzero_ros.messages.poses import Scene3D
    from segzero_ros.node import SegZeroNode
    from segzero_ros.queries.answer import Answer
    from segzero_ros.queries.job import Job


class Measurer:
    """Measures the objects of answers, in the model's thread.

    Args:
        node: Whose answers they are; its ring and health exist.
        frames: Looks up transforms; by default by TF.
    """

    def __init__(self, node: SegZeroNode, frames: Frames | None = None) -> None:
        self._node = node
        self._frames = frames or Frames(node)
        if node.config.target_frame:
            self._frames.listen()

    def add_space(self, job: Job, answer: Answer) -> Answer:
        """Return an answer with its objects in space, or with the reason why not.

        Without any depth camera there is nothing to tell, and no reason to.
        """
        picture, node = answer.picture, self._node
        if answer.result is None or picture is None:
            return answer
        missed = job.picture is None and node.ring.has_depth
        if picture.packed_depth is None and not missed:
            return answer
        scene: Scene3D | None = None
        try:
            scene = measure_answer(answer, read_config(node), self._frames)
            add_poses(answer.msg.instances, scene)
            trouble = "; ".join(scene.reasons)
        except SegZeroError as error:
            trouble = str(error)
        except Exception as error:  # a defect here must not cost the answer
            node.log_defect(f"while measuring the objects of query {job.query.id}")
            scene, trouble = None, f"{type(error).__name__}: {error}; see the node's log"
        if trouble:
            node.reporter.warn_rarely(f"query {job.query.id}: no pose: {trouble}")
        node.health.measured(scene, trouble)
        answer.msg.total_ms = job.query.age_ms()
        return dataclasses.replace(answer, scene=scene, scene_trouble=trouble)
