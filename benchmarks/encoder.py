"""SAM 2.1 tiny's image encoder at 1024x1024: ONNX Runtime against torch as it is, same threads.

    python -m benchmarks.encoder --check
    python -m benchmarks.encoder --runs 5 --threads 1 --json encoder.json

The weights are random. The two take turns. The target is 1.5 times torch, with features that
differ by less than a thousandth of their range.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

from benchmarks.figures import conclude, new_parser
from segzero_cli.export import random_segmenter
from segzero_core.encoders.onnx_encoder import OnnxImageEncoder
from segzero_core.encoders.onnx_export import export_encoder
from segzero_core.segmenter.encoder_parity import drawn_scene
from segzero_core.terminal.progress_bar import ProgressBar

CONFIG: Final = "configs/sam2.1/sam2.1_hiera_t.yaml"
RUNS: Final = 20
MIN_RATIO: Final = 1.5
MAX_RELATIVE: Final = 1e-3


def measure(config: str, runs: int) -> dict[str, Any]:
    """Export the encoder, then time both on the same image."""
    sam = random_segmenter(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        errors = export_encoder(sam.model, sam.weights_hash, path)
        encoders: dict[str, Any] = {
            "torch": sam.encoder,
            "onnxruntime": OnnxImageEncoder(path, sam.weights_hash),
        }
        image, _ = drawn_scene(0)
        times: dict[str, list[float]] = {name: [] for name in encoders}
        for index in ProgressBar(range(-1, runs), unit="round"):
            for name, encoder in encoders.items():
                start = time.perf_counter()
                encoder.encode(image)
                if index >= 0:  # the first round warms up
                    times[name].append(time.perf_counter() - start)
    middle = {name: median(spent) * 1e3 for name, spent in times.items()}
    return {
        "config": config,
        "runs": runs,
        "threads": torch.get_num_threads(),
        "torch_ms": round(middle["torch"], 1),
        "onnxruntime_ms": round(middle["onnxruntime"], 1),
        "ratio": round(middle["torch"] / middle["onnxruntime"], 3),
        "relative_error": max(error.relative for error in errors),
    }


def main(argv: list[str] | None = None) -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--config", default=CONFIG, help="a configuration of the sam2 package")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--threads", type=int, default=0, help="of both; default: torch's own")
    args = parser.parse_args(argv)
    if args.runs < 1:
        parser.error("--runs must be at least 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    figures = measure(args.config, args.runs)
    missed = figures["ratio"] < MIN_RATIO or figures["relative_error"] >= MAX_RELATIVE
    print(
        f"torch {figures['torch_ms']} ms, ONNX Runtime {figures['onnxruntime_ms']} ms with"
        f" {figures['threads']} threads, features differ by {figures['relative_error']:.1e} of"
        f" their range: {figures['ratio']} times as fast (target {MIN_RATIO})"
    )
    return conclude(args, figures, missed=missed)


if __name__ == "__main__":
    sys.exit(main())
