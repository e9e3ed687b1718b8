"""What the launch file starts, with stand-ins for the packages launch and launch_ros."""

from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from segzero_ros.parameters import NodeConfig

LAUNCH_FILE = Path(__file__).resolve().parents[3] / "launch" / "segzero.launch.py"


class Argument:
    """A launch argument that is looked up in a dictionary."""

    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: dict[str, str]) -> str:
        return context[self.name]


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the launch file defines."""

    def record(*positional: Any, **named: Any) -> SimpleNamespace:
        return SimpleNamespace(positional=positional, **named)

    stand_ins = {
        "ament_index_python.packages": {"get_package_share_directory": lambda _: "/share"},
        "launch": {"LaunchContext": dict, "LaunchDescription": list},
        "launch.actions": {
            "DeclareLaunchArgument": record,
            "OpaqueFunction": record,
            "SetEnvironmentVariable": lambda *pair: SimpleNamespace(positional=(), pair=pair),
        },
        "launch.conditions": {"IfCondition": record},
        "launch.substitutions": {"LaunchConfiguration": Argument},
        "launch_ros.actions": {"Node": record},
    }
    for name, members in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("launch_ros", "ament_index_python"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    return runpy.run_path(str(LAUNCH_FILE))


def node_of(launch_file: dict[str, Any], **given: str) -> Any:
    """Return the node that is started when these arguments are given."""
    declared = launch_file["generate_launch_description"]()
    defaults = {each.positional[0]: each.default_value for each in declared if each.positional}
    assert set(given) <= set(defaults)
    (node,) = launch_file["segzero_node"](defaults | given)
    return node


def test_only_given_arguments_become_parameters_and_each_is_one_of_the_node(
    launch_file: dict[str, Any],
) -> None:
    assert len(node_of(launch_file).parameters) == 1  # the parameter file
    server = "http://h:8000/v1#org/model"
    given = {
        "model": server,
        "fallback_model": "other",
        "backend": "torch",
        "grammar": "true",
        "autostart": "false",
    }
    _, *parameters = node_of(launch_file, **given).parameters
    settings = {name: value for each in parameters for name, value in each.items()}
    switches = {"grammar": True, "autostart": False}
    assert settings == {**given, **switches}
    config = NodeConfig(**settings)
    assert dataclasses.asdict(config).items() >= settings.items()


def test_a_node_that_is_respawned_ends_when_its_model_hangs(launch_file: dict[str, Any]) -> None:
    assert not node_of(launch_file).respawn
    node = node_of(launch_file, respawn="true")
    assert node.respawn
    assert {"exit_on_hang": True} in node.parameters


def test_images_fit_into_shared_memory_unless_a_profile_was_chosen(
    launch_file: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "FASTRTPS_DEFAULT_PROFILES_FILE"
    monkeypatch.delenv(name, raising=False)
    (action,) = launch_file["dds_profile"]()
    assert action.pair == (name, "/share/config/fastdds.xml")
    monkeypatch.setenv(name, "my.xml")
    assert launch_file["dds_profile"]() == []
