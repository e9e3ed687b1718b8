"""Motions of the hand: there over everything, a grasp whose hold is checked, and letting go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from examples.pick_and_place.interfaces import Fault, Floats, Image, Moved, Robot, StepError
from examples.pick_and_place.measuring import Seen, changed_share, hanging, in_box
from examples.pick_and_place.placing import Goal

ABOVE_M, LIFT_M, CLEAR_M = 0.10, 0.16, 0.12
"""Where the way down begins; how high an object is lifted; how far the hand withdraws."""
_BACK_M: Final = 0.1
"""A stretched arm lifts by going back so far."""
_FOLDED_M, _FREE_M, _OUT_M = 0.15, 0.04, 0.15
"""An arm that takes something so much nearer to its base than it began is folded, and would turn
its elbow over in a straight lift: it lifts so far, and the rest while it goes so far out."""
_DROP_M: Final = 0.012
"""Height over the place from which an object is let go."""
_WITHIN: Final = 0.8
"""An object goes so far from a goal's middle at most, as a share of what is allowed."""
HELD_M: Final = 0.0015
"""Fingers that hold something stay further apart."""
_NEAR_M: Final = 0.02
"""A hand that was stopped so near to a grasp closes there."""
_GONE_M, _GONE_SHARE = 0.01, 0.3
"""An object left its place where the depth of so much of it changed by so much."""
_FLAT, _HANGING_PX, _SWUNG_M = 0.3, 40, 0.02
"""What is so much less high than wide swung down if so many pixels show it, and it hangs so much
lower than it stood."""
_SAME_M, _SAME_COS = 0.012, 0.9
"""A grasp so near to one that failed, closing alike, would fail again."""
_WAY_M, _SPARE_M = 0.09, 0.06
"""Half the width of the way of what is carried, and the room under it: held by a rim, it hangs."""
_START_M, _NEARLY_M, _HIGHER_M = 0.12, 0.06, 0.12
"""Nothing is in the way so near to where it begins; what is so much higher is left out where the
arm cannot go over it; what blocks the way is tried to pass so much higher."""
_LAYING_STEPS: Final = 4
"""Straight ways that stand for the arc of what is laid down."""
_DESCENTS: Final = (1.0, 0.6, 0.3)
"""Shares of a way's height that are left at its end; the first that the arm reaches."""
_PALM_M: Final = np.array([(0.0, 0.0, -0.1), (0.11, 0.04, 0.06)])
"""Middle and half extents of the palm's space, in the hand's frame."""
_TURNS_DEG: Final = (0, 30, -30, 60, -60, 90)
_AROUND_M, STRAY_PX = 0.25, 5
"""What may meet the palm stands so near; so few pixels may be wrong."""
_FAR_COS: Final = 0.5
"""Grasps that turn the wrist by more than 60 degrees are tried last."""
_BEYOND_M: Final = 0.01
"""Grasps that are so far behind an object's middle, as the hand sees it, are tried late."""
_THERE_M, _THERE_COS = 0.03, 0.97
"""A hand so far from where the way down begins, or turned so, did not get there."""
_SLENDER: Final = 1.5
"""What is so many times as high as it is wide falls over on a slope."""
_LEAN_RAD: Final = math.radians(35)
"""How far such an object leans uphill when it is let go, so that it falls that way."""

UP: Final = np.array([0.0, 0.0, 1.0])
Pose = tuple[Floats, Floats]  # position [3] and rotation [3, 3] of the hand


@dataclass(frozen=True, eq=False)
class Held:
    """What is in the hand."""

    offset_xy_m: Floats  # the object's middle minus the hand's, at the grasp
    height_m: float  # the hand's height over the object's lowest point
    slender: bool  # much higher than wide
    taken_m: Floats  # [3], where the hand took it
    # [3], the hand minus the middle of the lowest side, as it lay; where it swung down since then.
    lying_m: Floats | None = None


