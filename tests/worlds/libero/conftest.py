"""Scenes of LIBERO's world, made by hand; what needs the extra is skipped where it is missing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from worlds.common.scene import Scene, SceneObject
from worlds.libero.package import COMMAND, missing_modules
from worlds.libero.queries.facts import SceneFacts
from worlds.libero.scene import Rest, Truth


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = missing_modules()
    if not missing:
        return
    skip = pytest.mark.skip(reason=f"{', '.join(missing)} not installed: {COMMAND}")
    for item in items:
        if item.get_closest_marker("libero"):
            item.add_marker(skip)


class SceneBuilder:
    """Puts boxes on a table of one metre, seen from above: 400 px are a metre, x right, y down."""

    def __init__(self) -> None:
        self.objects: list[SceneObject] = []
        self.extents: dict[int, tuple[tuple, tuple]] = {}
        self.rests: dict[int, Rest] = {}
        self.fixtures: list[int] = []
        self.drawers: dict[int, dict[str, float]] = {}
        self.lit: list[int] = []
        self.names: dict[int, str] = {}

    def add(
        self,
        kind: str,
        x: float,
        y: float,
        size: float = 0.1,
        *,
        rest: Rest | None = None,
        fixture: bool = False,
        name: str = "",
    ) -> int:
        """Add an object with its middle at (x, y) [m]; returns its id."""
        number = len(self.objects) + 1
        half = size / 2
        box = tuple(round(320 + 400 * v) for v in (x - half, y - half, x + half, y + half))
        pose = ((x, y, 0.05), (0.0, 0.0, 0.0, 1.0), (size, size, 0.1))
        self.objects.append(SceneObject(number, kind, "", box, 900, 1.0, *pose))
        self.extents[number] = ((x - half, y - half, 0.0), (x + half, y + half, 0.1))
        if rest is not None:
            self.rests[number] = rest
        if fixture:
            self.fixtures.append(number)
        self.names[number] = name or f"{kind}_1"
        return number

    def build(self, view: str = "agentview", arena: str = "table") -> tuple[Scene, Truth]:
        """The scene and its truth."""
        intrinsics = {"fx": 400.0, "fy": 400.0, "cx": 320.0, "cy": 320.0}
        # Straight down from a metre above.
        camera = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 0.0))
        scene = Scene(7, (640, 640), intrinsics, *camera, tuple(self.objects), ())
        truth = Truth(
            arena=arena,
            view=view,
            surface_center_m=(0.0, 0.0, 0.0),
            fixtures=tuple(self.fixtures),
            rests=self.rests,
            extents_m=self.extents,
            drawers_m=self.drawers,
            open_doors=(),
            lit=tuple(self.lit),
            names=self.names,
        )
        return scene, truth

    def facts(self, view: str = "agentview") -> SceneFacts:
        """The scene as a person sees it."""
        return SceneFacts(*self.build(view))


@pytest.fixture
def builder() -> SceneBuilder:
    return SceneBuilder()


@pytest.fixture
def dinner(builder: SceneBuilder) -> SceneBuilder:
    """Three black bowls, a plate, a ramekin, a milk, a cabinet with a drawer open, a stove."""
    builder.add("plate", 0.2, 0.1, 0.14)  # 1
    builder.add("akita_black_bowl", 0.2, 0.24, 0.11, name="akita_black_bowl_1")  # 2: by the plate
    builder.add("glazed_rim_porcelain_ramekin", -0.3, 0.1, 0.09)  # 3
    cabinet = builder.add("wooden_cabinet", -0.3, -0.35, 0.22, fixture=True)  # 4
    builder.add(
        "akita_black_bowl",
        -0.3,
        -0.3,
        0.11,
        rest=Rest("in", cabinet, "top"),
        name="akita_black_bowl_2",
    )  # 5
    stove = builder.add("flat_stove", 0.3, -0.3, 0.2, fixture=True)  # 6
    builder.add(
        "akita_black_bowl", 0.3, -0.3, 0.11, rest=Rest("on", stove, ""), name="akita_black_bowl_3"
    )  # 7
    builder.add("milk", -0.05, 0.1, 0.055)  # 8: between ramekin and plate
    builder.drawers[cabinet] = {"top": 0.15, "middle": 0.0, "bottom": 0.0}
    return builder


def texts(queries: Sequence) -> list[str]:
    """What is asked."""
    return [query.text for query in queries]
