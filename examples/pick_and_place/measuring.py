"""Objects in the robot's base frame, from a mask and the depth image, with grasps that fit."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.pick_and_place.interfaces import Floats, Image
from segzero_core.config import GraspConfig
from segzero_core.depth import measure_object, object_cloud
from segzero_core.errors import InputError

PANDA: Final = GraspConfig(gripper="panda")
_AROUND_PX: Final = 30
"""Around a mask, where an object may continue and where its support is seen."""
_BIN_M, _RAISED_M = 0.004, 0.006
"""Heights are counted in bins of this; what is so much higher than its support is an object's."""
_STEP_PX, _APART_M, _LARGER = 8.0, 0.01, 4.0
"""Neighboring pixels of one part differ in depth by less than so many of their widths. A part so
far from the mask's largest is not meant. What the depth shows is the mask's object if it has at
most so many times its pixels."""
_MARGIN_M: Final = 0.005
_HAND_M: Final = np.array([(0.0, 0.0, -0.16), (0.13, 0.09, 0.17)])
"""Middle and half extents of the space that the hand fills, in its frame."""
_CAME_M, _HANGS_M = 0.02, 0.15
"""Where depth is so much less than before, there is something; so near to a hand, it holds it."""
_ARM_M: Final = 0.05
"""So far above the fingertips an arm begins."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Seen:
    """An object in the base frame."""

    mask: Mask  # bool [H, W], of the image
    points_m: Floats  # float64 [N, 3], its visible surface; empty: it could not be measured
    center_m: Floats  # float64 [3], middle of its box
    bottom_m: float  # height of its lowest point
    height_m: float  # of its box
    grasps: tuple[tuple[Floats, Floats], ...]  # position and rotation of the hand, best first

    @property
    def half_m(self) -> float:
        """Half of the longer side of what is visible, from above."""
        return float(np.ptp(self.points_m[:, :2], axis=0).max()) / 2


def measured(mask: Mask, image: Image, gripper: GraspConfig) -> Seen:
    """An object with its grasps; where its mask gives none, of what the depth shows there.

    If none keeps the palm clear, too, those follow that keep the fingers clear.

    Raises:
        InputError: The mask shows no whole object in the depth image.
    """
    found, fault = None, None
    fingers = replace(gripper, gripper="generic", palm_width_m=0.0)
    for hand, region in itertools.product((gripper, fingers), corrected(mask, image)):
        try:
            seen = _measured(region, image, hand)
        except InputError as error:
            fault = fault or error
            continue
        if seen.grasps:
            return seen
        found = found or seen
    if found is None:
        raise fault or InputError("the mask is empty: there is no object to measure")
    return found


def _measured(mask: Mask, image: Image, gripper: GraspConfig) -> Seen:
    up = image.rotation.T[:, 2]
    found = measure_object(mask, image.depth_m, image.camera, up=up, grasping=gripper)
    grasps = tuple(
        (image.in_base(grasp.position_m[None])[0], image.rotation @ grasp.rotation)
        for grasp in found.grasps
    )
    heights = image.in_base(found.box.corners_m())[:, 2]
    center = image.in_base(found.box.center_m[None])[0]
    points = image.in_base(found.cloud.points_m)
    return Seen(mask, points, center, float(heights.min()), float(np.ptp(heights)), grasps)


def surface(mask: Mask, image: Image) -> Seen:
    """The visible surface alone, for places that the image cuts off or that are large.

    Raises:
        InputError: The mask has no depth.
    """
    points = image.in_base(object_cloud(mask, image.depth_m, image.camera).points_m)
    low, high = points.min(axis=0), points.max(axis=0)
    return Seen(mask, points, (low + high) / 2, float(low[2]), float(high[2] - low[2]), ())


def corrected(mask: Mask, image: Image) -> tuple[Mask, ...]:
    """A mask as the depth corrects it, bool [H, W] each; none if it is empty.

    The first lacks the parts of other objects that the mask strayed to. The second is what stands
    out of its surroundings where the mask lies: a mask that covers a part of an object still tells
    which one is meant. It is left out where it is much larger, as something touches the object.
    """
    if not mask.any():
        return ()
    window, parts, support = _parts(mask, image)
    own, points = mask[window], image.points_m[window]
    inside = np.bincount(parts[own], minlength=int(parts.max()) + 1)
    inside[0] = 0
    main = int(inside.argmax())
    if not inside[main]:
        return (mask,)
    low, high = _corners(points[own & (parts == main)], _APART_M)
    meant = [main]
    for part in np.flatnonzero(inside):
        others = _corners(points[own & (parts == part)], 0.0)
        apart = (others[0] > high).any() or (others[1] < low).any()
        if not apart:
            meant.append(int(part))
    whole = np.isin(parts, meant).astype(np.uint8)
    grown = cv2.dilate(whole, np.ones((3, 3), np.uint8)) > 0
    cleaned = mask.copy()
    # Of the support, an object has what lies between or under its raised parts: a plate's middle.
    low, high = _corners(points[own & (whole > 0)][:, :2], _MARGIN_M)
    under = ((points[..., :2] >= low) & (points[..., :2] <= high)).all(axis=2)
    cleaned[window] &= grown | (support & under)
    if np.count_nonzero(grown) > _LARGER * np.count_nonzero(cleaned):
        return (cleaned,)
    shown = np.zeros_like(mask)
    shown[window] = grown
    return cleaned, shown


def _corners(points_m: Floats, margin_m: float) -> tuple[Floats, Floats]:
    return points_m.min(axis=0) - margin_m, points_m.max(axis=0) + margin_m


def _parts(
    mask: Mask, image: Image
) -> tuple[tuple[slice, slice], NDArray[np.int32], NDArray[np.bool_]]:
    """Numbers what stands out of its support around a mask, cut at steps of the depth.

    Returns:
        The window of the image; parts of its size, with 0 for all else; and what is no higher
        than the support, or unknown.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = (
        slice(max(0, rows[0] - _AROUND_PX), rows[-1] + 1 + _AROUND_PX),
        slice(max(0, columns[0] - _AROUND_PX), columns[-1] + 1 + _AROUND_PX),
    )
    depth, own, height = image.depth_m[window], mask[window], image.points_m[window][..., 2]
    known = np.isfinite(height)
    if not (own & known).any():
        return window, np.zeros(own.shape, np.int32), ~known
    # Most of what lies no higher than the object is what it stands on.
    below = height[known & (height <= np.median(height[own & known]) + _BIN_M)]
    bins = np.floor((below - below.min()) / _BIN_M).astype(np.intp)
    support = below.min() + (np.bincount(bins).argmax() + 1) * _BIN_M
    raised = known & (height > support + _RAISED_M)
    smooth = raised & ~_edges(depth, image.camera.focal_px)
    _, parts = cv2.connectedComponents(smooth.astype(np.uint8), connectivity=4)
    return window, parts, ~raised


