"""The objects of a stage: what belongs to each in the compiled model, and how large it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worlds.common.simulator import mujoco
from worlds.libero.simulation.rotations import Floats, matrix_of, product_wxyz

VISUAL_GROUP = 1  # the benchmark's models keep what is seen in group 1, what collides in group 0
_HULL_POINTS = 300


@dataclass(frozen=True, eq=False)
class Box:
    """A region of a model in which objects can stand: a site of the package's model."""

    name: str  # for instance "top_region"
    body: int  # the MuJoCo body that it is fixed to
    position_m: Floats  # its middle in that body's frame [m]
    rotation: Floats  # its axes in that body's frame
    half_m: Floats  # half extents along its axes [m]


@dataclass(frozen=True, eq=False)
class PoolObject:
    """An object of the pool, movable or fixed."""

    name: str  # unique in the stage, for instance "plate_1"
    kind: str  # the package's name of the model
    body: int  # its root body
    bodies: tuple[int, ...]  # that and all below it
    geoms: NDArray[np.intp]  # what belongs to it
    qpos: int | None  # where its pose begins in the state, None for a fixture
    upright_wxyz: Floats  # the orientation in which the benchmark puts it down
    low_m: Floats  # least corner of its visible extent from the body's origin, when upright [m]
    high_m: Floats  # greatest corner [m]
    cloud_m: Floats  # points of its hull in its body's frame, [N, 3]
    boxes: dict[str, Box]  # regions in or on it, by name
    # Its drawers, doors and buttons: name -> (address in the state, least, greatest).
    joints: dict[str, tuple[int, float, float]]

    @property
    def fixed(self) -> bool:
        """Whether it is a fixture."""
        return self.qpos is None

    @property
    def size_m(self) -> Floats:
        """Extent along the world's axes when upright and not turned [m]."""
        return self.high_m - self.low_m


def read_object(model: Any, name: str, obj: Any) -> PoolObject:
    """Find what belongs to an object of the package in the compiled model.

    Args:
        model: The compiled model.
        name: Of the object in the model.
        obj: The package's description of it.
    """
    body = model.body(obj.root_body).id
    bodies = [body]
    for other in range(body + 1, model.nbody):
        if model.body_parentid[other] in bodies:
            bodies.append(other)
    geoms = np.flatnonzero(np.isin(model.geom_bodyid, bodies))
    joint = model.body_jntadr[body]
    free = joint >= 0 and model.jnt_type[joint] == 0
    upright = _upright(obj) if free else np.array([1.0, 0.0, 0.0, 0.0])
    cloud = _hull_points(model, body, geoms)
    turned = cloud @ matrix_of(upright).T
    joints = {}
    for j in range(model.njnt):
        if model.jnt_bodyid[j] in bodies and model.jnt_type[j] != 0:
            short = model.joint(j).name.removeprefix(f"{name}_")
            least, greatest = model.jnt_range[j]
            joints[short] = (int(model.jnt_qposadr[j]), float(least), float(greatest))
    return PoolObject(
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


def _upright(obj: Any) -> Floats:
    """The turn that the benchmark's samplers give a movable model, without chance.

    They compose it as x, y, z, w and hand it on as w, x, y, z. The models are made for that.
    """
    turns = obj.rotation
    if not isinstance(turns, dict):
        turns = {obj.rotation_axis: turns}
    total = np.array([1.0, 0.0, 0.0, 0.0])
    for axis, angles in turns.items():
        turn = np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, np.eye(3)["xyz".index(axis)], float(np.mean(angles)))
        total = product_wxyz(turn, total)
    w, x, y, z = total
    return np.array([x, y, z, w])


def _hull_points(model: Any, body: int, geoms: NDArray[np.intp]) -> Floats:
    """The outermost points of what is seen of an object, in its body's frame."""
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
