"""A scene in the making: what stands where, and where there is still room."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from worlds.libero.composition.footprint import Footprint, gap_m
from worlds.libero.composition.roles import CABINETS, DRAWERS, STOVES
from worlds.libero.simulation.pool_objects import PoolObject
from worlds.libero.simulation.rotations import product_wxyz, yaw_wxyz
from worlds.libero.simulation.stage import Stage

_MARGIN_M = 0.006
_DOOR_OPEN_RAD, _BUTTON_ON_RAD = -0.5, 0.5


@dataclass
class Layout:
    """What stands on the stage."""

    objects: list[PoolObject]  # what is shown, fixtures first
    # Of each cabinet, how far each drawer is open [m].
    drawers: dict[str, dict[str, float]] = field(default_factory=dict)
    open_doors: set[str] = field(default_factory=set)  # names of microwaves with the door open
    lit: set[str] = field(default_factory=set)  # names of stoves that are on

    def note_states(self, stage: Stage, obj: PoolObject) -> None:
        """Write down where a fixture's drawers, door or button are."""
        joints = {name: float(stage.data.qpos[j[0]]) for name, j in obj.joints.items()}
        if obj.kind in CABINETS:
            self.drawers[obj.name] = {
                drawer: round(-joints[f"{drawer}_level"], 3) + 0.0 for drawer in DRAWERS
            }
        if obj.kind == "microwave" and min(joints.values()) < _DOOR_OPEN_RAD:
            self.open_doors.add(obj.name)
        if obj.kind in STOVES and max(joints.values()) > _BUTTON_ON_RAD:
            self.lit.add(obj.name)


class Workbench:
    """One scene in the making."""

    def __init__(self, rng: np.random.Generator, stage: Stage) -> None:
        self.rng = rng
        self.stage = stage
        self.layout = Layout([])
        self.taken: dict[str, Footprint] = {}  # what stands on the surface itself
        self.blocked: list[Footprint] = []  # where drawers and doors open
        self.full: set[tuple[str, str]] = set()  # (object, region) that has something in it
        self.load: set[str] = set()  # movables that carry something

    def chance(self, probability: float) -> bool:
        """Whether something of this probability happens."""
        return bool(self.rng.random() < probability)

    def surface_xy(self, *, wide: bool) -> tuple[float, float]:
        """A random place on the part of the surface that is used."""
        x, y, _ = self.stage.arena.center_xyz_m
        half_x, half_y = self.stage.arena.work_xy_m
        grow = 1.2 if wide else 1.0
        return (
            x + self.rng.uniform(-half_x, half_x) * grow,
            y + self.rng.uniform(-half_y, half_y) * grow,
        )

    def free(self, footprint: Footprint, margin_m: float = _MARGIN_M) -> bool:
        """Whether nothing is nearer to a footprint than the margin."""
        others = [*self.taken.values(), *self.blocked]
        return all(gap_m(footprint, other) >= margin_m for other in others)

    def on_surface(self, footprint: Footprint) -> bool:
        """Whether it stands well inside of what the benchmark uses of the surface."""
        x, y, _ = self.stage.arena.center_xyz_m
        half_x, half_y = self.stage.arena.work_xy_m
        return abs(footprint.x_m - x) <= half_x + 0.08 and abs(footprint.y_m - y) <= half_y + 0.04

    def turn(self) -> float:
        """A yaw: often the benchmark's own."""
        return float(self.rng.normal(0, 0.08) if self.chance(0.5) else self.rng.uniform(0, 6.283))

    def stand(self, obj: PoolObject, footprint: Footprint, x: float, y: float, yaw: float) -> None:
        """Put a movable upright on the surface."""
        self.taken[obj.name] = footprint
        self.drop(obj, x, y, self.stage.arena.top_xyz_m[2] + 0.004, yaw)

    def drop(self, obj: PoolObject, x: float, y: float, bottom_z: float, yaw: float) -> None:
        """Show a movable with its lowest point at a height."""
        turn = product_wxyz(yaw_wxyz(yaw), obj.upright_wxyz)
        self.stage.show(obj)
        self.stage.put(obj, np.array([x, y, bottom_z - obj.low_m[2]]), turn)
        self.layout.objects.append(obj)
