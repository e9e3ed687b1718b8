"""An answer as vision_msgs/Detection2DArray, where that package is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from vision_msgs.msg import (
        BoundingBox2D,
        Detection2D,
        Detection2DArray,
        ObjectHypothesisWithPose,
    )
except ImportError:
    Detection2DArray = None

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from std_msgs.msg import Header

    from segzero_core.types import Result


def detections_to_msg(result: Result, header: Header) -> Any:
    """Build the detections; their ids are the values in ~/instances.

    The box is that of the mask, in pixels. The score is the mask IoU that the segmenter predicts
    for itself; a reasoner gives none.
    """
    objects = zip(result.segmentation.masks, result.segmentation.scores, strict=True)
    return Detection2DArray(
        header=header,
        detections=[
            _detection(index, mask, float(score), result.query, header)
            for index, (mask, score) in enumerate(objects, start=1)
            if mask.any()
        ],
    )


def _detection(
    index: int, mask: NDArray[np.bool_], score: float, label: str, header: Header
) -> Any:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = BoundingBox2D()
    box.center.position.x = float(columns[0] + columns[-1] + 1) / 2
    box.center.position.y = float(rows[0] + rows[-1] + 1) / 2
    box.size_x = float(columns[-1] + 1 - columns[0])
    box.size_y = float(rows[-1] + 1 - rows[0])
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = label
    hypothesis.hypothesis.score = score
    return Detection2D(header=header, id=str(index), bbox=box, results=[hypothesis])
