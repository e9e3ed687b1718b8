"""Object classes outside the vocabulary, for training on objects that are new to a model.

No seed shows one unless it is asked for by name, so that every scene of training and test stays
what it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from worlds.tabletop.object_classes import MODELS, Model, Part


def _duck() -> Model:
    visible = (
        Part("ellipsoid", (0.046, 0.034, 0.027), (0, 0, -0.018)),
        Part("ellipsoid", (0.020, 0.015, 0.012), (-0.042, 0, -0.002), (0, 0.6, 0)),
        Part("sphere", (0.025,), (0.024, 0, 0.024)),
        Part("ellipsoid", (0.014, 0.011, 0.0045), (0.051, 0, 0.021), paint="beak"),
        Part("ellipsoid", (0.025, 0.007, 0.015), (-0.006, 0.032, -0.012), (0.2, 0, 0), "shade"),
        Part("ellipsoid", (0.025, 0.007, 0.015), (-0.006, -0.032, -0.012), (-0.2, 0, 0), "shade"),
        Part("sphere", (0.0042,), (0.041, 0.013, 0.034), paint="dark"),
        Part("sphere", (0.0042,), (0.041, -0.013, 0.034), paint="dark"),
    )
    solid = (
        Part("box", (0.040, 0.028, 0.022), (0, 0, -0.023)),
        Part("sphere", (0.025,), (0.024, 0, 0.024)),
    )
    return Model(visible, solid, (0.127, 0.078, 0.094))


def _candle() -> Model:
    visible = (
        Part("cylinder", (0.045, 0.004), (0, 0, -0.056), paint="metal"),
        Part("cylinder", (0.022, 0.052)),
        Part("ellipsoid", (0.018, 0.018, 0.003), (0, 0, 0.052), paint="shade"),
        Part("capsule", (0.0018, 0.007), (0, 0, 0.061), (0, 0.15, 0), "dark"),
    )
    solid = (
        Part("cylinder", (0.045, 0.004), (0, 0, -0.056)),
        Part("cylinder", (0.022, 0.056)),
    )
    return Model(visible, solid, (0.09, 0.09, 0.13), ((0, 0, 0), (math.pi / 2, 0, 0)))


EXTRA_MODELS: dict[str, Callable[[], Model]] = {"duck": _duck, "candle": _candle}


def model_of(kind: str) -> Model:
    """The model of a kind, inside the vocabulary or outside."""
    return (MODELS.get(kind) or EXTRA_MODELS[kind])()
