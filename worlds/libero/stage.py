"""Builds a simulation of one of the benchmark's arenas with a pool of things, for many scenes.

A build takes seconds, so a stage serves a block of scenes: things are moved, shown and hidden.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worlds.libero.package import quiet, require
from worlds.tabletop.simulator import mujoco

Floats = NDArray[np.float64]

FIXTURES = (
    "brown_rack",
    "desk_caddy",
    "flat_stove",
    "microwave",
    "white_cabinet",
    "wine_rack",
    "wooden_cabinet",
    "wooden_two_layer_shelf",
    "yellow_cabinet",
    "yellow_stove",
)
"""Kinds that are built in and never move."""

VISUAL_GROUP = 1  # the benchmark's models keep what is seen in group 1, what collides in group 0
_TIME_STEP_S = 0.002
_HULL_POINTS = 300
_AWAY_M = np.array([0.0, 0.0, -30.0])  # where hidden things are


@dataclass(frozen=True)
class Arena:
    """One of the benchmark's surroundings.

    Attributes:
        problem: The package's name for tasks in it.
        surface: What its task files call the table or floor.
        center_xyz_m: Middle of the surface, at the height that the benchmark counts from [m].
        work_xy_m: Half extent of where the benchmark puts movable things [m].
        rise_m: How far above that height the surface is that things stand on [m].
    """

    problem: str
    surface: str
    center_xyz_m: tuple[float, float, float]
    work_xy_m: tuple[float, float]
    rise_m: float = 0.0

    @property
    def top_xyz_m(self) -> tuple[float, float, float]:
        """Middle of what things stand on [m]."""
        x, y, z = self.center_xyz_m
        return x, y, z + self.rise_m


ARENAS: dict[str, Arena] = {
    "table": Arena("LIBERO_Tabletop_Manipulation", "table", (-0.03, 0.0, 0.90), (0.27, 0.36)),
    "floor": Arena("LIBERO_Floor_Manipulation", "floor", (-0.02, 0.0, 0.0), (0.24, 0.33)),
    "kitchen": Arena(
        "LIBERO_Kitchen_Tabletop_Manipulation", "kitchen_table", (-0.04, 0.0, 0.90), (0.24, 0.36)
    ),
    "living_room": Arena(
        "LIBERO_Living_Room_Tabletop_Manipulation",
        "living_room_table",
        (-0.04, 0.0, 0.41),
        (0.24, 0.34),
        0.0265,
    ),
    "study": Arena(
        "LIBERO_Study_Tabletop_Manipulation",
        "study_table",
        (-0.19, 0.0, 0.867),
        (0.22, 0.34),
        0.018,
    ),
}


@dataclass(frozen=True, eq=False)
class Box:
    """A region of a model in which things can stand: a site of the package's model.

    Attributes:
        name: For instance "top_region".
        body: The MuJoCo body that it is fixed to.
        position_m: Its middle in that body's frame [m].
        rotation: Its axes in that body's frame.
        half_m: Half extents along its axes [m].
    """

    name: str
    body: int
    position_m: Floats
    rotation: Floats
    half_m: Floats


@dataclass(frozen=True, eq=False)
class Piece:
    """A thing of the pool, movable or fixed.

    Attributes:
        name: Unique in the stage, for instance "plate_1".
        kind: The package's name of the model.
        body: Its root body.
        bodies: That and all below it.
        geoms: What belongs to it.
        qpos: Where its pose begins in the state, None for a fixture.
        upright_wxyz: The orientation in which the benchmark puts it down.
        low_m: Least corner of its visible extent from the body's origin, when upright [m].
        high_m: Greatest corner [m].
        cloud_m: Points of its hull in its body's frame, [N, 3].
        boxes: Regions in or on it, by name.
        joints: Its drawers, doors and buttons: name -> (address in the state, least, greatest).
    """

    name: str
    kind: str
    body: int
    bodies: tuple[int, ...]
    geoms: NDArray[np.intp]
    qpos: int | None
    upright_wxyz: Floats
    low_m: Floats
    high_m: Floats
    cloud_m: Floats
    boxes: dict[str, Box]
    joints: dict[str, tuple[int, float, float]]

    @property
    def fixed(self) -> bool:
        """Whether it is a fixture."""
        return self.qpos is None

    @property
    def size_m(self) -> Floats:
        """Extent along the world's axes when upright and not turned [m]."""
        return self.high_m - self.low_m


