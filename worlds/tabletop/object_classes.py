"""The kinds of objects on the table, each made of MuJoCo primitives.

Every kind has visible parts (any number, no contact) and a few simple solids that only collide, so
that a mug may be hollow to the eye and still settle quickly. Sizes are half-sizes in meters, as
MuJoCo counts them; the body's origin is the middle of the object, z is up as it usually stands or
lies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Shape = Literal["box", "cylinder", "capsule", "sphere", "ellipsoid"]
Paint = Literal["main", "shade", "metal", "dark", "white", "brown", "leaf", "beak"]


@dataclass(frozen=True)
class Part:
    """One primitive. `paint` says whose color it has: the object's own, or a fixed one."""

    shape: Shape
    size: tuple[float, ...]
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    euler: tuple[float, float, float] = (0.0, 0.0, 0.0)
    paint: Paint = "main"


@dataclass(frozen=True)
class Model:
    """What one object looks like and how it touches others; sizes before scaling [m]."""

    visible: tuple[Part, ...]
    solid: tuple[Part, ...]
    size: tuple[float, float, float]
    poses: tuple[tuple[float, float, float], ...] = field(default=((0.0, 0.0, 0.0),))


def _ring(
    count: int, radius: float, z: float, size: tuple[float, float, float], *, tilt: float = 0.0
) -> list[Part]:
    """Make a round wall of boxes; `size` is (half thickness, half height, unused) of a box."""
    half_width = radius * math.tan(math.pi / count) * 1.04 + size[0] * 0.3
    parts = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        place = (radius * math.cos(angle), radius * math.sin(angle), z)
        # Extrinsic tilt about the wall's own tangent, then the turn about z.
        parts.append(Part("box", (size[0], half_width, size[1]), place, (0.0, tilt, angle)))
    return parts


def _mug() -> Model:
    wall = _ring(16, 0.038, 0.0, (0.003, 0.046, 0.0))
    bottom = Part("cylinder", (0.039, 0.004), (0, 0, -0.042), paint="shade")
    handle = [
        Part("capsule", (0.006, 0.014), (0.052, 0, 0.024), (0, math.pi / 2, 0)),
        Part("capsule", (0.006, 0.022), (0.067, 0, 0.0)),
        Part("capsule", (0.006, 0.014), (0.052, 0, -0.024), (0, math.pi / 2, 0)),
    ]
    solid = (
        Part("cylinder", (0.041, 0.046)),
        Part("box", (0.015, 0.006, 0.03), (0.056, 0, 0)),
    )
    return Model((*wall, bottom, *handle), solid, (0.114, 0.082, 0.092))


def _bottle() -> Model:
    visible = (
        Part("cylinder", (0.034, 0.062), (0, 0, -0.038)),
        Part("ellipsoid", (0.034, 0.034, 0.034), (0, 0, 0.024)),
        Part("cylinder", (0.013, 0.026), (0, 0, 0.066)),
        Part("cylinder", (0.0155, 0.010), (0, 0, 0.092), paint="white"),
        Part("cylinder", (0.0345, 0.024), (0, 0, -0.04), paint="shade"),
    )
    solid = (
        Part("cylinder", (0.034, 0.07), (0, 0, -0.03)),
        Part("cylinder", (0.0155, 0.03), (0, 0, 0.072)),
    )
    return Model(visible, solid, (0.068, 0.068, 0.202), ((0, 0, 0), (math.pi / 2, 0, 0)))


def _bowl() -> Model:
    upper = _ring(18, 0.068, 0.012, (0.0035, 0.023, 0.0), tilt=0.5)
    lower = _ring(18, 0.046, -0.016, (0.0035, 0.019, 0.0), tilt=0.95)
    bottom = Part("cylinder", (0.034, 0.004), (0, 0, -0.03), paint="shade")
    solid = (
        Part("cylinder", (0.05, 0.016), (0, 0, -0.018)),
        Part("cylinder", (0.076, 0.012), (0, 0, 0.018)),
    )
    return Model((*upper, *lower, bottom), solid, (0.156, 0.156, 0.068))


