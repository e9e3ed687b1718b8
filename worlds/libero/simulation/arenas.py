"""The surroundings of the benchmark's tasks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arena:
    """One of the benchmark's surroundings."""

    problem: str  # the package's name for tasks in it
    surface: str  # what its task files call the table or floor
    # Middle of the surface, at the height that the benchmark counts from [m].
    center_xyz_m: tuple[float, float, float]
    work_xy_m: tuple[float, float]  # half extent of where the benchmark puts movable objects [m]
    rise_m: float = 0.0  # how far above that height the surface is that objects stand on [m]

    @property
    def top_xyz_m(self) -> tuple[float, float, float]:
        """Middle of what objects stand on [m]."""
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
