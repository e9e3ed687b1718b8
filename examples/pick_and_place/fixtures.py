"""Drawers that open by their handle, and knobs that are turned.

A model answers with the whole cabinet or stove; what is taken of it is found in its shape. Handles
stick out of the front, one over the other; a knob's blade is the highest part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from examples.pick_and_place.interfaces import Fault, Floats, Image, Moved, Robot, StepError
from examples.pick_and_place.measuring import Seen, in_box
from examples.pick_and_place.picking import (
    HELD_M,
    STRAY_PX,
    UP,
    about,
    nearer_turn,
    over,
    travel,
)
from examples.pick_and_place.placing import Goal, standing_px, stands_at

_LEVELS: Final = {"top": 0, "upper": 0, "middle": 1, "bottom": -1, "lower": -1}
"""Which of the handles, from above."""
_TOP_M: Final = 0.015
"""The top of a fixture is what lies so far below its highest points."""
_OUT_M, _LEAST_PX = 0.012, 60
"""A handle sticks out of the front by more, over so many pixels."""
_GAP_M: Final = 0.02
"""Handles are further apart than this in height."""
_LOW_M: Final = 0.06
"""The palm, which is held upright, has no room before a handle that is so near to the ground."""
_ASKEW_DEG: Final = (25, 0, -25, 50, -50)
"""The hand comes to other handles so far from the side."""
_ARM_M: Final = np.array([(0.0, 0.0, -0.19), (0.11, 0.06, 0.15)])
"""Middle and half extents of the space that the hand and the arm behind it fill, in its frame."""
_ROUND_M: Final = 0.05
"""The ground is seen so far around a spot."""
_DOWN_RAD, _BAR_M = math.radians(50), 0.016
"""Such a handle is hooked by fingers that point down so steeply, behind a bar so thick."""
_PRESS_M: Final = 0.08
"""They are told to go so much deeper than they can."""
_BEFORE_M, _BEHIND_M = 0.09, 0.006
"""Where the hand turns to a handle; how far the fingertips reach behind its front."""
_PULL_M, _PULLED_M = 0.165, 0.12
"""How far a drawer is pulled, and at least comes."""
_HALF_M, _ROOM_M = 0.13, 0.08
"""Half the width of a drawer, and room for the hand around what stands before it."""
_ASIDE_M: Final = 0.05
"""Places before a drawer are tried at such distances."""
_DEEP_M: Final = 0.03
"""An object is let go so far below the edge of a drawer."""
_BLADE_M, _GRIP_M = 0.014, 0.018
"""A knob's blade stands out of the fixture's top by more; how deep the fingers reach."""
_CELL_M: Final = 0.01
"""What is seen from above is of one part where its cells of this size touch."""
_TURN_RAD, _TURNED_RAD = math.radians(70), math.radians(25)
"""How far a knob is turned, and at least comes. Counterclockwise, from above, is on."""


@dataclass(frozen=True, eq=False)
class Handle:
    """The handle of a drawer."""

    position_m: Floats  # [3], the middle of its front
    outward: Floats  # [3], the level direction in which the drawer opens
    face_m: float  # how far the cabinet's front is behind it


def find_handles(cabinet: Seen) -> list[Handle]:
    """The handles on the side where something sticks out, from above."""
    points = cabinet.points_m
    top = float(np.percentile(points[:, 2], 98))
    upper = points[points[:, 2] > top - _TOP_M, :2]
    center, size, angle = cv2.minAreaRect(((upper - upper[0]) * 1000).astype(np.float32))
    middle = np.array(center) / 1000 + upper[0]
    turn = np.radians(angle)
    axes = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    best: tuple[int, list[Handle]] = (0, [])
    below = points[points[:, 2] < top - _GAP_M]
    for axis, extent in zip((0, 1), size, strict=True):
        for outward in (axes[axis], -axes[axis]):
            off = (below[:, :2] - middle) @ outward - extent / 2000
            out = (off > _OUT_M) & (off < _BEFORE_M)
            handles = _by_height(below[out], off[out], outward)
            if np.count_nonzero(out) > best[0] and handles:
                best = (int(np.count_nonzero(out)), handles)
    return best[1]


def _by_height(points_m: Floats, off_m: Floats, outward: Floats) -> list[Handle]:
    if not len(points_m):
        return []
    order = np.argsort(-points_m[:, 2])
    points, off = points_m[order], off_m[order]
    cuts = np.flatnonzero(-np.diff(points[:, 2]) > _GAP_M) + 1
    handles = []
    for part, depth in zip(np.split(points, cuts), np.split(off, cuts), strict=True):
        if len(part) < _LEAST_PX:
            continue
        front = float(np.percentile(depth, 95))
        bar = part[depth > front - _OUT_M]
        along = np.array([-outward[1], outward[0]])
        places = bar[:, :2] @ along
        side = (np.percentile(places, 2) + np.percentile(places, 98)) / 2
        ahead = float(np.percentile(bar[:, :2] @ outward, 95))
        height = (np.percentile(bar[:, 2], 2) + np.percentile(bar[:, 2], 98)) / 2
        position = np.array([*(side * along + ahead * outward), height])
        handles.append(Handle(position, np.array([*outward, 0.0]), front))
    return handles


def handle_of(cabinet: Seen, text: str) -> Handle:
    """The handle of the drawer that a noun phrase names, the top one if it does not say.

    Raises:
        StepError: There are not so many.
    """
    handles = find_handles(cabinet)
    level = next((_LEVELS[word] for word in text.split() if word in _LEVELS), 0)
    if not -len(handles) <= level < len(handles):
        raise StepError(Fault.NO_GRASP, text)
    return handles[level]


def out_of_way(handle: Handle, item: Seen, image: Image, hand_m: Floats) -> Goal | None:
    """Where an object can wait that a drawer would hide or push; None if it is not in the way.

    Args:
        handle: Of the drawer.
        item: The object.
        image: Shows what else stands before the drawer.
        hand_m: [3], where the hand is; the free place nearest to it is taken.
    """
    half_m = item.half_m
    outward = handle.outward[:2]
    along = np.array([-outward[1], outward[0]])
    off = item.center_m[:2] - handle.position_m[:2]
    beyond, wide = _PULL_M + _ROOM_M + half_m, _HALF_M + _ROOM_M + half_m
    if not (-half_m < off @ outward < beyond and abs(off @ along) < wide):
        return None
    spots = [
        (beyond + i * _ASIDE_M) * outward + j * _ASIDE_M * along
        for i in range(1, 4)
        for j in range(-6, 7)
    ]
    goals = [
        Goal(np.array([*(handle.position_m[:2] + spot), item.bottom_m]), _ROOM_M, item.bottom_m)
        for spot in spots
    ]
    return min(
        goals,
        key=lambda goal: (
            standing_px(goal, image, half_m + _ROOM_M),
            float(np.linalg.norm((goal.point_m - hand_m)[:2])),
        ),
    )


def open_drawer(robot: Robot, cabinet: Seen, before: Image, text: str) -> Goal:
    """Pull a drawer by its handle; tells where something goes that is put in it.

    Args:
        robot: Whose hand is empty.
        cabinet: That the drawer is in.
        before: The image of the cabinet.
        text: What the drawer is called: "the top drawer of the cabinet".

    Raises:
        StepError: It has no such handle, or did not come.
    """
    handle = handle_of(cabinet, text)
    home = (robot.position_m(), robot.rotation())
    if handle.position_m[2] - _ground_m(handle, cabinet, before) < _LOW_M:
        pulled = _pull(robot, handle, _hook(robot, handle), _PRESS_M)
    else:
        others = before.points_m[~cabinet.mask & np.isfinite(before.points_m).all(axis=2)]
        for approach in approaches(handle, home[0], others):
            rotation = _pinch(robot, handle, approach)
            pulled = _pull(robot, handle, rotation) if rotation is not None else 0.0
            if pulled > _PULLED_M or robot.out_of_time():
                break
    travel(robot, *home)
    moved = handle.position_m + pulled * handle.outward
    shown = stands_at(Goal(moved, 0.06, moved[2] - _GAP_M), _GAP_M, _GAP_M, before, robot.look())
    if robot.out_of_time() or pulled < _PULLED_M or not shown:
        raise StepError(Fault.OUT_OF_TIME if robot.out_of_time() else Fault.MISSED, text)
    inside = handle.position_m + (pulled / 2 - handle.face_m) * handle.outward
    return Goal(inside, pulled / 2, float(inside[2]) - 2 * _DEEP_M)


def _ground_m(handle: Handle, cabinet: Seen, image: Image) -> float:
    """How high it is before a handle; the cabinet's mask may stray to what is lower."""
    spot = handle.position_m + _BEFORE_M * handle.outward
    near = np.linalg.norm(image.points_m[..., :2] - spot[:2], axis=2) < _ROUND_M
    heights = image.points_m[near & ~cabinet.mask, 2]
    return float(np.median(heights)) if len(heights) else cabinet.bottom_m


