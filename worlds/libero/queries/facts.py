"""A scene as a person sees it: what its objects may be called, and where they are to one another.

A relation holds, does not hold, or is unclear; questions are only asked where it is clear for
every candidate. It is judged on the table in metres and in the image in pixels, and both must
agree: what is asked can be answered from the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from worlds.common.scene import Scene, SceneObject
from worlds.libero.object_classes import OBJECT_CLASSES
from worlds.libero.scene import Truth

NEXT_M, NOT_NEXT_M = 0.055, 0.10  # gaps that are certainly beside, and certainly not
CLEARLY_NEARER = 0.75  # ratio of distances at which one candidate is called the nearest
ANCHORS_APART_M = 0.13  # what something can be between
CENTER_M, NOT_CENTER_M = 0.09, 0.16  # distances from the middle of the table
CLEAR_STEP_PX = 24  # by which sides and ends must stand out
_SLANT = 1.2  # the table is seen at a slant: heights look shorter

# What the surroundings show, though it is no object of the scene.
_SURROUNDINGS = {
    "kitchen": ("stove", "burner", "cooktop", "hot plate"),
    "study": ("book", "shelf"),
}

Objects = Sequence[SceneObject]
YES, NO, UNCLEAR = True, False, None


@dataclass(frozen=True)
class Noun:
    """A noun phrase without an article, and the ids of all that it may mean."""

    text: str
    ids: tuple[int, ...]


class SceneFacts:
    """One scene."""

    def __init__(self, scene: Scene, truth: Truth) -> None:
        self.objects = scene.objects
        self.truth = truth
        self.by_id = {obj.id: obj for obj in scene.objects}
        self._scene = scene

    # --- what objects are called

    @cached_property
    def movables(self) -> tuple[SceneObject, ...]:
        """What can be picked up."""
        return tuple(o for o in self.objects if o.id not in self.truth.fixtures)

    def called(self, name: str) -> tuple[int, ...]:
        """Ids of everything that a name may mean."""
        return tuple(o.id for o in self.objects if name in OBJECT_CLASSES[o.kind].names)

    @cached_property
    def nouns(self) -> tuple[Noun, ...]:
        """Every noun phrase that means something here."""
        found: dict[str, tuple[int, ...]] = {}
        for obj in self.objects:
            kind = OBJECT_CLASSES[obj.kind]
            for name in kind.names:
                ids = self.called(name)
                found[name] = ids
                if kind.color and kind.color not in name:
                    colored = self._colored(kind.color, ids)
                    if colored:
                        found[f"{kind.color} {name}"] = colored
        return tuple(Noun(text, ids) for text, ids in found.items())

    def _colored(self, color: str, ids: Sequence[int]) -> tuple[int, ...]:
        """Those of a colour; empty where somebody might see it otherwise."""
        surely = tuple(i for i in ids if OBJECT_CLASSES[self.by_id[i].kind].color == color)
        perhaps = [i for i in ids if color in OBJECT_CLASSES[self.by_id[i].kind].maybe]
        return () if perhaps else surely

    def nouns_of(self, obj: SceneObject, *, unique: bool) -> list[Noun]:
        """Noun phrases that mean an object, alone or among others."""
        return [n for n in self.nouns if obj.id in n.ids and (len(n.ids) == 1) == unique]

    @cached_property
    def absent_names(self) -> tuple[str, ...]:
        """Names of the world's kinds that nothing here, nor the surroundings, can be called."""
        around = _SURROUNDINGS.get(self.truth.arena, ())
        names = sorted({name for kind in OBJECT_CLASSES.values() for name in kind.names})
        return tuple(
            n for n in names if not self.called(n) and not any(word in n for word in around)
        )

    # --- where objects are

    def center_px(self, obj: SceneObject) -> tuple[float, float]:
        """Middle of its box [px]."""
        x0, y0, x1, y1 = obj.box_xyxy
        return (x0 + x1) / 2, (y0 + y1) / 2

    def distance_px(self, one: SceneObject, other: SceneObject) -> float:
        """Distance in the image [px], the slant of the table allowed for."""
        (x0, y0), (x1, y1) = self.center_px(one), self.center_px(other)
        return math.hypot(x1 - x0, (y1 - y0) * _SLANT)

    def middle_m(self, obj: SceneObject) -> NDArray[np.float64]:
        """Middle of its extent on the table, [x, y] [m]."""
        low, high = self.truth.extents_m[obj.id]
        return (np.array(low[:2]) + np.array(high[:2])) / 2

    def distance_m(self, one: SceneObject, other: SceneObject) -> float:
        """Between their middles on the table [m]."""
        return float(np.linalg.norm(self.middle_m(one) - self.middle_m(other)))

    def gap_m(self, one: SceneObject, other: SceneObject) -> float:
        """Between their extents on the table [m]; 0 where one is over the other."""
        (low, high), (low2, high2) = (self.truth.extents_m[o.id] for o in (one, other))
        parts = [max(low2[k] - high[k], low[k] - high2[k], 0.0) for k in (0, 1)]
        return math.hypot(*parts)

    @cached_property
    def surface_center_px(self) -> tuple[float, float]:
        """Where the middle of the table is in the image [px]."""
        rotation = _matrix(self._scene.camera_quaternion_xyzw)
        offset = np.array(self.truth.surface_center_m) - self._scene.camera_position_m
        x, y, z = rotation.T @ offset
        k = self._scene.intrinsics
        return k["fx"] * x / z + k["cx"], k["fy"] * y / z + k["cy"]

    # --- relations: YES, NO or UNCLEAR

    def is_next(self, obj: SceneObject, anchor: SceneObject) -> bool | None:
        """Beside one another, neither on the other."""
        if self.is_stacked(obj, anchor):
            return NO
        gap = self.gap_m(obj, anchor)
        if gap <= NEXT_M:
            return YES
        return NO if gap >= NOT_NEXT_M else UNCLEAR

    def is_stacked(self, one: SceneObject, other: SceneObject) -> bool:
        """Whether one is on or in the other, or over objects that are, or may be."""
        if other.id in self.holders(one) or one.id in self.holders(other):
            return True
        rests = (self.truth.rests.get(item.id) for item in (one, other))
        leans = any(rest is not None and rest.relation == "leaning" for rest in rests)
        return leans and self.gap_m(one, other) == 0

    def holders(self, obj: SceneObject) -> list[int]:
        """What it rests on, what that rests on, and so on."""
        chain: list[int] = []
        rest = self.truth.rests.get(obj.id)
        while rest is not None and rest.holder and rest.holder not in chain:
            chain.append(rest.holder)
            rest = self.truth.rests.get(rest.holder)
        return chain

    def rests(
        self, obj: SceneObject, anchor: SceneObject, relation: str, part: str | None = None
    ) -> bool | None:
        """Whether it is on or in another object, directly; of a part where one is named."""
        rest = self.truth.rests.get(obj.id)
        if rest is None:
            return NO
        if rest.relation == "leaning" or not rest.holder:
            return UNCLEAR
        if rest.holder != anchor.id:
            return UNCLEAR if anchor.id in self.holders(obj) else NO
        if part is not None:
            return rest.part == part and rest.relation == relation
        if rest.relation == relation:
            return YES
        # What sits in a bowl may be said to be on it; what is in a drawer is not on the cabinet.
        return NO if rest.part else UNCLEAR

    def is_between(self, obj: SceneObject, one: SceneObject, other: SceneObject) -> bool | None:
        """Near the middle of the line between two objects, on the table and in the image."""
        if self.is_stacked(obj, one) or self.is_stacked(obj, other):
            return NO
        table = _between(self.middle_m(obj), self.middle_m(one), self.middle_m(other))
        image = _between(*(self._slanted_px(o) for o in (obj, one, other)))
        return table if table == image else UNCLEAR

    def _slanted_px(self, obj: SceneObject) -> NDArray[np.float64]:
        x, y = self.center_px(obj)
        return np.array([x, y * _SLANT])

    def side_of(self, obj: SceneObject, anchor: SceneObject) -> str:
        """Left, right, front or behind, as the camera sees it; empty where it is none clearly."""
        (x, y), (ax, ay) = self.center_px(obj), self.center_px(anchor)
        right, down = x - ax, (y - ay) * _SLANT
        if max(abs(right), abs(down)) < CLEAR_STEP_PX or self.is_stacked(obj, anchor):
            return ""
        if abs(right) > 1.15 * abs(down):
            return "right" if right > 0 else "left"
        if abs(down) > 1.15 * abs(right):
            return "front" if down > 0 else "behind"
        return ""

    def is_center(self, obj: SceneObject) -> bool | None:
        """In the middle of the table."""
        offset = self.middle_m(obj) - np.array(self.truth.surface_center_m[:2])
        distance = float(np.linalg.norm(offset))
        if self.truth.rests.get(obj.id) is not None:
            return NO if distance >= NOT_CENTER_M else UNCLEAR
        if distance <= CENTER_M:
            return YES
        return NO if distance >= NOT_CENTER_M else UNCLEAR


def _between(
    point: NDArray[np.float64], one: NDArray[np.float64], other: NDArray[np.float64]
) -> bool | None:
    line = other - one
    length = float(np.linalg.norm(line))
    if length < 1e-6:
        return UNCLEAR
    along = float((point - one) @ line) / length**2
    aside = abs(float(line[0] * (point - one)[1] - line[1] * (point - one)[0])) / length**2
    if 0.25 <= along <= 0.75 and aside <= 0.28:
        return YES
    if not 0.05 <= along <= 0.95 or aside >= 0.5:
        return NO
    return UNCLEAR


def _matrix(quaternion_xyzw: Sequence[float]) -> NDArray[np.float64]:
    x, y, z, w = quaternion_xyzw
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
