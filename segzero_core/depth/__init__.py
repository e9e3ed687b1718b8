"""From a mask and depth to a point cloud, an oriented box and grasps."""

from segzero_core.config import GraspConfig
from segzero_core.depth.camera import CameraModel, camera_from_info
from segzero_core.depth.grasp_planner import grasp_candidates
from segzero_core.depth.measurement import (
    MAX_BORDER_PX,
    Measurement,
    border_pixels,
    depth_in_meters,
    measure_object,
    object_cloud,
)
from segzero_core.depth.shape_completion import oriented_box
from segzero_core.depth.support_plane import find_support_plane, nearby_points
from segzero_core.depth.types import Grasp, ObjectCloud, OrientedBox, SupportPlane

__all__ = [
    "MAX_BORDER_PX",
    "CameraModel",
    "Grasp",
    "GraspConfig",
    "Measurement",
    "ObjectCloud",
    "OrientedBox",
    "SupportPlane",
    "border_pixels",
    "camera_from_info",
    "depth_in_meters",
    "find_support_plane",
    "grasp_candidates",
    "measure_object",
    "nearby_points",
    "object_cloud",
    "oriented_box",
]
