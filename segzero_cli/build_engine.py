"""`segzero build-engine`: the image encoder as a TensorRT engine of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from segzero_cli import export
from segzero_cli.arguments import Parser

if TYPE_CHECKING:
    from segzero_core.encoders.tensorrt_engine import EngineKey
    from segzero_core.segmenter.sam2 import LoadedSegmenter


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero build-engine",
        description="Build the image encoder into a TensorRT engine for this machine's GPU, and"
        " compare its masks with torch's. Takes minutes; the engine is kept, and used by backend"
        " auto and tensorrt.",
    )
    parser.add_model_arguments()
    parser.add_argument("--precision", default="fp16", help="fp16 (default) or fp32")
    parser.add_argument("--device", default="cuda", help="cuda (default) or cuda:1")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `segzero build-engine` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    # Everything that can be refused at once is refused before anything is loaded.
    from segzero_core.encoders import tensorrt_engine
    from segzero_core.loading import choose_device
    from segzero_core.segmenter.encoder_selection import tensorrt_encoder

    tensorrt_engine.import_tensorrt()
    device = choose_device(arguments.device)
    sam = export.load(arguments.model, arguments.segmenter)
    key, path = build(sam, arguments.precision, device)
    print(f"built {path} for {key.gpu} with TensorRT {key.tensorrt}")
    on_gpu = export.load(arguments.model, arguments.segmenter, device)
    tensorrt_encoder(on_gpu, device, arguments.precision)
    agreement = tensorrt_engine.read_notes(key).get("agreement", [])
    print(f"its masks agree with torch's: IoU {', '.join(f'{v:.4f}' for v in agreement)}")
    return 0


def build(sam: LoadedSegmenter, precision: str, device: str) -> tuple[EngineKey, Path]:
    """Build an encoder's engine, and its ONNX file where there is none; return key and file."""
    import torch

    from segzero_core.checkpoints.sam2_checkpoint import image_side
    from segzero_core.encoders import tensorrt_engine
    from segzero_core.encoders.onnx_export import onnx_path

    tensorrt = tensorrt_engine.import_tensorrt()
    side = image_side(sam.model)
    graph = onnx_path(sam.weights_hash, side, precision)
    if not graph.is_file():
        export.write(sam, precision)
    key = tensorrt_engine.engine_key(
        tensorrt, torch.device(device), sam.weights_hash, precision, side
    )
    with ProgressBar() as progress:
        return key, tensorrt_engine.build_engine(tensorrt, graph, key, progress.show)


class ProgressBar:
    """Draws the phases of a build as one bar; a context manager."""

    def __init__(self) -> None:
        self._bar = tqdm(bar_format="{bar:30} {desc}", leave=False)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, phase: str, step: int, steps: int) -> None:
        """Draw how many steps of a phase are done."""
        self._bar.total, self._bar.n = steps or None, step
        self._bar.set_description_str(phase[:40])