def pick(robot: Robot, item: Seen, before: Image, failed: list[Pose], text: str) -> Held:
    """Take an object by the best of its grasps, as long as nothing was touched.

    Args:
        robot: Whose hand is empty.
        item: The object.
        before: The image in which it was found.
        failed: Grasps that did not hold; grows.
        text: The object's noun phrase.

    Raises:
        StepError: There is no grasp left, or none is reached, or it did not hold.
    """
    fault = Fault.NO_GRASP
    now: Pose = (robot.position_m(), robot.rotation())
    for position, rotation in sorted(item.grasps, key=lambda grasp: _is_hard(grasp, item, now)):
        if any(_alike((position, rotation), other) for other in failed):
            continue
        failed.append((position, rotation))
        turned = nearer_turn(rotation, robot.rotation())
        above = position - ABOVE_M * turned[:, 2]
        robot.open()
        moved = travel(robot, above, turned)
        if not _is_there(robot, above, turned) and not robot.out_of_time():
            # From elsewhere the way down is another one.
            fault = Fault.BLOCKED if moved is Moved.BLOCKED else Fault.OUT_OF_REACH
            continue
        moved = robot.move_to(position, turned, slow=True)
        at = robot.position_m()
        if robot.out_of_time():
            raise StepError(Fault.OUT_OF_TIME, text)
        if moved is Moved.OUT_OF_REACH:
            fault = Fault.OUT_OF_REACH
            continue
        if np.linalg.norm(at - position) > _NEAR_M:
            robot.move_to(above, turned)
            raise StepError(Fault.BLOCKED, text)  # an arm that was pushed is best sent home
        robot.close()
        lifted = over(at, LIFT_M)
        way = (now[0] - at) * [1, 1, 0]
        if way[0] > _FOLDED_M:
            robot.move_to(over(at, _FREE_M), turned, slow=True)
            lifted += _OUT_M * way / np.linalg.norm(way)
        if robot.move_to(lifted, turned, slow=True) is Moved.OUT_OF_REACH:
            robot.move_to(lifted + _BACK_M * way / np.linalg.norm(way), turned, slow=True)
        after = robot.look()
        gone = changed_share(item.mask, before, after, _GONE_M) > _GONE_SHARE
        if robot.opening_m() > HELD_M and gone:
            return _hold(item, at, hanging(robot.position_m(), before, after))
        robot.open()
        raise StepError(Fault.MISSED, text)
    raise StepError(fault, text)


def _hold(item: Seen, taken_m: Floats, hanging_m: Floats) -> Held:
    """How an object is held; where something flat swung down in the fingers, as it hangs now.

    What is not flat is tilted by its rim, and stands up again where it is put down.
    """
    offset_xy_m, height_m = item.center_m[:2] - taken_m[:2], float(taken_m[2] - item.bottom_m)
    lying_m = None
    if len(hanging_m) > _HANGING_PX and item.height_m < _FLAT * 2 * item.half_m:
        low, high = np.percentile(hanging_m, (1, 99), axis=0)
        if -low[2] > height_m + _SWUNG_M:
            lying_m = np.array([*-offset_xy_m, height_m])
            offset_xy_m, height_m = (low + high)[:2] / 2, -float(low[2])
    slender = item.height_m > _SLENDER * 2 * item.half_m
    return Held(offset_xy_m, height_m, slender, taken_m, lying_m)


def put(robot: Robot, held: Held, goal: Goal, before: Image, text: str) -> bool:
    """Put down what is in the hand, over all that the image shows on the way, and withdraw.

    Returns:
        Whether the hand got there; where it was stopped before, it let go there.

    Raises:
        StepError: It slipped out on the way, the goal is not reached, or time is over.
    """
    there, rotation = _bring(robot, held, goal, before, text)
    arrived = np.linalg.norm((robot.position_m() - there)[:2]) < 2 * _NEAR_M
    robot.open()
    robot.move_to(robot.position_m() - CLEAR_M * rotation[:, 2], rotation)
    if robot.out_of_time():
        raise StepError(Fault.OUT_OF_TIME, text)
    return bool(arrived)


