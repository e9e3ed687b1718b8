"""Builds a simulation of one of the benchmark's arenas with a pool of objects, for many scenes.

A build takes seconds, so a stage serves a block of scenes: objects are moved, shown and hidden.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worlds.common.simulator import mujoco
from worlds.libero.package import quiet, require
from worlds.libero.simulation.arenas import Arena
from worlds.libero.simulation.pool_objects import PoolObject, read_object
from worlds.libero.simulation.rotations import Floats

_TIME_STEP_S = 0.002
_AWAY_M = np.array([0.0, 0.0, -30.0])  # where hidden objects are


@dataclass(eq=False)
class Stage:
    """A built simulation. Scenes write into `model` and `data`; `reset` undoes it."""

    arena: Arena
    model: Any
    data: Any
    objects: tuple[PoolObject, ...]
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
        for obj in self.objects:
            self.hide(obj)

    def hide(self, obj: PoolObject) -> None:
        """Take an object out of sight and out of the way."""
        self.model.geom_rgba[obj.geoms, 3] = 0
        self.model.geom_contype[obj.geoms] = 0
        self.model.geom_conaffinity[obj.geoms] = 0
        away = _AWAY_M + np.array([0.5 * obj.body, 0, 0])
        if obj.qpos is None:
            self.model.body_pos[obj.body] = away
        else:
            self.put(obj, away, obj.upright_wxyz)

    def show(self, obj: PoolObject) -> None:
        """Bring a hidden object back; `put` tells where."""
        for name in ("geom_contype", "geom_conaffinity"):
            getattr(self.model, name)[obj.geoms] = self._pristine[name][obj.geoms]
        self.model.geom_rgba[obj.geoms, 3] = self._pristine["geom_rgba"][obj.geoms, 3]

    def put(self, obj: PoolObject, position_m: Floats, quaternion_wxyz: Floats) -> None:
        """Set the pose of an object's body in the world frame, at rest."""
        if obj.qpos is None:
            self.model.body_pos[obj.body] = position_m
            self.model.body_quat[obj.body] = quaternion_wxyz
            return
        self.data.qpos[obj.qpos : obj.qpos + 3] = position_m
        self.data.qpos[obj.qpos + 3 : obj.qpos + 7] = quaternion_wxyz
        dof = self.model.body_dofadr[obj.body]
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
    """Looks of an arena that differ from the benchmark's; None keeps the benchmark's."""

    floor: str | None = None  # a texture file of the package
    wall: str | None = None  # a texture file of the package
    table: str | None = None  # a texture file of the package


def build_stage(
    arena: Arena, movables: Sequence[str], fixtures: Sequence[str], style: Style
) -> Stage:
    """Build an arena with a pool of objects, all hidden at first.

    Args:
        arena: Where.
        movables: Kinds of the pool, a kind once for each object.
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
    objects = tuple(read_object(model, name, obj) for name, obj in kinds.items())
    robot = world.robots[0]
    bodies = [b for b in range(model.nbody) if _is_robot(model.body(b).name)]
    return Stage(
        arena=arena,
        model=model,
        data=data,
        objects=objects,
        robot_qpos=np.array(robot._ref_joint_pos_indexes),
        robot_home=np.array(robot.robot_model.init_qpos, dtype=float),
        finger_qpos=np.array(robot._ref_gripper_joint_pos_indexes),
        robot_bodies=frozenset(bodies),
        hand_body=model.body("robot0_right_hand").id,
    )


def _is_robot(name: str) -> bool:
    return name.startswith(("robot0_", "gripper0_", "mount0_"))


def _stiffen_robot(model: Any) -> None:
    """The arm holds still while objects settle."""
    for dof in range(model.nv):
        if _is_robot(model.body(model.dof_bodyid[dof]).name):
            model.dof_damping[dof] = 1e6


@contextlib.contextmanager
def _task_file(arena: Arena, movables: Sequence[str], fixtures: Sequence[str]) -> Iterator[Path]:
    """A task file of our own: the pool, and no task."""

    def listed(kinds: Sequence[str]) -> str:
        # All of a kind in one line: the package keeps only a kind's last one.
        lines = []
        for kind in dict.fromkeys(kinds):
            names = (f"{kind}_{i + 1}" for i in range(kinds.count(kind)))
            lines.append(f"    {' '.join(names)} - {kind}")
        return "\n".join(lines)

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
