"""What the packages declare agrees with what the code needs and with one another."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from segzero_ros.action import MoveHand, Segment
from segzero_ros.msg import (
    GraspCandidate,
    ObjectInstance,
    ReasoningTrace,
    SegmentationResult,
    Status,
)
from segzero_ros.parameters import NodeConfig

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()
CMAKE = (ROOT / "CMakeLists.txt").read_text()
BUILD_TIMEOUT_S = 900


def setup_arguments() -> dict:
    """Run setup.py without setting anything up."""
    import setuptools

    caught: dict = {}
    source = (ROOT / "setup.py").read_text()
    namespace = {"__file__": str(ROOT / "setup.py"), "__name__": "setup"}
    original, setuptools.setup = setuptools.setup, lambda **arguments: caught.update(arguments)
    try:
        exec(compile(source, "setup.py", "exec"), namespace)
    finally:
        setuptools.setup = original
    return caught


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    return {canonicalize_name(name): pin for name, pin in pairs}


def requirements() -> Iterator[Requirement]:
    arguments = setup_arguments()
    extras = arguments["extras_require"]
    groups = [arguments["install_requires"]]
    groups += [names for extra, names in extras.items() if extra not in ("trt", "rtx")]
    return (Requirement(text) for group in groups for text in group)


def test_every_requirement_is_pinned_within_its_range() -> None:
    pinned = pins()
    for requirement in requirements():
        pin = pinned.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(pin), f"{requirement} does not allow {pin}"


def test_tensorrt_is_never_installed_by_default() -> None:
    assert "tensorrt" not in pins()
    assert not any(requirement.name.startswith("tensorrt") for requirement in requirements())
    assert setup_arguments()["extras_require"]["trt"]
    (rtx,) = map(Requirement, setup_arguments()["extras_require"]["rtx"])
    assert rtx.specifier.contains(pins()[rtx.name])


def test_what_is_installed_here_is_what_is_pinned() -> None:
    pinned = pins()
    for name in ("torch", "torchvision", "transformers", "sam2", "numpy"):
        if (ROOT / ".venv" / "ros_setup").exists() and name == "numpy":
            continue  # a distribution keeps its own
        assert version(name).partition("+")[0] == pinned[name]


def test_all_versions_agree() -> None:
    assert PACKAGE.findtext("version") == setup_arguments()["version"] == version("segzero")


def test_the_licence_is_the_same_everywhere() -> None:
    assert PACKAGE.findtext("license") == setup_arguments()["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def declared(*tags: str) -> set[str]:
    return {element.text for tag in tags for element in PACKAGE.findall(tag)}


def test_package_xml_declares_what_cmake_looks_for() -> None:
    found = set(re.findall(r"find_package\((\w+)", CMAKE)) - {"Python3"}
    assert found <= declared("buildtool_depend", "build_depend", "depend")


def ros_imports() -> set[str]:
    """Collect the top-level modules that the node and its launch file import."""
    ours = {"segzero_core", "segzero_ros", *sys.stdlib_module_names}
    names = set()
    for path in [*(ROOT / "segzero_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - ours


def test_package_xml_declares_what_the_node_and_the_launch_file_import() -> None:
    system_names = {"numpy": "python3-numpy", "PIL": "python3-pil", "tf2_ros": "tf2_ros_py"}
    needed = {system_names.get(name, name) for name in ros_imports()}
    assert needed <= declared("depend", "exec_depend")


def test_cmake_builds_every_interface() -> None:
    listed = set(re.findall(r'"((?:msg|srv|action)/\w+\.(?:msg|srv|action))"', CMAKE))
    present = {
        str(path.relative_to(ROOT))
        for folder in ("msg", "srv", "action")
        for path in (ROOT / folder).iterdir()
    }
    assert listed == present


# The interfaces of release 0.1, which programs of others were built with.
CONTRACT = {
    ObjectInstance: """id uint16, label string, box_xyxy int32[4],
        points sequence<geometry_msgs/Point>, mask sensor_msgs/Image, mask_x_offset int32,
        mask_y_offset int32, score float, area_px uint32, pose geometry_msgs/Pose,
        size_m geometry_msgs/Vector3, has_pose boolean,
        grasps sequence<segzero_ros/GraspCandidate>""",
    GraspCandidate: "pose geometry_msgs/Pose, width_m float, score float",
    SegmentationResult: """header std_msgs/Header, query_id string, query string,
        error_code uint16, error_msg string, thinking string, completion string,
        ambiguous boolean, instances sequence<segzero_ros/ObjectInstance>, image_width uint32,
        image_height uint32, model string, model_hash string, encoder_backend string,
        answered_by string, wait_ms float, first_token_ms float, reasoner_ms float,
        encoder_ms float, decoder_ms float, total_ms float, tokens uint32""",
    ReasoningTrace: """header std_msgs/Header, query_id string, stage uint8, delta string,
        thinking string, done boolean""",
    Status: """state uint8, detail string, model string, encoder_backend string,
        active_query_id string""",
    Segment.Goal: "query string, image sensor_msgs/Image, timeout_s float",
    Segment.Result: "result segzero_ros/SegmentationResult",
    Segment.Feedback: "stage uint8, thinking string, elapsed_s float",
    MoveHand.Goal: "pose geometry_msgs/PoseStamped, speed double, fingers uint8",
    MoveHand.Result: "outcome uint8, message string, stamp builtin_interfaces/Time",
    MoveHand.Feedback: "remaining_m float, opening_m float",
}


@pytest.mark.parametrize("message", CONTRACT, ids=lambda message: message.__name__)
def test_fields_are_only_added_to_an_interface(message: type) -> None:
    promised = dict(re.split(r" (?=[^ ]+$)", field.strip()) for field in _fields(message))
    assert promised.items() <= message.get_fields_and_field_types().items()


def _fields(message: type) -> list[str]:
    return re.split(r",\s*", " ".join(CONTRACT[message].split()))


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (ReasoningTrace, "WAITING THINKING ANSWERING SEGMENTING DONE FAILED"),
        (Status, "UNCONFIGURED LOADING READY BUSY INACTIVE ERROR"),
        (
            SegmentationResult,
            "OK NO_IMAGE STALE_IMAGE INVALID_QUERY INVALID_IMAGE UNUSABLE_ANSWER MODEL_FAILURE "
            "OUT_OF_MEMORY CANCELLED TIMEOUT INACTIVE INTERNAL_ERROR BUSY",
        ),
    ],
    ids=["ReasoningTrace", "Status", "SegmentationResult"],
)
def test_constants_keep_their_numbers(message: type, names: str) -> None:
    assert [getattr(message, name) for name in names.split()] == list(range(len(names.split())))


@pytest.mark.parametrize("folder", [ROOT, Path("/")], ids=["in the checkout", "elsewhere"])
def test_modules_and_generated_interfaces_are_one_package(folder: Path) -> None:
    code = (
        "import segzero_ros.node, segzero_ros.msg, segzero_ros.action\n"
        "print(len(segzero_ros.__path__), segzero_ros.node.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    folders, node_file = done.stdout.split()
    assert int(folders) >= 2
    assert Path(node_file) == ROOT / "segzero_ros" / "node.py"


def test_the_parameter_file_names_only_parameters_of_the_node() -> None:
    text = (ROOT / "config" / "segzero.yaml").read_text()
    # What stands there as an example must be right too.
    examples = re.sub(r"^    # (\w+:)", r"    \1", text, flags=re.MULTILINE)
    parameters = yaml.safe_load(examples)["/**"]["ros__parameters"]
    assert parameters.pop("use_sim_time") is False
    assert set(parameters) == {field.name for field in dataclasses.fields(NodeConfig)}
    NodeConfig(**parameters)
    assert list(yaml.safe_load(text)["/**"]["ros__parameters"]) == ["use_sim_time"]


CAMERA = "/camera/color/image_raw"


def test_rviz_shows_topics_of_the_node_with_a_quality_of_service_that_fits() -> None:
    manager = yaml.safe_load((ROOT / "rviz" / "segzero.rviz").read_text())["Visualization Manager"]
    shown = {display["Topic"]["Value"]: display["Topic"] for display in manager["Displays"]}
    assert set(shown) == {
        CAMERA,
        "/segzero/overlay",
        "/segzero/mask",
        "/segzero/markers",
        "/segzero/object_cloud",
        "/segzero/object_poses",
    }
    for name, topic in shown.items():
        # A camera may publish best effort; what the node publishes is reliable and not latched.
        assert topic["Reliability Policy"] == ("Best Effort" if name == CAMERA else "Reliable")
        assert topic["Durability Policy"] == "Volatile"


def test_foxglove_shows_the_same_topics_and_asks_as_the_node_listens() -> None:
    layout = json.loads((ROOT / "rviz" / "segzero.foxglove.json").read_text())
    panels = layout["configById"]
    names = {
        *(panel["imageMode"]["imageTopic"] for panel in panels.values() if "imageMode" in panel),
        *(topic for panel in panels.values() for topic in panel.get("topics", {})),
        *(
            panel["topicPath"].partition(".")[0]
            for panel in panels.values()
            if "topicPath" in panel
        ),
    }
    assert names == {
        CAMERA,
        "/segzero/overlay",
        "/segzero/markers",
        "/segzero/object_cloud",
        "/segzero/object_poses",
        "/segzero/reasoning",
        "/segzero/status",
    }
    assert panels["Publish!query"]["topicName"] == "/segzero/query"
    assert panels["Publish!query"]["datatype"] == "std_msgs/msg/String"
    assert panels["RawMessages!reasoning"]["topicPath"].partition(".")[2] in dict(
        ReasoningTrace.get_fields_and_field_types()
    )
    placed = set(re.findall(r'"(\w+!\w+)"', json.dumps(layout["layout"])))
    assert placed == set(panels)


@pytest.mark.slow
@pytest.mark.timeout(BUILD_TIMEOUT_S)
@pytest.mark.parametrize("how", [[], ["--symlink-install"]], ids=["copied", "symlinked"])
def test_colcon_builds_the_checkout_as_a_package(tmp_path: Path, how: list[str]) -> None:
    """The workspace is built and its executable started, ended, and asked for its exit code."""
    colcon = shutil.which("colcon")
    assert colcon, "there is no colcon: run make setup"
    source = tmp_path / "src" / "segzero"
    tracked = ["segzero_ros", "segzero_core", "msg", "srv", "action", "launch", "config", "rviz"]
    for name in [*tracked, "scripts"]:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("CMakeLists.txt", "package.xml", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    prefix = os.environ.get("VIRTUAL_ENV", sys.prefix)
    env = {**os.environ, "CMAKE_PREFIX_PATH": prefix, "AMENT_PREFIX_PATH": prefix}
    command = [colcon, "build", *how, "--cmake-args", "-DBUILD_TESTING=OFF"]
    built = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr

    installed = tmp_path / "install" / "segzero_ros"
    assert os.access(installed / "lib" / "segzero_ros" / "ask", os.X_OK)
    for name in (
        "launch/segzero.launch.py",
        "launch/demo.launch.py",
        "config/segzero.yaml",
        "rviz/segzero.rviz",
    ):
        assert (installed / "share" / "segzero_ros" / name).is_file()
    executable = installed / "lib" / "segzero_ros" / "segzero_node"
    start = (
        f"source {tmp_path}/install/setup.bash && {executable} --ros-args -p max_new_tokens:=-1"
    )
    node = subprocess.run(["bash", "-c", start], cwd="/", env=env, capture_output=True, text=True)
    assert node.returncode == 2, node.stderr
    assert "max_new_tokens" in node.stderr
    where = "import segzero_ros.node, segzero_ros.msg; print(segzero_ros.node.__file__)"
    asked = f"source {tmp_path}/install/setup.bash && {sys.executable} -c '{where}'"
    found = subprocess.run(
        ["bash", "-c", asked], cwd="/", env=env, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(installed))
