"""What a view of a settled scene shows, and what is known about it: the folder's contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worlds.common.camera_pose import IMAGE_SIZE_WH
from worlds.common.scene import Scene, SceneObject, save_images
from worlds.libero.composition.workbench import Layout
from worlds.libero.object_classes import OBJECT_CLASSES
from worlds.libero.scene import Rest, Truth, read_scene, write_scene
from worlds.libero.simulation.arenas import ARENAS
from worlds.libero.simulation.drawing import Drawing
from worlds.libero.simulation.pool_objects import PoolObject
from worlds.libero.simulation.stage import Stage
from worlds.libero.simulation.views import View
from worlds.libero.truth import Support, extent_of

_COMPRESSION = 4  # of the PNG files: twice as fast as the usual 6, 3 % larger


@dataclass(frozen=True, eq=False)
class Rendered:
    """A scene and its pixels."""

    scene: Scene  # what every world tells
    truth: Truth  # what this world knows besides
    color: NDArray[np.uint8]  # uint8 [H, W, 3] RGB
    depth_mm: NDArray[np.uint16]  # uint16 [H, W]; 0 is unknown
    instances: NDArray[np.uint16]  # uint16 [H, W]; the object's id, 0 is background


@dataclass(frozen=True, eq=False)
class Seen:
    """What a view shows."""

    objects: tuple[PoolObject, ...]  # everything that stands there
    # uint16 [H, W]; index + 1 of the object that a pixel shows, else 0.
    indices: NDArray[np.uint16]
    areas_px: NDArray[np.intp]  # pixels of each object, [N]
    # Pixels that each would have in the image if it stood there alone, [N].
    alone_px: NDArray[np.float64]


def look(drawing: Drawing, view: View, objects: list[PoolObject] | tuple[PoolObject, ...]) -> Seen:
    """See which objects a view shows, and how much of each."""
    geoms = [obj.geoms for obj in objects]
    indices = drawing.instances(view.pose, geoms)
    areas = np.bincount(indices.ravel(), minlength=len(objects) + 1)[1:]
    return Seen(tuple(objects), indices, areas, drawing.areas_alone(view.pose, geoms, 2))


def record(
    stage: Stage,
    drawing: Drawing,
    layout: Layout,
    view: View,
    seen: Seen,
    supports: Mapping[str, Support],
    seed: int,
) -> Rendered:
    """Draw a view and write down all that is known about it.

    Args:
        stage: With the settled scene.
        drawing: Draws it.
        layout: What stands there.
        view: The camera.
        seen: What `look` saw.
        supports: What `find_supports` found.
        seed: Of the scene.
    """
    color, depth_mm = drawing.color_and_depth(view.pose)
    ids: dict[str, int] = {}
    id_of_index = np.zeros(len(seen.objects) + 1, dtype=np.uint16)
    for index, obj in enumerate(seen.objects):
        if seen.areas_px[index] > 0:
            ids[obj.name] = len(ids) + 1
            id_of_index[index + 1] = ids[obj.name]
    instances = id_of_index[seen.indices]
    objects = tuple(
        _object(stage, obj, ids[obj.name], instances, alone)
        for obj, alone in zip(seen.objects, seen.alone_px, strict=True)
        if obj.name in ids
    )
    scene = Scene(
        seed=seed,
        image_size_wh=IMAGE_SIZE_WH,
        intrinsics=view.pose.intrinsics(),
        camera_position_m=_rounded(view.pose.position_m),
        camera_quaternion_xyzw=_rounded(view.pose.quaternion_xyzw()),
        objects=objects,
        queries=(),
    )
    truth = _truth(stage, layout, view, ids, supports)
    return Rendered(scene, truth, color, depth_mm, instances)


def _object(
    stage: Stage, obj: PoolObject, number: int, instances: NDArray[np.uint16], alone_px: float
) -> SceneObject:
    rows, columns = np.nonzero(instances == number)
    extent = extent_of(stage, obj)
    return SceneObject(
        id=number,
        kind=obj.kind,
        color=OBJECT_CLASSES[obj.kind].color if obj.kind in OBJECT_CLASSES else "",
        box_xyxy=(
            int(columns.min()),
            int(rows.min()),
            int(columns.max()) + 1,
            int(rows.max()) + 1,
        ),
        area_px=len(rows),
        visible_fraction=round(min(1.0, len(rows) / max(alone_px, 1.0)), 3),
        position_m=_rounded(extent.center_m),
        quaternion_xyzw=_rounded(extent.quaternion_xyzw),
        size_m=_rounded(extent.size_m),
    )


def _truth(
    stage: Stage,
    layout: Layout,
    view: View,
    ids: dict[str, int],
    supports: Mapping[str, Support],
) -> Truth:
    objects = {obj.name: obj for obj in layout.objects}
    rests = {
        ids[name]: Rest(support.relation, ids.get(support.holder, 0), support.part)
        for name, support in supports.items()
        if name in ids
    }
    extents = {}
    for name, number in ids.items():
        extent = extent_of(stage, objects[name])
        extents[number] = (_rounded(extent.low_m), _rounded(extent.high_m))
    return Truth(
        arena=arena_name(stage),
        view=view.name,
        surface_center_m=stage.arena.top_xyz_m,
        fixtures=tuple(number for name, number in ids.items() if objects[name].fixed),
        rests=rests,
        extents_m=extents,
        drawers_m={ids[n]: gaps for n, gaps in layout.drawers.items() if n in ids},
        open_doors=tuple(sorted(ids[n] for n in layout.open_doors if n in ids)),
        lit=tuple(sorted(ids[n] for n in layout.lit if n in ids)),
        hidden_kinds=tuple(sorted({p.kind for p in layout.objects if p.name not in ids})),
        names={number: name for name, number in ids.items()},
    )


def arena_name(stage: Stage) -> str:
    """The key in `ARENAS`; the package's name for one that is not among them."""
    names = [name for name, arena in ARENAS.items() if arena == stage.arena]
    return names[0] if names else stage.arena.problem


def _rounded(values: object) -> tuple:
    return tuple(round(float(v), 5) + 0.0 for v in np.asarray(values, dtype=float))


def save_rendered(folder: Path, rendered: Rendered) -> None:
    """Write one folder; `scene.json` comes last, so that its presence means complete."""
    save_images(folder, rendered.color, rendered.depth_mm, rendered.instances, _COMPRESSION)
    write_scene(folder / "scene.json", rendered.scene, rendered.truth)


def is_done(folder: Path, seed: int) -> bool:
    """Whether a folder holds the whole scene of a seed."""
    try:
        scene, _ = read_scene(folder / "scene.json")
    except (OSError, ValueError):
        return False
    return scene.seed == seed