def _plate() -> Model:
    visible = (
        Part("cylinder", (0.088, 0.005)),
        Part("cylinder", (0.062, 0.0006), (0, 0, 0.0052), paint="shade"),
        Part("cylinder", (0.055, 0.0006), (0, 0, 0.0060)),
    )
    return Model(visible, (Part("cylinder", (0.088, 0.005)),), (0.176, 0.176, 0.011))


def _can() -> Model:
    visible = (
        Part("cylinder", (0.033, 0.05)),
        Part("cylinder", (0.0315, 0.055), paint="metal"),
        Part("cylinder", (0.0335, 0.014), (0, 0, 0.004), paint="white"),
        Part("ellipsoid", (0.009, 0.006, 0.002), (0.008, 0, 0.055), paint="dark"),
    )
    solid = (Part("cylinder", (0.033, 0.055)),)
    return Model(visible, solid, (0.067, 0.067, 0.11), ((0, 0, 0), (math.pi / 2, 0, 0)))


def _box() -> Model:
    visible = (
        Part("box", (0.06, 0.045, 0.038)),
        Part("box", (0.0605, 0.008, 0.0385), paint="brown"),
    )
    solid = (Part("box", (0.0605, 0.045, 0.0385)),)
    return Model(visible, solid, (0.121, 0.09, 0.077))


def _book() -> Model:
    visible = (
        Part("box", (0.062, 0.086, 0.0022), (0, 0, 0.0115)),
        Part("box", (0.062, 0.086, 0.0022), (0, 0, -0.0115)),
        Part("box", (0.0022, 0.086, 0.0137), (-0.06, 0, 0)),
        Part("box", (0.0585, 0.083, 0.0095), (0.0, 0, 0), paint="white"),
        Part("box", (0.034, 0.009, 0.0003), (0.006, 0.045, 0.0139), paint="white"),
        Part("box", (0.022, 0.004, 0.0003), (0.006, 0.02, 0.0139), paint="white"),
    )
    solid = (Part("box", (0.062, 0.086, 0.0138)),)
    return Model(visible, solid, (0.124, 0.172, 0.0276))


def _phone() -> Model:
    visible = (
        Part("box", (0.037, 0.074, 0.0042)),
        Part("box", (0.0325, 0.066, 0.0004), (0, 0, 0.0042), paint="dark"),
        Part("cylinder", (0.0025, 0.0004), (0, 0.0695, 0.0043), paint="dark"),
    )
    solid = (Part("box", (0.037, 0.074, 0.0046)),)
    return Model(visible, solid, (0.074, 0.148, 0.0092))


def _ball() -> Model:
    visible = (
        Part("sphere", (0.037,)),
        Part("cylinder", (0.0374, 0.006), paint="white"),
        Part("cylinder", (0.0374, 0.006), (0, 0, 0), (math.pi / 2, 0, 0), "white"),
    )
    tips = ((0.0, 0.0, 0.0), (0.8, 0.3, 0.0), (0.4, 1.0, 0.0))
    return Model(visible, (Part("sphere", (0.0374,)),), (0.075, 0.075, 0.075), tips)


def _apple() -> Model:
    visible = (
        Part("ellipsoid", (0.037, 0.037, 0.033)),
        Part("ellipsoid", (0.012, 0.012, 0.004), (0, 0, 0.0312), paint="shade"),
        Part("capsule", (0.0025, 0.011), (0.002, 0, 0.04), (0, 0.3, 0), "brown"),
        Part("ellipsoid", (0.013, 0.006, 0.002), (0.015, 0, 0.042), (0, -0.3, 0), "leaf"),
    )
    solid = (Part("ellipsoid", (0.037, 0.037, 0.033)),)
    return Model(visible, solid, (0.074, 0.074, 0.084), ((0, 0, 0), (0.9, 0, 0)))


