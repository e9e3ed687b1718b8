"""A robot's cell: the table with its objects, a gripper that acts by physics, and an RGB-D camera.

    cell = Cell(stage.world)
    cell.move_to(position_m, rotation)
    cell.close()
    cell.move_to(higher_m, rotation)
    cell.hold().lifted  # which objects are 10 cm up and stay there

Objects are held by friction alone, with a coefficient of at most 1. Where a kind's solids are
coarser than what is seen of it (a mug is a full cylinder to `worlds.tabletop.world`), the cell
collides with what is seen: a finger can go into the mug.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worlds.common.camera_pose import CameraPose
from worlds.common.simulator import mujoco
from worlds.tabletop.camera import Camera, RenderedImage
from worlds.tabletop.hand import AXES, OPENING_M, add_hand
from worlds.tabletop.world import SOLID_GROUP, World

AS_SEEN: Final = frozenset({"mug", "bowl", "scissors", "hammer"})
"""Kinds whose coarse solids fill openings or stand out from what is seen."""
HOME_M: Final = (0.0, -2.2, 0.9)
"""Where the hand waits: out of the camera's sight, and its shadow off the table."""
LIFTED_M: Final = 0.10
"""So far up an object counts as lifted."""
HELD_S: Final = 1.0
"""So long it must stay there."""
DISTURBED_M: Final = 0.03
"""No other object may rise by more meanwhile."""

_TIME_STEP_S: Final = 0.002
_CALM_S: Final = 0.3
_SPEED_M_S, _TURN_RAD_S = 0.5, 3.0
_JAW_M_S: Final = 0.12
_SETTLE_S: Final = 0.15
_MAX_TILT: Final = math.cos(math.radians(25))
_HOLDING_M: Final = 0.0015
"""Pads nearer to each other than this have nothing between them."""


class MotionError(RuntimeError):
    """The gripper cannot do what it is told."""


@dataclass(frozen=True)
class Lift:
    """The outcome of holding an object for a second."""

    # Indices of the objects that were up all the time and touched nothing but the hand.
    lifted: tuple[int, ...]
    disturbed: tuple[int, ...]  # indices of the other objects that rose


