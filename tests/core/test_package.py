"""What the package promises as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import segzero_core

ROOT = Path(segzero_core.__file__).parent


def test_every_public_name_is_there() -> None:
    for name in segzero_core.__all__:
        assert getattr(segzero_core, name) is not None
    assert sorted(segzero_core.__all__) == sorted(set(segzero_core.__all__))
    assert set(segzero_core.__all__) <= set(dir(segzero_core))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(segzero_core, "SegOne")


def test_the_package_and_its_fakes_need_no_torch() -> None:
    code = (
        "import sys, segzero_core, segzero_core.testing.fakes, segzero_core.images.files;"
        "segzero_core.SegZero, segzero_core.draw_overlay;"
        "print([m for m in ('torch', 'transformers', 'sam2', 'rclpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )

    assert done.stdout.strip() == "[]"


def test_the_core_knows_neither_ros_nor_training() -> None:
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for package in ("rclpy", "segzero_ros", "training", "tabletop", "segzero_cli"):
            assert f"import {package}" not in text, path
            assert f"from {package}" not in text, path