def approaches(handle: Handle, hand_m: Floats, others_m: Floats) -> list[Floats]:
    """Level directions, [3], in which a hand may come to a bar; on the first it meets least.

    Where they meet the same, in the order of `_ASKEW_DEG`, from the side where the hand is now.
    Straight from the front, a far arm would be stretched at the end of the pull.
    """
    aside = np.cross(UP, handle.outward)
    aside *= np.sign((handle.position_m - hand_m) @ aside)
    angles = np.radians(_ASKEW_DEG)[:, None]
    directions = np.sin(angles) * aside - np.cos(angles) * handle.outward

    def met(approach: Floats) -> int:
        frame = np.stack((UP, np.cross(approach, UP), approach), axis=1)
        way = np.linspace(handle.position_m, handle.position_m + _PULL_M * handle.outward, 6)
        stops = np.concatenate(
            (way[:1] - _BEFORE_M * approach, way, way[-1:] - _BEFORE_M * approach)
        )
        inside = in_box(others_m, stops[:, None], frame, _ARM_M)
        return max(STRAY_PX, np.count_nonzero(inside.any(axis=0)))

    return sorted(directions, key=met)


def _pinch(robot: Robot, handle: Handle, approach: Floats) -> Floats | None:
    """Close the fingers over and under a bar; returns how the hand is turned, or None."""
    rotation = _turned(approach, -UP, robot)
    at = handle.position_m - (_OUT_M + _BEHIND_M) * handle.outward
    robot.open()
    if travel(robot, at - _BEFORE_M * approach, rotation) is Moved.OUT_OF_REACH:
        return None
    robot.move_to(at, rotation, slow=True)
    robot.close()
    return rotation


