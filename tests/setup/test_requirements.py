"""What the library and the command line import is what setup.py requires."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
OWN = {"segzero_core", "segzero_cli", "segzero_ros", "training", "worlds"}
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "rerun": "rerun-sdk",
    "yaml": "pyyaml",
}
"""Where a distribution is not called as its module."""
OPTIONAL = {
    "matplotlib": "train",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "openai": "remote",
    "rerun": "rerun",
    "rosbags": "bags",
    "starlette": "web",
    "uvicorn": "web",
}
"""Modules that only some commands need, and the extra that brings them."""
ROS = {
    "builtin_interfaces",
    "diagnostic_msgs",
    "lifecycle_msgs",
    "rclpy",
    "sensor_msgs",
    "std_msgs",
}


@pytest.fixture(scope="module")
def declared() -> dict[str, set[str]]:
    """The names of the required distributions (under ""), and those of each extra."""
    caught: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: caught.update(arguments))
        source = (ROOT / "setup.py").read_text()
        exec(compile(source, "setup.py", "exec"), {"__file__": str(ROOT / "setup.py")})
    groups = {"": caught["install_requires"], **caught["extras_require"]}
    return {
        extra: {Requirement(text).name for text in requirements}
        for extra, requirements in groups.items()
    }


def imported_modules(package: str) -> Iterator[tuple[str, Path]]:
    """Yield the top-level module of each import of another's package, with the file."""
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                yield name.partition(".")[0], path


@pytest.mark.parametrize("package", ["segzero_core", "segzero_cli"])
def test_every_import_is_required(package: str, declared: dict[str, set[str]]) -> None:
    known = OWN | ROS | set(sys.stdlib_module_names)
    missing = {
        f"{path.relative_to(ROOT)} imports {name}"
        for name, path in imported_modules(package)
        if name not in known
        and DISTRIBUTIONS.get(name, name) not in declared[OPTIONAL.get(name, "")]
    }
    assert missing == set()


def test_what_the_library_requires_is_imported(declared: dict[str, set[str]]) -> None:
    names = {
        DISTRIBUTIONS.get(name, name)
        for package in ("segzero_core", "segzero_cli")
        for name, _ in imported_modules(package)
    }
    # SAM 2 and transformers' image processors import it.
    assert declared[""] - names <= {"torchvision"}