def _bring(
    robot: Robot, held: Held, goal: Goal, before: Image, text: str
) -> tuple[Floats, Floats]:
    """Bring what is in the hand to the first point of a goal that is reached.

    Returns:
        The hand's position [3] and rotation [3, 3] there; it may have been stopped before.
    """
    lean = leaning(goal.slope) if held.slender else np.eye(3)
    hangs_m = np.array([*-held.offset_xy_m, held.height_m])
    points = _points(goal, robot.position_m())
    # What cannot be laid down is let go as it hangs.
    ways = [(point, held.lying_m) for point in points if held.lying_m is not None]
    for point, lying_m in [*ways, *((point, None) for point in points)]:
        last_m = hangs_m if lying_m is None else lying_m
        turn = lean @ roomy_turn(before, point, last_m, robot.rotation())
        rotation, lies = turn @ robot.rotation(), over(point + turn @ last_m, _DROP_M)
        there = lies
        if lying_m is not None:
            # Its lower edge stands where the far edge is to lie.
            there = point + turn @ (hangs_m - lying_m * [1, 1, 0])
        moved = _carry(robot, held, there, rotation, before)
        if moved is not Moved.OUT_OF_REACH:
            if robot.opening_m() <= HELD_M:
                raise StepError(Fault.DROPPED, text)
            moved = robot.move_to(there, rotation, slow=True)
        if moved is not Moved.OUT_OF_REACH:
            if lying_m is not None:
                _lay_down(robot, there, lies)
            return lies, rotation
    _put_back(robot, held)
    raise StepError(Fault.OUT_OF_REACH, text)


def _lay_down(robot: Robot, there_m: Floats, lying_m: Floats) -> None:
    """Turn what hangs in the fingers about its lower edge, which stands, until it lies.

    Args:
        robot: Whose fingers are the hinge of the upper edge.
        there_m: [3], where the hand is while it hangs.
        lying_m: [3], where the hand is when it lies.
    """
    away, down = lying_m - there_m, there_m[2] - lying_m[2]
    for angle in np.linspace(0, math.pi / 2, _LAYING_STEPS + 1)[1:]:
        aside = away * [1, 1, 0] * math.sin(angle)
        at = over(there_m + aside, -down * (1 - math.cos(angle)))
        robot.move_to(at, robot.rotation(), slow=True)


def _points(goal: Goal, hand_m: Floats) -> tuple[Floats, ...]:
    """Where on a goal an object may go, [3] each: its middle, and what is easier to reach."""
    way = (hand_m - goal.point_m) * [1, 1, 0]
    nearer = min(1.0, _WITHIN * goal.reach_m / max(float(np.linalg.norm(way)), 1e-9)) * way
    return tuple(goal.point_m + share * nearer for share in (0.0, 0.5, 1.0))


def _put_back(robot: Robot, held: Held) -> None:
    """Let go of what can go nowhere else where it was taken."""
    robot.move_to(over(held.taken_m, LIFT_M), robot.rotation())
    robot.move_to(over(held.taken_m, _DROP_M), robot.rotation(), slow=True)
    robot.open()
    robot.move_to(over(held.taken_m, LIFT_M), robot.rotation())


def _carry(robot: Robot, held: Held, there: Floats, rotation: Floats, before: Image) -> Moved:
    """Carry something over a place; what the arm cannot reach over is gone around by luck."""
    moved = _carry_over(robot, held, there, rotation, before)
    if np.linalg.norm((robot.position_m() - there)[:2]) > 2 * _NEAR_M and moved is Moved.BLOCKED:
        raised = over(robot.position_m(), _HIGHER_M)
        robot.move_to(raised, rotation)
        robot.move_to(np.array([*there[:2], raised[2]]), rotation)
    return moved


def _carry_over(robot: Robot, held: Held, there: Floats, rotation: Floats, before: Image) -> Moved:
    """Carry something over a place as high as the arm gets there; it begins high enough."""
    start, now = robot.position_m(), robot.rotation()
    low = there[2] + _DROP_M
    for limit in (np.inf, start[2] + _NEARLY_M):
        obstacles = _highest_m(before, start, there, limit) + held.height_m + _SPARE_M
        high = max(low, start[2], obstacles)
        # A stretched arm cannot go up: then it goes up on its way.
        robot.move_to(np.array([*start[:2], high]), now)
        for share in _DESCENTS:
            end = np.array([*there[:2], low + share * (high - low)])
            moved = robot.move_to(end, rotation)
            if moved is not Moved.OUT_OF_REACH:
                return moved
    return Moved.OUT_OF_REACH