@dataclass(eq=False)
class Stage:
    """A built simulation. Scenes write into `model` and `data`; `reset` undoes it."""

    arena: Arena
    model: Any
    data: Any
    pieces: tuple[Piece, ...]
    robot_qpos: NDArray[np.intp]
    robot_home: Floats
    finger_qpos: NDArray[np.intp]
    robot_bodies: frozenset[int]
    hand_body: int
    _pristine: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _CHANGED:
            self._pristine[name] = np.array(getattr(self.model, name))
        for name in _CHANGED_VISUAL:
            self._pristine[name] = np.array(getattr(self.model.vis.headlight, name))

    def reset(self) -> None:
        """Back to how it was built: nothing shown but the arena and the robot at home."""
        for name in _CHANGED:
            getattr(self.model, name)[:] = self._pristine[name]
        for name in _CHANGED_VISUAL:
            getattr(self.model.vis.headlight, name)[:] = self._pristine[name]
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self.robot_qpos] = self.robot_home
        for piece in self.pieces:
            self.hide(piece)

    def hide(self, piece: Piece) -> None:
        """Take a thing out of sight and out of the way."""
        self.model.geom_rgba[piece.geoms, 3] = 0
        self.model.geom_contype[piece.geoms] = 0
        self.model.geom_conaffinity[piece.geoms] = 0
        away = _AWAY_M + np.array([0.5 * piece.body, 0, 0])
        if piece.qpos is None:
            self.model.body_pos[piece.body] = away
        else:
            self.put(piece, away, piece.upright_wxyz)

    def show(self, piece: Piece) -> None:
        """Bring a hidden thing back; `put` tells where."""
        for name in ("geom_contype", "geom_conaffinity"):
            getattr(self.model, name)[piece.geoms] = self._pristine[name][piece.geoms]
        self.model.geom_rgba[piece.geoms, 3] = self._pristine["geom_rgba"][piece.geoms, 3]

    def put(self, piece: Piece, position_m: Floats, quaternion_wxyz: Floats) -> None:
        """Set the pose of a thing's body in the world frame, at rest."""
        if piece.qpos is None:
            self.model.body_pos[piece.body] = position_m
            self.model.body_quat[piece.body] = quaternion_wxyz
            return
        self.data.qpos[piece.qpos : piece.qpos + 3] = position_m
        self.data.qpos[piece.qpos + 3 : piece.qpos + 7] = quaternion_wxyz
        dof = self.model.body_dofadr[piece.body]
        self.data.qvel[dof : dof + 6] = 0


_CHANGED = (
    "geom_rgba",
    "geom_contype",
    "geom_conaffinity",
    "mat_rgba",
    "body_pos",
    "body_quat",
    "light_pos",
    "light_dir",
    "light_diffuse",
    "light_specular",
    "light_ambient",
    "site_rgba",
)
_CHANGED_VISUAL = ("ambient", "diffuse", "specular")


@dataclass(frozen=True)
class Style:
    """Looks of an arena that differ from the benchmark's; None keeps the benchmark's.

    Attributes:
        floor: A texture file of the package.
        wall: A texture file of the package.
        table: A texture file of the package.
    """

    floor: str | None = None
    wall: str | None = None
    table: str | None = None


