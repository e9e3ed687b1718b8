"""Settings: one frozen dataclass each, whose fields hold default, description and bounds.

The node declares its ROS parameters from these fields, so that a default stands in one place and
node and library refuse the same mistake with the same words.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, Final

from segzero_core.errors import ConfigError
from segzero_core.prompt import TEMPLATES

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
MAX_NEW_TOKENS = 4096
"""More than any published model needs for thinking and answer together."""

BACKENDS: Final = ("auto", "torch", "torch-compile", "onnxruntime", "tensorrt", "tensorrt-rtx")
"""Names of the ways to run the image encoder; `auto` takes the best that is there."""

ENCODER_PRECISIONS: Final = ("auto", "fp16", "fp32")
"""Types that the image encoder computes in on a GPU, with any backend.

`auto` is fp32 with torch. With ONNX Runtime and TensorRT it is fp16 if the masks agree with those
of fp32, and for TensorRT only if such an engine was built.
"""

REASONER_PRECISIONS: Final = ("auto", "float32", "bfloat16", "float16", "int8", "int4")
"""Types of a reasoner's weights; `auto` is float32 on a CPU and bfloat16 on a GPU.

`int8` and `int4` quantize the weights while they are loaded, by bitsandbytes on a GPU. They change
the completions.
"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The allowed values of a setting."""

    minimum: float | None = None  # smallest allowed number
    maximum: float | None = None  # largest allowed number
    choices: tuple[str, ...] = ()  # the allowed values; empty allows all
    read_only: bool = True  # the setting cannot change once its owner runs


def setting(default: Any, description: str, bounds: Bounds | None = None) -> Any:
    """Return a dataclass field with a description and bounds for people and for ROS."""
    metadata = {"description": description, "bounds": bounds or Bounds()}
    return dataclasses.field(default=default, metadata=metadata)


def bounds_of(field: dataclasses.Field[Any]) -> Bounds:
    """Return the allowed values of a field."""
    bounds: Bounds = field.metadata["bounds"]
    return bounds


def check_settings(config: Any) -> None:
    """Check every field of a settings dataclass against its type and bounds.

    Raises:
        ConfigError: Naming the field, its value and what is allowed.
    """
    for field in dataclasses.fields(config):
        value, kind = getattr(config, field.name), type(field.default)
        if kind is float and type(value) is int:
            value = float(value)
            object.__setattr__(config, field.name, value)
        if type(value) is not kind:
            raise ConfigError(
                f"{field.name}: expected {kind.__name__}, got {type(value).__name__} ({value!r})"
            )
        name, bounds = field.name, bounds_of(field)
        if bounds.choices and value not in bounds.choices:
            known = ", ".join(map(repr, bounds.choices))
            raise ConfigError(f"{name}: {value!r} is none of {known}")
        low = -math.inf if bounds.minimum is None else bounds.minimum
        high = math.inf if bounds.maximum is None else bounds.maximum
        if isinstance(value, int | float) and not low <= value <= high:
            raise ConfigError(f"{name}: {value} is outside {low:g} to {high:g}")


@dataclass(frozen=True)
class PipelineConfig:
    """Which model answers, and how."""

    model: str = setting(
        "tabletop",
        "Named model, folder, or Hub id of the reasoner, or one on a server:"
        " http://host:8000/v1#MODEL.",
    )
    fallback_model: str = setting(
        "",
        "Models that answer, in their order, when the one before is down or too slow; separated by"
        " commas.",
    )
    segmenter: str = setting(
        "", "Folder or Hub id of the SAM 2 segmenter; empty: the one that belongs to the model."
    )
    device: str = setting(
        "auto", "auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."
    )
    template: str = setting(
        "", "Prompt template; empty: the model's own.", Bounds(choices=("", *TEMPLATES))
    )
    max_new_tokens: int = setting(
        0,
        "Longest completion of the reasoner in tokens; 0: the model's own limit.",
        Bounds(0, MAX_NEW_TOKENS),
    )
    backend: str = setting(
        "auto",
        "What runs the image encoder; auto: TensorRT or ONNX Runtime where their file was made,"
        " else torch, also when they fail. Another is never replaced.",
        Bounds(choices=BACKENDS),
    )
    encoder_precision: str = setting(
        "auto",
        "Of the encoder on a GPU; auto: fp32 by torch, else fp16 where that makes the masks of"
        " fp32 (and for TensorRT such an engine was built).",
        Bounds(choices=ENCODER_PRECISIONS),
    )
    precision: str = setting(
        "auto",
        "Of the reasoner's weights; auto: float32 on a CPU, bfloat16 on a GPU; int8 and int4 need"
        " a GPU and change what is said.",
        Bounds(choices=REASONER_PRECISIONS),
    )
    grammar: bool = setting(
        False, "Only let well-formed answers be said; of a server, by its structured output."
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if not _DEVICE.fullmatch(self.device):
            raise ConfigError(f"device: {self.device!r} is none of auto, cpu, cuda, cuda:N")
        if not self.model.strip():
            raise ConfigError("model: it is empty; name a model, a folder or a Hub id")

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The names in `fallback_model`."""
        return tuple(filter(None, map(str.strip, self.fallback_model.split(","))))


GRIPPERS: Final[dict[str, dict[str, float]]] = {
    "generic": {},
    "panda": {
        "gripper_opening_m": 0.072,
        "finger_width_m": 0.021,
        "finger_thickness_m": 0.014,
        "finger_length_m": 0.040,
        "grasp_clearance_m": 0.003,
        "palm_width_m": 0.204,
        "palm_thickness_m": 0.063,
    },
}
"""Named grippers. Franka's Panda hand opens 80 mm, of which a margin is kept."""


@dataclass(frozen=True)
class GraspConfig:
    """The parallel gripper that grasps are looked for.

    The measures of a named gripper take the place of those that are at their defaults.
    """

    gripper: str = setting(
        "generic",
        "Named gripper, whose measures are the defaults of those below: generic or panda.",
        Bounds(choices=tuple(GRIPPERS), read_only=False),
    )
    gripper_opening_m: float = setting(
        0.08, "Widest opening of the gripper's fingers.", Bounds(0.005, 1.0, read_only=False)
    )
    finger_width_m: float = setting(
        0.02, "Width of a finger, across the closing axis.", Bounds(0.001, 0.2, read_only=False)
    )
    finger_thickness_m: float = setting(
        0.01,
        "Thickness of a finger, along the closing axis: the room it needs beside an object.",
        Bounds(0.001, 0.2, read_only=False),
    )
    finger_length_m: float = setting(
        0.045,
        "Length of the fingers before the palm: how deep an object may reach between them.",
        Bounds(0.005, 1.0, read_only=False),
    )
    palm_width_m: float = setting(
        0.0,
        "Width of the palm, along the closing axis; 0: only the fingers are kept free.",
        Bounds(0.0, 1.0, read_only=False),
    )
    palm_thickness_m: float = setting(
        0.0, "Depth of the palm, across the closing axis.", Bounds(0.0, 1.0, read_only=False)
    )
    grasp_clearance_m: float = setting(
        0.004,
        "Room that is left between a finger and anything it should not touch.",
        Bounds(0.0, 0.1, read_only=False),
    )
    max_grasps: int = setting(
        8,
        "How many grasps of an object are reported at most; 0: none are looked for.",
        Bounds(0, 100, read_only=False),
    )

    def __post_init__(self) -> None:
        check_settings(self)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, value in GRIPPERS[self.gripper].items():
            if getattr(self, name) == defaults[name]:
                object.__setattr__(self, name, value)