def _banana() -> Model:
    parts, radius, count = [], 0.095, 6
    for i in range(count):
        angle = (i - (count - 1) / 2) * 0.27
        x, y = radius * math.sin(angle), radius * (1 - math.cos(angle)) - 0.02
        thick = 0.018 if 0 < i < count - 1 else 0.0145
        parts.append(Part("capsule", (thick, 0.013), (x, y, 0), (0, math.pi / 2, angle)))
    ends = []
    for side in (-1, 1):
        angle = side * 0.9
        x, y = radius * math.sin(angle), radius * (1 - math.cos(angle)) - 0.02
        ends.append(Part("capsule", (0.006, 0.008), (x, y, 0), (0, math.pi / 2, angle), "brown"))
    solid = tuple(Part(p.shape, p.size, p.position, p.euler) for p in parts[::2] + parts[-1:])
    return Model((*parts, *ends), solid, (0.17, 0.07, 0.036))


def _lemon() -> Model:
    visible = (
        Part("ellipsoid", (0.033, 0.026, 0.026)),
        Part("ellipsoid", (0.013, 0.009, 0.009), (0.031, 0, 0)),
        Part("ellipsoid", (0.010, 0.008, 0.008), (-0.032, 0, 0), paint="shade"),
    )
    return Model(visible, (Part("ellipsoid", (0.036, 0.026, 0.026)),), (0.086, 0.052, 0.052))


def _hammer() -> Model:
    visible = (
        Part("cylinder", (0.0115, 0.095), (-0.02, 0, 0), (0, math.pi / 2, 0)),
        Part("cylinder", (0.007, 0.025), (0.085, 0, 0), (0, math.pi / 2, 0), "brown"),
        Part("box", (0.014, 0.03, 0.0145), (0.104, 0, 0), paint="metal"),
        Part("cylinder", (0.018, 0.012), (0.104, 0.036, 0), (math.pi / 2, 0, 0), "metal"),
        Part("box", (0.012, 0.022, 0.006), (0.1, -0.046, 0), (0, 0, 0.35), "metal"),
    )
    solid = (
        Part("box", (0.11, 0.0115, 0.0115), (-0.005, 0, 0)),
        Part("box", (0.018, 0.055, 0.016), (0.104, -0.005, 0)),
    )
    return Model(visible, solid, (0.237, 0.116, 0.036))


def _screwdriver() -> Model:
    visible = (
        Part("capsule", (0.0145, 0.036), (-0.055, 0, 0), (0, math.pi / 2, 0)),
        Part("cylinder", (0.0155, 0.006), (-0.018, 0, 0), (0, math.pi / 2, 0), "dark"),
        Part("cylinder", (0.0042, 0.052), (0.038, 0, 0), (0, math.pi / 2, 0), "metal"),
        Part("box", (0.010, 0.0062, 0.002), (0.094, 0, 0), paint="metal"),
    )
    solid = (
        Part("box", (0.047, 0.014, 0.014), (-0.055, 0, 0)),
        Part("box", (0.055, 0.0045, 0.0045), (0.045, 0, 0)),
    )
    return Model(visible, solid, (0.208, 0.031, 0.031))


def _scissors() -> Model:
    parts: list[Part] = []
    for side in (-1, 1):
        angle = side * 0.2
        blade = (0.05 * math.cos(angle), 0.05 * math.sin(angle), side * 0.002)
        parts.append(Part("box", (0.052, 0.0065, 0.0016), blade, (0, 0, angle), "metal"))
        parts.append(
            Part(
                "box",
                (0.024, 0.005, 0.003),
                (-0.02 * math.cos(angle), -0.02 * math.sin(angle), side * 0.002),
                (0, 0, angle),
            )
        )
        center = (-0.062, -side * 0.024)
        for i in range(10):
            turn = 2 * math.pi * i / 10
            place = (center[0] + 0.022 * math.cos(turn), center[1] + 0.016 * math.sin(turn), 0.0)
            tangent = math.atan2(0.016 * math.cos(turn), -0.022 * math.sin(turn))
            parts.append(Part("capsule", (0.0046, 0.006), place, (0, math.pi / 2, tangent)))
    parts.append(Part("cylinder", (0.006, 0.0055), (0, 0, 0), paint="dark"))
    solid = (
        Part("box", (0.05, 0.016, 0.0046), (0.05, 0, 0)),
        Part("box", (0.045, 0.04, 0.0046), (-0.044, 0, 0)),
    )
    return Model(tuple(parts), solid, (0.19, 0.09, 0.0096))


