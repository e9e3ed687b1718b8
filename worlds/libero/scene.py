"""What is known about one image of this world, beyond what every world's `scene.json` tells.

A folder reads as any world's does (`worlds.common.scene.load_scene`); the truth from which
questions are made stands in the same file under its own key.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from worlds.common.scene import Scene

KEY = "libero"
TRUTH_FORMAT = 1

Point3 = tuple[float, float, float]


@dataclass(frozen=True)
class Rest:
    """What an object rests on or in."""

    relation: str  # "on", "in", or "leaning" where it is neither
    holder: int  # the holder's id; 0 where it is not seen in the image, or the object leans
    part: str  # the drawer, compartment or side; empty where there are none


@dataclass(frozen=True)
class Truth:
    """What the questions are made from."""

    arena: str  # the surroundings
    view: str  # "agentview" or "hand"
    surface_center_m: Point3  # middle of the table's or floor's part that is used [m]
    fixtures: tuple[int, ...]  # ids of the objects that are built in
    rests: dict[int, Rest]  # by id; an object that is not named stands on the surface itself
    # By id, least and greatest corner along the world's axes [m].
    extents_m: dict[int, tuple[Point3, Point3]]
    drawers_m: dict[int, dict[str, float]]  # by a cabinet's id, how far each drawer is open [m]
    open_doors: tuple[int, ...]  # ids of open microwaves
    lit: tuple[int, ...]  # ids of stoves that are on
    # Kinds of which something stands there and is not in the image.
    hidden_kinds: tuple[str, ...] = ()
    names: dict[int, str] = field(default_factory=dict)  # by id, what the package calls the object

    def to_record(self) -> dict[str, Any]:
        """For `scene.json`."""
        return {"format": TRUTH_FORMAT, **asdict(self)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Truth:
        """Read what `to_record` wrote.

        Raises:
            ValueError: The record is none of this format.
        """
        try:
            if record["format"] != TRUTH_FORMAT:
                raise ValueError(f"truth format {record['format']!r}, expected {TRUTH_FORMAT}")
            return cls(
                arena=record["arena"],
                view=record["view"],
                surface_center_m=tuple(record["surface_center_m"]),
                fixtures=tuple(record["fixtures"]),
                rests={int(key): Rest(**value) for key, value in record["rests"].items()},
                extents_m={
                    int(key): (tuple(low), tuple(high))
                    for key, (low, high) in record["extents_m"].items()
                },
                drawers_m={int(key): dict(value) for key, value in record["drawers_m"].items()},
                open_doors=tuple(record["open_doors"]),
                lit=tuple(record["lit"]),
                hidden_kinds=tuple(record["hidden_kinds"]),
                names={int(key): name for key, name in record.get("names", {}).items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no truth of format {TRUTH_FORMAT}: {error!r}") from error


def write_scene(path: Path, scene: Scene, truth: Truth) -> None:
    """Write `scene.json` with the truth in it."""
    record = json.loads(scene.to_json())
    record[KEY] = truth.to_record()
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_scene(path: Path) -> tuple[Scene, Truth]:
    """Read `scene.json` without the pixels.

    Raises:
        OSError: There is no such file.
        ValueError: It is no scene of this world.
    """
    text = path.read_text(encoding="utf-8")
    scene = Scene.from_json(text)
    record = json.loads(text)
    if KEY not in record:
        raise ValueError(f"{path} is a scene of another world: it has no {KEY!r}")
    return scene, Truth.from_record(record[KEY])