def build_stage(
    arena: Arena, movables: Sequence[str], fixtures: Sequence[str], style: Style
) -> Stage:
    """Build an arena with a pool of things, all hidden at first.

    Args:
        arena: Where.
        movables: Kinds of the pool, a kind once for each thing.
        fixtures: Kinds of the fixtures.
        style: Other looks of floor, wall and table.

    Raises:
        LiberoMissingError: The extra is not installed.
    """
    require()
    with _task_file(arena, movables, fixtures) as path, quiet():
        world = _world_class(arena, style)(
            str(path),
            robots=["Panda"],
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            initialization_noise=None,
        )
    model = world.sim.model._model
    model.opt.timestep = _TIME_STEP_S
    _stiffen_robot(model)
    model.site_rgba[:, 3] = 0
    stage = stage_of_world(world, arena, mujoco.MjData(model))
    stage.reset()
    return stage


def stage_of_world(world: Any, arena: Arena, data: Any) -> Stage:
    """What the package built, as a stage.

    Args:
        world: An environment of the package.
        arena: Where it plays.
        data: The state to look at; the environment's own, to see what happens in it.
    """
    model = world.sim.model._model
    kinds = {**world.objects_dict, **world.fixtures_dict}
    pieces = tuple(_piece(model, name, thing) for name, thing in kinds.items())
    robot = world.robots[0]
    bodies = [b for b in range(model.nbody) if _is_robot(model.body(b).name)]
    return Stage(
        arena=arena,
        model=model,
        data=data,
        pieces=pieces,
        robot_qpos=np.array(robot._ref_joint_pos_indexes),
        robot_home=np.array(robot.robot_model.init_qpos, dtype=float),
        finger_qpos=np.array(robot._ref_gripper_joint_pos_indexes),
        robot_bodies=frozenset(bodies),
        hand_body=model.body("robot0_right_hand").id,
    )


def _is_robot(name: str) -> bool:
    return name.startswith(("robot0_", "gripper0_", "mount0_"))


def _stiffen_robot(model: Any) -> None:
    """The arm holds still while things settle."""
    for dof in range(model.nv):
        if _is_robot(model.body(model.dof_bodyid[dof]).name):
            model.dof_damping[dof] = 1e6


@contextlib.contextmanager
def _task_file(arena: Arena, movables: Sequence[str], fixtures: Sequence[str]) -> Iterator[Path]:
    """A task file of our own: the pool, and no task."""

    def listed(kinds: Sequence[str]) -> str:
        return "\n".join(f"    {kind}_{i} - {kind}" for i, kind in enumerate(kinds, start=1))

    text = f"""(define (problem {arena.problem})
  (:domain robosuite)
  (:language none)
  (:regions )
  (:fixtures
    {arena.surface}_0 - {arena.surface}
{listed(fixtures)}
  )
  (:objects
{listed(movables)}
  )
  (:obj_of_interest )
  (:init )
  (:goal (And ))
)
"""
    handle, path = tempfile.mkstemp(suffix=".bddl")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        yield Path(path)
    finally:
        Path(path).unlink()


def _world_class(arena: Arena, style: Style) -> Any:
    """The package's class for an arena, made to take other textures."""
    from libero.libero.envs.bddl_base_domain import TASK_MAPPING

    base = TASK_MAPPING[arena.problem.lower()]
    changes = {"texplane": style.floor, "tex-wall": style.wall, "tex-table": style.table}

    def load(self: Any) -> None:
        base._load_model(self)
        for texture in self.model.asset.findall("texture"):
            file = changes.get(texture.get("name"))
            if file is not None and texture.get("file"):
                texture.set("file", str(Path(texture.get("file")).parent / file))

    return type(base.__name__, (base,), {"_load_model": load})


