"""`segzero check-encoder`: builds, compares and times every way to run the image encoder here."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING, Final

from segzero_cli import build_engine, export
from segzero_cli.arguments import Parser
from segzero_core.errors import SegZeroError

if TYPE_CHECKING:
    from segzero_core.segmenter.sam2 import LoadedSegmenter

WAYS: Final = (
    ("torch", "fp32"),
    ("torch", "fp16"),
    ("torch-compile", "fp16"),
    ("onnxruntime", "fp32"),
    ("tensorrt", "fp16"),
    ("tensorrt", "fp32"),
    ("tensorrt-rtx", "fp16"),
    ("tensorrt-rtx", "fp32"),
)
"""Backends and precisions; those of a GPU only are left out without one, but not an engine."""
_PACKAGES: Final = ("segzero", "torch", "onnxruntime", "tensorrt", "tensorrt-rtx")
_RUNS: Final = 20


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero check-encoder",
        examples=["", "--model libero --device cuda:1"],
        description="Run the image encoder in every way that this machine has: build what is"
        " missing, compare the masks with torch's, take the time. Prints a block to paste into an"
        " issue. The exit code is 1 when no TensorRT engine ran and made torch's masks.",
    )
    parser.add_model_arguments()
    parser.add_device_argument()
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `segzero check-encoder` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    from segzero_core.loading import choose_device

    device = choose_device(arguments.device)
    here = export.load(arguments.model, arguments.segmenter)
    there = export.load(arguments.model, arguments.segmenter, device)
    print("### segzero check-encoder\n")
    print(f"- {describe_machine(device)}")
    print(f"- {', '.join(f'{name} {_version(name)}' for name in _PACKAGES)}")
    print(f"- segmenter {here.name}, weights {here.weights_hash}\n")
    print("| backend | precision | prepared in s | least IoU with torch | ms | |")
    print("|---|---|---|---|---|---|", flush=True)
    ran = False
    for backend, precision in WAYS:
        if device == "cpu" and backend.startswith("torch") and precision == "fp16":
            continue
        cells = check(here, there, device, backend, precision)
        ran |= backend.startswith("tensorrt") and bool(cells[2])
        print(f"| {backend} | {precision} | {' | '.join(cells)} |", flush=True)
    print(f"\n{'A' if ran else 'No'} TensorRT engine ran here and made torch's masks.")
    return int(not ran)


def check(
    here: LoadedSegmenter, there: LoadedSegmenter, device: str, backend: str, precision: str
) -> list[str]:
    """Prepare, load, compare and time one backend and precision; return the cells of the table.

    The segmenter is given twice: on the CPU, to export, and on the device. The cells are seconds
    to prepare, least IoU, milliseconds, and what was missing.
    """
    from segzero_cli.bench.roofline import seconds
    from segzero_core.segmenter.encoder_parity import drawn_scene, mask_agreement
    from segzero_core.segmenter.encoder_selection import choose_encoder

    cells, began_s = ["", "", "", ""], time.perf_counter()
    try:
        if backend.startswith("tensorrt"):
            build_engine.build(here, precision, device, backend)
        elif backend == "onnxruntime":
            export.write(here, precision)
        cells[0] = f"{time.perf_counter() - began_s:.1f}"
        encoder = choose_encoder(there, device, backend, precision).encoder
        cells[1] = f"{min(mask_agreement(there.encoder, encoder, there.segmenter)):.4f}"
        image, _ = drawn_scene(0)
        cells[2] = f"{1e3 * seconds(lambda: encoder.encode(image), device, _RUNS):.1f}"
    except SegZeroError as error:
        cells[3] = " ".join(str(error).split()).replace("|", "/")
    return cells


def describe_machine(device: str) -> str:
    """Name GPU, driver, processor and system in one line."""
    import torch

    gpu = "torch sees no GPU"
    if device != "cpu":
        major, minor = torch.cuda.get_device_capability(device)
        gpu = f"{torch.cuda.get_device_name(device)} ({major}.{minor}), CUDA {torch.version.cuda}"
        with suppress(OSError, subprocess.SubprocessError):
            query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            gpu += f", driver {subprocess.check_output(query, text=True).split()[0]}"
    return (
        f"{gpu}; {platform.machine()}, {platform.platform()}, Python {platform.python_version()}"
    )


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"
