"""The 3D poses of the objects of one answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from std_msgs.msg import Header

from segzero_core.depth import Measurement
from segzero_ros.spatial.transforms import CameraPose


@dataclass(frozen=True, eq=False)
class ObjectPoses:
    """The measured objects of an answer."""

    header: Header  # the image's stamp, and the frame that `transform` leads to
    transform: CameraPose  # from the camera's optical frame to that one
    # One for each object of the answer; None where it could not be measured.
    objects: tuple[Measurement | None, ...]
    reasons: tuple[str, ...]  # why not, one for each of those

    @classmethod
    def unmeasured(cls, header: Header, count: int) -> ObjectPoses:
        """Return those of an answer without depth, in the camera's own frame."""
        return cls(header, CameraPose(np.eye(3), np.zeros(3)), (None,) * count, ())