def _piece(model: Any, name: str, thing: Any) -> Piece:
    body = model.body(thing.root_body).id
    bodies = [body]
    for other in range(body + 1, model.nbody):
        if model.body_parentid[other] in bodies:
            bodies.append(other)
    geoms = np.flatnonzero(np.isin(model.geom_bodyid, bodies))
    joint = model.body_jntadr[body]
    free = joint >= 0 and model.jnt_type[joint] == 0
    upright = _upright(thing) if free else np.array([1.0, 0.0, 0.0, 0.0])
    cloud = _hull_points(model, body, geoms)
    turned = cloud @ matrix_of(upright).T
    joints = {}
    for j in range(model.njnt):
        if model.jnt_bodyid[j] in bodies and model.jnt_type[j] != 0:
            short = model.joint(j).name.removeprefix(f"{name}_")
            least, greatest = model.jnt_range[j]
            joints[short] = (int(model.jnt_qposadr[j]), float(least), float(greatest))
    return Piece(
        name=name,
        kind=name.rsplit("_", 1)[0],
        body=body,
        bodies=tuple(bodies),
        geoms=geoms,
        qpos=int(model.jnt_qposadr[joint]) if free else None,
        upright_wxyz=upright,
        low_m=turned.min(axis=0),
        high_m=turned.max(axis=0),
        cloud_m=cloud,
        boxes=_boxes(model, name, bodies),
        joints=joints,
    )


def _upright(thing: Any) -> Floats:
    """The turn that the benchmark's samplers give a movable model, without chance.

    They compose it as x, y, z, w and hand it on as w, x, y, z. The models are made for that.
    """
    turns = thing.rotation
    if not isinstance(turns, dict):
        turns = {thing.rotation_axis: turns}
    total = np.array([1.0, 0.0, 0.0, 0.0])
    for axis, angles in turns.items():
        turn = np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, np.eye(3)["xyz".index(axis)], float(np.mean(angles)))
        total = product_wxyz(turn, total)
    w, x, y, z = total
    return np.array([x, y, z, w])


def _hull_points(model: Any, body: int, geoms: NDArray[np.intp]) -> Floats:
    """The outermost points of what is seen of a thing, in its body's frame."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    origin, axes = data.xpos[body], data.xmat[body].reshape(3, 3)
    clouds = []
    for geom in geoms:
        if model.geom_group[geom] == VISUAL_GROUP:
            world = _geom_points(model, geom) @ data.geom_xmat[geom].reshape(3, 3).T
            clouds.append((world + data.geom_xpos[geom] - origin) @ axes)
    cloud = np.concatenate(clouds)
    return cloud[np.unique((cloud @ _directions().T).argmax(axis=0))]


def _directions() -> Floats:
    """Spread evenly over the sphere; the axes are among them."""
    steps = np.arange(_HULL_POINTS) + 0.5
    z = 1 - 2 * steps / _HULL_POINTS
    angle = steps * math.pi * (1 + math.sqrt(5))
    ring = np.sqrt(1 - z**2)
    sphere = np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1)
    return np.concatenate([np.eye(3), -np.eye(3), sphere])


def _geom_points(model: Any, geom: int) -> Floats:
    mesh = model.geom_dataid[geom]
    if mesh >= 0:
        first = model.mesh_vertadr[mesh]
        return np.array(model.mesh_vert[first : first + model.mesh_vertnum[mesh]], dtype=float)
    center, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    signs = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
    return center + signs * half


def _boxes(model: Any, name: str, bodies: list[int]) -> dict[str, Box]:
    boxes = {}
    for i in range(model.nsite):
        site = model.site(i)
        is_box = model.site_type[i] == int(mujoco.mjtGeom.mjGEOM_BOX)
        if model.site_bodyid[i] not in bodies or not is_box:
            continue
        short = site.name.removeprefix(f"{name}_")
        boxes[short] = Box(
            short,
            int(model.site_bodyid[i]),
            np.array(model.site_pos[i]),
            matrix_of(model.site_quat[i]),
            np.array(model.site_size[i]),
        )
    return boxes


def yaw_wxyz(angle_rad: float) -> Floats:
    """A turn about the world's vertical axis."""
    return np.array([math.cos(angle_rad / 2), 0.0, 0.0, math.sin(angle_rad / 2)])


def product_wxyz(first: Floats, second: Floats) -> Floats:
    """The rotation that does `second`, then `first`."""
    total = np.zeros(4)
    mujoco.mju_mulQuat(total, first, second)
    return total


def matrix_of(quaternion_wxyz: Floats) -> Floats:
    """The rotation matrix of a quaternion."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion_wxyz)
    return matrix.reshape(3, 3)
