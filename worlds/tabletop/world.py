"""Puts objects on a table and lets physics settle them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worlds.common.camera_pose import IMAGE_SIZE_WH
from worlds.common.simulator import mujoco
from worlds.tabletop.extra_classes import model_of
from worlds.tabletop.object_classes import COLORS_RGB, MODELS, PAINTS_RGB, Model, Part, colors_of

MIN_OBJECTS, MAX_OBJECTS = 4, 8
MAX_WORLDS = 60
"""So many tables of one seed are tried."""
_CAMERAS_PER_WORLD = 4
TWIN_CHANCE = 0.5
"""How often one kind is put on the table in two colors on purpose (others meet by chance)."""
SINGLE_EXTRA_CHANCE = 0.75
"""How often a table with an extra kind has one object of it, and not two."""

_GEOM = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
}
SOLID_GROUP = 3  # MuJoCo draws groups 0 to 2 unless told otherwise
_TABLE_RGB = (
    (0.55, 0.40, 0.26),
    (0.72, 0.58, 0.42),
    (0.36, 0.26, 0.19),
    (0.62, 0.62, 0.60),
    (0.42, 0.44, 0.46),
    (0.78, 0.75, 0.68),
    (0.50, 0.56, 0.58),
    (0.60, 0.50, 0.45),
)
_TIME_STEP_S = 0.004
_SETTLE_S = 1.6
_AT_REST = 0.02  # fastest body speed that counts as at rest [m/s, rad/s mixed]


@dataclass(frozen=True)
class ObjectSpec:
    """What is to stand on the table."""

    kind: str
    color: str
    scale: float

    @property
    def size_m(self) -> tuple[float, float, float]:
        """Extent along its own axes [m]."""
        x, y, z = (side * self.scale for side in model_of(self.kind).size)
        return x, y, z


@dataclass(frozen=True)
class World:
    """A settled table. `bodies[i]` is the MuJoCo body of `objects[i]`."""

    model: mujoco.MjModel
    data: mujoco.MjData
    objects: tuple[ObjectSpec, ...]
    bodies: tuple[int, ...]

    @property
    def is_on_table(self) -> bool:
        """Whether no object has fallen off the table."""
        heights = [self.data.xpos[body][2] for body in self.bodies]
        return min(heights) > 0 and max(heights) < 0.3


def sample_objects(rng: np.random.Generator, *, with_test_only: bool) -> tuple[ObjectSpec, ...]:
    """Choose what stands on the table; often one kind stands there in two colors."""
    count = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))
    kinds = list(rng.choice(list(MODELS), size=count))
    if rng.random() < TWIN_CHANCE:
        kinds[1] = kinds[0]
    objects: list[ObjectSpec] = []
    for kind in kinds:
        scale = float(rng.uniform(0.85, 1.3))
        free = [
            color
            for color in colors_of(str(kind), with_test_only=with_test_only)
            if not any(t.kind == kind and t.color == color for t in objects)
        ]
        if free:
            objects.append(ObjectSpec(str(kind), str(rng.choice(free)), scale))
    return tuple(objects)


def put_extra(
    rng: np.random.Generator, objects: tuple[ObjectSpec, ...], kind: str
) -> tuple[ObjectSpec, ...]:
    """Put one or two objects of an extra kind in the place of the last ones."""
    count = 1 if rng.random() < SINGLE_EXTRA_CHANCE else 2
    colors = rng.choice(colors_of(kind, with_test_only=True), size=count, replace=False)
    extra = [ObjectSpec(kind, str(color), float(rng.uniform(0.85, 1.3))) for color in colors]
    return (*objects[:-count], *extra)


def settled_tables(
    seed: tuple[int, ...], build: Callable[[np.random.Generator], World | None], least: int
) -> Iterator[tuple[np.random.Generator, World, NDArray[np.float64]]]:
    """Build the tables of a seed, each several times over, for as many cameras.

    Yields where chance comes from next, the table, and the middle of its objects [m].

    Args:
        seed: Decides everything, together with the number of the table.
        build: Makes a table by chance; None when there is no room.
        least: A table with fewer objects is left out, as is one that an object fell from.
    """
    for attempt in range(MAX_WORLDS):
        rng = np.random.default_rng((seed[0], attempt, *seed[1:]))
        world = build(rng)
        if world is not None and len(world.objects) >= least and world.is_on_table:
            center = np.mean([world.data.xpos[body] for body in world.bodies], axis=0)
            for _ in range(_CAMERAS_PER_WORLD):
                yield rng, world, center


def build_world(
    rng: np.random.Generator,
    objects: tuple[ObjectSpec, ...],
    furnish: Callable[[mujoco.MjSpec], None] | None = None,
) -> World | None:
    """Place the objects apart from each other and let them fall; None when there is no room.

    `furnish` adds what belongs to no object before the model is compiled.
    """
    placed = _place(rng, objects)
    if placed is None:
        return None
    spec = mujoco.MjSpec()
    spec.option.timestep = _TIME_STEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.visual.global_.offwidth, spec.visual.global_.offheight = IMAGE_SIZE_WH
    spec.visual.quality.shadowsize = 2048
    # Without this the far floor makes the shadow map coarse.
    spec.stat.extent, spec.stat.center = 0.9, np.zeros(3)
    spec.visual.quality.offsamples = 4
    _add_room(spec, rng)
    for i, (item, (x, y, yaw)) in enumerate(zip(objects, placed, strict=True)):
        _add_object(spec, rng, f"thing{i}", item, (x, y, yaw))
    if furnish is not None:
        furnish(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    bodies = tuple(model.body(f"thing{i}").id for i in range(len(objects)))
    _settle(model, data)
    return World(model, data, objects, bodies)


def _settle(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    for step in range(int(_SETTLE_S / _TIME_STEP_S)):
        mujoco.mj_step(model, data)
        if step > 80 and step % 20 == 0 and np.abs(data.qvel).max() < _AT_REST:
            break
    mujoco.mj_forward(model, data)


def _add_room(spec: mujoco.MjSpec, rng: np.random.Generator) -> None:
    base = np.array(_TABLE_RGB[int(rng.integers(len(_TABLE_RGB)))]) + rng.uniform(-0.07, 0.07, 3)
    other = np.clip(base * rng.uniform(0.8, 1.05), 0, 1)
    texture = spec.add_texture(
        name="table",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER
        if rng.random() < 0.6
        else mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        rgb1=np.clip(base, 0, 1),
        rgb2=other,
        mark=mujoco.mjtMark.mjMARK_RANDOM if rng.random() < 0.4 else mujoco.mjtMark.mjMARK_NONE,
        markrgb=np.clip(base * 0.85, 0, 1),
        random=0.02,
        width=256,
        height=256,
    )
    textures = [""] * int(mujoco.mjtTextureRole.mjNTEXROLE)
    textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = texture.name
    # Narrow long fields look like planks, square ones like tiles.
    repeat = (rng.uniform(0.5, 1.5), rng.uniform(4, 9)) if rng.random() < 0.6 else (4, 4)
    spec.add_material(
        name="table", textures=textures, texrepeat=repeat, specular=rng.uniform(0, 0.4)
    )
    world = spec.worldbody
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.8, 0.6, 0.02],
        pos=[0, 0, -0.02],
        material="table",
        friction=[1.0, 0.02, 0.002],
        condim=6,
    )
    floor = rng.uniform(0.15, 0.75) + rng.uniform(-0.06, 0.06, 3)
    world.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[6, 6, 0.05],
        pos=[0, 0, -0.8],
        rgba=[*np.clip(floor, 0, 1), 1],
    )
    spec.visual.headlight.ambient = np.full(3, rng.uniform(0.3, 0.5))
    spec.visual.headlight.diffuse = np.full(3, rng.uniform(0.05, 0.25))
    spec.visual.headlight.specular = np.zeros(3)
    azimuth, height = rng.uniform(0, 2 * math.pi), rng.uniform(1.0, 2.2)
    reach = rng.uniform(0.3, 1.6)
    place = np.array([reach * math.cos(azimuth), reach * math.sin(azimuth), height])
    warmth = rng.uniform(-0.06, 0.06)
    strength = rng.uniform(0.4, 0.65)
    world.add_light(
        pos=place,
        dir=-place,
        diffuse=np.clip([strength + warmth, strength, strength - warmth], 0, 1),
        specular=np.full(3, 0.3),
        castshadow=True,
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
    )


def _add_object(
    spec: mujoco.MjSpec,
    rng: np.random.Generator,
    name: str,
    item: ObjectSpec,
    place: tuple[float, float, float],
) -> None:
    model = model_of(item.kind)
    upright = rng.random() < 0.8
    pose = model.poses[0] if upright else model.poses[int(rng.integers(len(model.poses)))]
    x, y, yaw = place
    lowest = _reach_down(model, pose) * item.scale
    body = spec.worldbody.add_body(
        name=name, pos=[x, y, lowest + 0.006], quat=_quaternion_wxyz((pose[0], pose[1], yaw))
    )
    body.add_freejoint()
    main = np.array(COLORS_RGB[item.color]) * rng.uniform(0.88, 1.0) + rng.uniform(-0.03, 0.03, 3)
    main = np.clip(main, 0.02, 1)
    for part in model.visible:
        _add_part(body, part, item.scale, _paint(part, main))
    for part in model.solid:
        _add_part(body, part, item.scale, None)


def _paint(part: Part, main: NDArray[np.float64]) -> list[float]:
    if part.paint == "main":
        rgb = main
    elif part.paint == "shade":
        rgb = main * 0.72 + 0.02
    else:
        rgb = np.array(PAINTS_RGB[part.paint])
    return [*rgb, 1.0]


def _add_part(body: mujoco.MjsBody, part: Part, scale: float, rgba: list[float] | None) -> None:
    size = np.zeros(3)
    size[: len(part.size)] = part.size
    common = {
        "type": _GEOM[part.shape],
        "size": size * scale,
        "pos": np.array(part.position) * scale,
        "quat": _quaternion_wxyz(part.euler),
    }
    if rgba is not None:
        body.add_geom(**common, rgba=rgba, contype=0, conaffinity=0, group=1, density=0)
    else:
        body.add_geom(
            **common,
            rgba=[1, 1, 1, 0],
            group=SOLID_GROUP,
            density=400,
            condim=6,
            friction=[0.9, 0.02, 0.002],
        )


def _quaternion_wxyz(euler: tuple[float, float, float]) -> NDArray[np.float64]:
    """Turn about x, then y, then z, all axes fixed."""
    total = np.array([1.0, 0.0, 0.0, 0.0])
    for axis, angle in zip(np.eye(3), euler, strict=True):
        step, product = np.zeros(4), np.zeros(4)
        mujoco.mju_axisAngle2Quat(step, axis, angle)
        mujoco.mju_mulQuat(product, step, total)
        total = product
    return total


def _reach_down(model: Model, pose: tuple[float, float, float]) -> float:
    """How far below its origin an object in this pose reaches at most, before scaling [m]."""
    half = np.array(model.size) / 2
    if not any(pose):
        return float(half[2]) + 0.006
    if abs(abs(pose[0]) - math.pi / 2) < 1e-6:
        return float(half[1]) + 0.004
    return float(half.max()) + 0.004


def _place(
    rng: np.random.Generator, objects: tuple[ObjectSpec, ...]
) -> list[tuple[float, float, float]] | None:
    """Random places (x, y, yaw) whose footprints, as rows of discs, do not touch."""
    spread = 0.135 + 0.014 * len(objects)
    discs: list[tuple[NDArray[np.float64], float]] = []
    places = []
    for item in objects:
        for _ in range(60):
            x, y = rng.uniform(-1.25, 1.25) * spread, rng.uniform(-1, 1) * spread
            yaw = rng.uniform(0, 2 * math.pi)
            mine = _footprint(item, x, y, yaw)
            if all(np.hypot(*(a - b)) > r + s + 0.004 for a, r in mine for b, s in discs):
                discs += mine
                places.append((x, y, yaw))
                break
        else:
            return None
    return places


def _footprint(
    item: ObjectSpec, x: float, y: float, yaw: float
) -> list[tuple[NDArray[np.float64], float]]:
    size_x, size_y, size_z = model_of(item.kind).size
    # A bottle or can may lie down along its own y axis.
    if len(model_of(item.kind).poses) > 1:
        size_y = max(size_y, size_z)
    half_x, half_y = size_x * item.scale / 2, size_y * item.scale / 2
    radius = min(half_x, half_y) * 1.05
    reach = max(half_x, half_y) - radius
    along = np.array([math.cos(yaw), math.sin(yaw)])
    if half_y > half_x:
        along = np.array([-along[1], along[0]])
    count = 1 + 2 * math.ceil(reach / (2 * radius)) if reach > 0.004 else 1
    offsets = np.linspace(-reach, reach, count) if count > 1 else np.zeros(1)
    return [(np.array([x, y]) + o * along, radius) for o in offsets]