def _spoon() -> Model:
    visible = (
        Part("ellipsoid", (0.032, 0.022, 0.0065), (0.062, 0, 0)),
        Part("ellipsoid", (0.025, 0.0165, 0.003), (0.062, 0, 0.0042), paint="shade"),
        Part("capsule", (0.005, 0.052), (-0.02, 0, 0), (0, math.pi / 2, 0)),
        Part("ellipsoid", (0.02, 0.0085, 0.005), (-0.072, 0, 0)),
    )
    solid = (
        Part("box", (0.03, 0.02, 0.006), (0.062, 0, 0)),
        Part("box", (0.062, 0.006, 0.005), (-0.03, 0, 0)),
    )
    return Model(visible, solid, (0.188, 0.044, 0.013))


MODELS: dict[str, Callable[[], Model]] = {
    "mug": _mug,
    "bottle": _bottle,
    "bowl": _bowl,
    "plate": _plate,
    "can": _can,
    "box": _box,
    "book": _book,
    "phone": _phone,
    "ball": _ball,
    "apple": _apple,
    "banana": _banana,
    "lemon": _lemon,
    "hammer": _hammer,
    "screwdriver": _screwdriver,
    "scissors": _scissors,
    "spoon": _spoon,
}

COLORS_RGB: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.07, 0.07),
    "orange": (0.95, 0.45, 0.05),
    "yellow": (0.95, 0.83, 0.10),
    "green": (0.12, 0.55, 0.15),
    "blue": (0.10, 0.22, 0.75),
    "purple": (0.45, 0.12, 0.60),
    "white": (0.93, 0.93, 0.92),
    "black": (0.07, 0.07, 0.08),
}
PAINTS_RGB: dict[Paint, tuple[float, float, float]] = {
    "metal": (0.62, 0.64, 0.66),
    "dark": (0.10, 0.10, 0.12),
    "white": (0.88, 0.88, 0.86),
    "brown": (0.40, 0.27, 0.15),
    "leaf": (0.25, 0.50, 0.15),
    "beak": (0.92, 0.40, 0.04),
}
COLORS_OF: dict[str, tuple[str, ...]] = {
    "apple": ("red", "green", "yellow"),
    "banana": ("yellow", "green"),
    "lemon": ("yellow", "green"),
}
"""Kinds that do not come in every color."""

TEST_ONLY_PAIRS: frozenset[tuple[str, str]] = frozenset(
    {
        ("mug", "purple"),
        ("bottle", "orange"),
        ("bowl", "blue"),
        ("plate", "green"),
        ("can", "white"),
        ("box", "purple"),
        ("book", "yellow"),
        ("phone", "red"),
        ("ball", "black"),
        ("apple", "yellow"),
        ("hammer", "green"),
        ("screwdriver", "white"),
        ("scissors", "yellow"),
        ("spoon", "orange"),
    }
)
"""(kind, color) that never stand on a table of the training or validation seeds."""


def colors_of(kind: str, *, with_test_only: bool) -> tuple[str, ...]:
    """The colors in which a kind may come."""
    colors = COLORS_OF.get(kind, tuple(COLORS_RGB))
    return tuple(c for c in colors if with_test_only or (kind, c) not in TEST_ONLY_PAIRS)