def roomy_turn(image: Image, point_m: Floats, offset_m: Floats, rotation: Floats) -> Floats:
    """The least turn about the vertical, [3, 3], with which the palm meets nothing at a place.

    Args:
        image: What stands there.
        point_m: [3], the place of an object.
        offset_m: [3], the hand's position minus the object's.
        rotation: [3, 3], how the hand is turned.
    """
    points = image.points_m.reshape(-1, 3)
    points = points[np.linalg.norm(points[:, :2] - point_m[:2], axis=1) < _AROUND_M]

    def met(turn: Floats) -> int:
        inside = in_box(points, point_m + turn @ offset_m, turn @ rotation, _PALM_M)
        return max(STRAY_PX, np.count_nonzero(inside))

    return min((about(UP, math.radians(angle)) for angle in _TURNS_DEG), key=met)


def _highest_m(image: Image, start_m: Floats, end_m: Floats, limit_m: float) -> float:
    """The height of what stands on a straight way, up to a limit."""
    points = image.points_m.reshape(-1, 3)
    way, off = (end_m - start_m)[:2], points[:, :2] - start_m[:2]
    along = np.clip(off @ way / max(float(way @ way), 1e-9), 0, 1)
    near = np.linalg.norm(off - along[:, None] * way, axis=1) < _WAY_M
    near &= (np.linalg.norm(off, axis=1) > _START_M) & (points[:, 2] < limit_m)
    return float(np.percentile(points[near, 2], 99.5)) if near.any() else -np.inf


def release_nothing(robot: Robot) -> None:
    """Open a hand that closed on nothing."""
    if robot.opening_m() <= HELD_M:
        robot.open()


def travel(robot: Robot, position_m: Floats, rotation: Floats) -> Moved:
    """Go over everything: up, across, down; returns how the last of these ended."""
    at = robot.position_m()
    high = max(at[2], position_m[2])
    robot.move_to(np.array([*at[:2], high]), robot.rotation())
    robot.move_to(np.array([*position_m[:2], high]), rotation)
    return robot.move_to(position_m, rotation)


def over(position_m: Floats, height_m: float) -> Floats:
    """The position so much higher."""
    return position_m + np.array([0.0, 0.0, height_m])


def nearer_turn(rotation: Floats, now: Floats) -> Floats:
    """A grasp, or the same one turned by half: the one that is nearer to how the hand is now."""
    return rotation if (rotation * now)[:, :2].sum() >= 0 else rotation * [-1, -1, 1]


def leaning(slope: Floats) -> Floats:
    """How what is upright is turned to lean uphill, [3, 3]; where `slope` [2] is 0, not at all."""
    if not slope.any():
        return np.eye(3)
    return about(np.array([-slope[1], slope[0], 0.0]) / np.linalg.norm(slope), _LEAN_RAD)


def about(axis: Floats, angle_rad: float) -> Floats:
    """The rotation about an axis of length 1, [3, 3]."""
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) + math.sin(angle_rad) * cross + (1 - math.cos(angle_rad)) * cross @ cross


def _is_hard(grasp: Pose, item: Seen, hand: Pose) -> tuple[bool, bool]:
    """Whether the wrist must turn far, or the arm reach over the object: both often end there."""
    turns = abs(grasp[1][:, 0] @ hand[1][:, 0]) < _FAR_COS
    way = (item.center_m - hand[0])[:2]
    beyond = (grasp[0] - item.center_m)[:2] @ way > _BEYOND_M * np.linalg.norm(way)
    return bool(turns), bool(beyond)


def _is_there(robot: Robot, position_m: Floats, rotation: Floats) -> bool:
    near = np.linalg.norm(robot.position_m() - position_m) < _THERE_M
    return bool(near and (robot.rotation() * rotation).sum(axis=0).min() > _THERE_COS)


def _alike(one: Pose, other: Pose) -> bool:
    near = np.linalg.norm(one[0] - other[0]) < _SAME_M
    return bool(near and abs(one[1][:, 0] @ other[1][:, 0]) > _SAME_COS)