class Cell:
    """The physics of a cell, and the gripper as a robot's driver offers it.

    Positions are in the world's frame, which is the robot's base: z up, the table's top at 0. A
    gripper's pose is that of a grasp: its origin is the middle between the tips, z the approach, x
    the closing axis. The settled table `stage_world` stays as it is.
    """

    def __init__(self, stage_world: World) -> None:
        # Called after every step of physics with the time since the start [s].
        self.on_step: Callable[[float], object] | None = None
        spec = stage_world.spec.copy()
        option = spec.option
        option.timestep = _TIME_STEP_S
        option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        option.impratio = 10.0  # contacts creep less under a steady load
        # What lies still costs nothing until something touches it.
        option.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)
        for i, item in enumerate(stage_world.objects):
            if item.kind in AS_SEEN:
                _collide_as_seen(spec.body(f"thing{i}"))
        add_hand(spec, HOME_M)
        model = spec.compile()
        data = mujoco.MjData(model)
        bodies = tuple(model.body(f"thing{i}").id for i in range(len(stage_world.objects)))
        for here, there in zip(bodies, stage_world.bodies, strict=True):
            at, old = model.body_jntadr[here], stage_world.model.body_jntadr[there]
            start, source = model.jnt_qposadr[at], stage_world.model.jnt_qposadr[old]
            data.qpos[start : start + 7] = stage_world.data.qpos[source : source + 7]
        # The cell's own table, with the hand.
        self.world = World(model, data, stage_world.objects, bodies, spec)
        self._servo = {name: model.actuator(f"hand_{name}").id for name in AXES}
        self._jaw = [model.actuator(f"finger_{side}").id for side in ("right", "left")]
        self._hand_bodies = {
            model.body(name).id for name in ("hand", "finger_right", "finger_left")
        }
        self._opening_m = OPENING_M
        for side in ("right", "left"):
            data.joint(f"finger_{side}").qpos = OPENING_M / 2
        self._set_jaw(OPENING_M)
        self.rest(_CALM_S)
        self._start_m = self._heights_m()

    @property
    def time_s(self) -> float:
        """Simulated time since the start [s]."""
        return float(self.world.data.time)

    def shoot(self, camera: Camera, pose: CameraPose) -> RenderedImage:
        """Take an image of the cell as it is."""
        return camera.shoot(self.world, pose)

    def open(self, width_m: float) -> None:
        """Move the pads to a distance from each other.

        Raises:
            MotionError: They do not reach so far.
        """
        if not 0 <= width_m <= OPENING_M + 1e-9:
            raise MotionError(f"the pads open from 0 to {OPENING_M} m, not to {width_m:.3f} m")
        self._drive_jaw(width_m)

    def close(self) -> bool:
        """Press the pads together with the gripper's force; tell whether something is between."""
        self._drive_jaw(0.0)
        return self.opening_m > _HOLDING_M

    @property
    def opening_m(self) -> float:
        """How far the pads are apart [m]."""
        data = self.world.data
        return float(data.joint("finger_right").qpos[0] + data.joint("finger_left").qpos[0])

    def move_to(
        self, position_m: NDArray[Any], rotation: NDArray[Any], speed_m_s: float = _SPEED_M_S
    ) -> bool:
        """Move on a straight line, turning on the way; return whether it got there.

        Args:
            position_m: [3], of the middle between the tips.
            rotation: [3, 3], columns are the gripper's axes; the approach must be down, up to 25
                degrees, which the gantry cannot follow.
            speed_m_s: Of the tips.

        Raises:
            MotionError: The approach is not from above.
        """
        if -rotation[2, 2] < _MAX_TILT:
            raise MotionError("the gantry holds the gripper upright: grasps must come from above")
        data = self.world.data
        start = data.ctrl[[self._servo[name] for name in AXES]].copy()
        # A half turn about the approach is the same grasp: the shorter way is taken.
        wanted = math.atan2(rotation[1, 0], rotation[0, 0])
        turn = (wanted - start[3] + math.pi / 2) % math.pi - math.pi / 2
        goal = np.array([*(np.asarray(position_m) - HOME_M), start[3] + turn])
        way = float(np.linalg.norm(goal[:3] - start[:3]))
        self._follow(start, goal, max(way / speed_m_s, abs(turn) / _TURN_RAD_S))
        joints = [data.joint(f"hand_{name}").qpos[0] for name in AXES]
        return bool(np.abs(np.array(joints) - goal).max() < 0.01)

    def _follow(self, start: NDArray[Any], goal: NDArray[Any], least_s: float) -> None:
        servos = [self._servo[name] for name in AXES]
        steps = max(1, math.ceil(1.5 * least_s / _TIME_STEP_S))
        for step in range(1, steps + 1):
            share = step / steps
            smooth = share * share * (3 - 2 * share)
            self.world.data.ctrl[servos] = start + smooth * (goal - start)
            self._step()
        self.rest(_SETTLE_S)

    def _drive_jaw(self, width_m: float) -> None:
        steps = max(1, math.ceil(abs(width_m - self._opening_m) / _JAW_M_S / _TIME_STEP_S))
        begin = self._opening_m
        for step in range(1, steps + 1):
            self._set_jaw(begin + (width_m - begin) * step / steps)
            self._step()
        self.rest(_SETTLE_S)

    def _set_jaw(self, width_m: float) -> None:
        self._opening_m = width_m
        self.world.data.ctrl[self._jaw] = width_m / 2

    def rest(self, seconds: float) -> None:
        """Simulate some time with the gripper as it is."""
        for _ in range(math.ceil(seconds / _TIME_STEP_S)):
            self._step()

    def _step(self) -> None:
        mujoco.mj_step(self.world.model, self.world.data)
        if self.on_step is not None:
            self.on_step(self.time_s)

    def hold(self) -> Lift:
        """Wait as long as a lift must last, and return what is held up."""
        count = len(self.world.bodies)
        up, risen = np.ones(count, np.bool_), np.zeros(count, np.bool_)
        for _ in range(math.ceil(HELD_S / _TIME_STEP_S)):
            self._step()
            rise = self._heights_m() - self._start_m
            up &= (rise >= LIFTED_M) & ~self._resting()
            risen |= rise > DISTURBED_M
        return Lift(_indices(up), _indices(risen & ~up))

    def _heights_m(self) -> NDArray[np.float64]:
        return np.array(self.world.data.xpos[list(self.world.bodies), 2])

    def _resting(self) -> NDArray[np.bool_]:
        """Return bool [objects]: which touch anything but the hand."""
        data, model = self.world.data, self.world.model
        number = {body: i for i, body in enumerate(self.world.bodies)}
        resting = np.zeros(len(number), np.bool_)
        for pair in data.contact.geom[: data.ncon]:
            bodies = [int(model.geom_bodyid[geom]) for geom in pair]
            for this, other in (bodies, bodies[::-1]):
                if this in number and other not in self._hand_bodies:
                    resting[number[this]] = True
        return resting


def _indices(flags: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(flags))


def _collide_as_seen(body: mujoco.MjsBody) -> None:
    """Let an object collide with its visible parts; its mass stays that of its solids."""
    for geom in body.geoms:
        touches = int(geom.group != SOLID_GROUP)
        geom.contype = geom.conaffinity = touches
        if touches:
            geom.condim, geom.friction = 6, [0.9, 0.02, 0.002]
