"""The core's settings as ROS parameters: declared from the dataclass, and built back into it.

`python -m segzero_ros.parameters` writes the README's table of them.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)

from segzero_core.config import NodeConfig, bounds_of
from segzero_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rclpy.node import Node
    from rclpy.parameter import Parameter


def declare_parameters(node: Node) -> None:
    """Declare every setting with its description and range.

    Raises:
        rclpy.exceptions.ParameterException: A given value has another type or is out of range.
    """
    for field in dataclasses.fields(NodeConfig):
        bounds = bounds_of(field)
        descriptor = ParameterDescriptor(
            description=field.metadata["description"],
            additional_constraints=_choices_in_words(bounds.choices),
            read_only=bounds.read_only,
        )
        if bounds.minimum is not None and bounds.maximum is not None:
            if isinstance(field.default, int):
                limits = IntegerRange(
                    from_value=int(bounds.minimum), to_value=int(bounds.maximum), step=1
                )
                descriptor.integer_range = [limits]
            else:
                limits = FloatingPointRange(
                    from_value=float(bounds.minimum), to_value=float(bounds.maximum)
                )
                descriptor.floating_point_range = [limits]
        node.declare_parameter(field.name, field.default, descriptor)


def _choices_in_words(choices: tuple[str, ...]) -> str:
    return f"one of {', '.join(map(repr, choices))}" if choices else ""


def read_config(node: Node, changes: Iterable[Parameter] = ()) -> NodeConfig:
    """Build the settings from the node's parameters.

    Args:
        node: A node on which `declare_parameters` was called.
        changes: Values about to be set, which win over the present ones.

    Raises:
        ConfigError: A value is not allowed.
    """
    names = [field.name for field in dataclasses.fields(NodeConfig)]
    values = {name: node.get_parameter(name).value for name in names}
    values.update((change.name, change.value) for change in changes if change.name in values)
    return NodeConfig(**values)


def check_change(node: Node, changes: Iterable[Parameter]) -> SetParametersResult:
    """Answer whether parameters may be set, with a reason that names the allowed values."""
    try:
        read_config(node, changes)
    except ConfigError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def parameter_table() -> str:
    """Return the Markdown table of all parameters that stands in the README."""
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(NodeConfig):
        late = "" if bounds_of(field).read_only else " May change at run time."
        meaning = field.metadata["description"] + late
        lines.append(f"| `{field.name}` | `{json.dumps(field.default)}` | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(parameter_table(), end="")