def _pull(robot: Robot, handle: Handle, rotation: Floats, press_m: float = 0.0) -> float:
    """Pull by a handle and withdraw; returns how far the hand came [m]."""
    start = robot.position_m()
    robot.move_to(start + _PULL_M * handle.outward - press_m * UP, rotation)
    pulled = float((robot.position_m() - start) @ handle.outward)
    if press_m:  # fingers that hook are free behind the bar, and open above it
        robot.move_to(robot.position_m() - _BEFORE_M * rotation[:, 2], rotation)
    robot.open()
    robot.move_to(robot.position_m() - _BEFORE_M * rotation[:, 2], rotation)
    return pulled


def _hook(robot: Robot, handle: Handle) -> Floats:
    """Put closed fingers behind a bar, from above; returns how the hand is turned."""
    approach = -math.cos(_DOWN_RAD) * handle.outward - math.sin(_DOWN_RAD) * UP
    rotation = _turned(approach, np.cross(UP, handle.outward), robot)
    gap = handle.position_m - (handle.face_m + _BAR_M) / 2 * handle.outward
    robot.close()
    travel(robot, gap - _BEFORE_M * approach, rotation)
    robot.move_to(gap, rotation, slow=True)
    return rotation


def _turned(approach: Floats, closing: Floats, robot: Robot) -> Floats:
    rotation = np.stack((closing, np.cross(approach, closing), approach), axis=1)
    return nearer_turn(rotation, robot.rotation())


def turn_knob(robot: Robot, fixture: Seen, text: str, *, on: bool) -> None:
    """Turn the knob of a fixture by its blade.

    Raises:
        StepError: No knob stands out of it, or it did not turn.
    """
    middle, along = knob_of(fixture, text)
    closing = np.array([-along[1], along[0], 0.0])
    rotation = _turned(-UP, closing, robot)
    robot.open()
    travel(robot, over(middle, _BEFORE_M), rotation)
    robot.move_to(over(middle, -_GRIP_M), rotation, slow=True)
    robot.close()
    holds = robot.opening_m() > HELD_M
    turned = about(UP, _TURN_RAD if on else -_TURN_RAD) @ rotation
    robot.move_to(robot.position_m(), turned, slow=True)
    came = math.acos(np.clip(rotation[:, 0] @ robot.rotation()[:, 0], -1, 1))
    robot.open()
    robot.move_to(over(middle, _BEFORE_M), robot.rotation())
    if robot.out_of_time() or not holds or came < _TURNED_RAD:
        raise StepError(Fault.OUT_OF_TIME if robot.out_of_time() else Fault.MISSED, text)


def knob_of(fixture: Seen, text: str) -> tuple[Floats, Floats]:
    """The middle of the blade's upper edge, [3], and its direction, [2].

    Raises:
        StepError: Nothing stands out of the fixture.
    """
    points = fixture.points_m
    level = float(np.median(points[:, 2]))
    blade = _largest_part(points[points[:, 2] > level + _BLADE_M])
    if len(blade) < _LEAST_PX:
        raise StepError(Fault.NO_GRASP, text)
    flat = blade[:, :2] - blade[:, :2].mean(axis=0)
    along = np.linalg.eigh(flat.T @ flat)[1][:, 1]
    low, high = blade.min(axis=0), blade.max(axis=0)
    return np.array([*((low + high)[:2] / 2), high[2]]), along


def _largest_part(points_m: Floats) -> Floats:
    """Of what lies apart, as seen from above, that with the most points."""
    if not len(points_m):
        return points_m
    cells = np.floor((points_m[:, :2] - points_m[:, :2].min(axis=0)) / _CELL_M).astype(np.intp)
    grid = np.zeros(cells.max(axis=0) + 1, np.uint8)
    grid[tuple(cells.T)] = 1
    parts = cv2.connectedComponents(grid, connectivity=8)[1][tuple(cells.T)]
    return points_m[parts == np.bincount(parts).argmax()]