def _edges(depth_m: NDArray[np.float32], focal_px: float) -> Mask:
    """Where the depth makes a step."""
    edge = np.zeros(depth_m.shape, np.bool_)
    step_m = _STEP_PX / focal_px * depth_m
    edge[:, 1:] |= np.abs(np.diff(depth_m, axis=1)) > step_m[:, 1:]
    edge[1:] |= np.abs(np.diff(depth_m, axis=0)) > step_m[1:]
    return edge


def without_hand(image: Image, position_m: Floats, rotation: Floats) -> Image:
    """The image with unknown depth where the hand and its arm are, no obstacles to themselves.

    The arm is what hangs together with the hand, higher than the fingers.
    """
    hand = in_box(image.points_m, position_m, rotation, _HAND_M)
    high = (image.points_m[..., 2] > position_m[2] + _ARM_M) & ~_edges(
        image.depth_m, image.camera.focal_px
    )
    _, parts = cv2.connectedComponents((hand | high).astype(np.uint8), connectivity=4)
    arm = np.isin(parts, np.unique(parts[hand])) if hand.any() else hand
    return replace(image, depth_m=np.where(arm, np.float32(np.nan), image.depth_m))


def in_box(points_m: Floats, position_m: Floats, rotation: Floats, box_m: Floats) -> Mask:
    """Which points [..., 3] lie in a box of a hand's frame, [2, 3]: middle and half extents."""
    off = (points_m - position_m) @ rotation - box_m[0]
    return np.asarray((np.abs(off) < box_m[1]).all(axis=-1))


def changed_share(region: Mask, before: Image, after: Image, least_m: float) -> float:
    """The share of a region of the image whose depth changed by so much, from a still camera."""
    moved = np.abs(after.depth_m - before.depth_m)[region]
    known = np.isfinite(moved)
    return float((moved[known] > least_m).mean()) if known.any() else 0.0


def hanging(hand_m: Floats, before: Image, after: Image) -> Floats:
    """What came under a hand, [N, 3], as seen from its fingertips, from a still camera."""
    off = after.points_m - hand_m
    new = before.depth_m - after.depth_m > _CAME_M
    new &= (np.linalg.norm(off[..., :2], axis=2) < _HANGS_M) & (off[..., 2] < 0)
    return np.asarray(off[new])
