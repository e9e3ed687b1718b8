"""`segzero build-engine`: the image encoder as an engine of TensorRT or TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segzero_cli import export
from segzero_cli.arguments import Parser
from segzero_core.errors import ConfigError
from segzero_core.terminal.progress_bar import ProgressBar

if TYPE_CHECKING:
    from segzero_core.encoders.tensorrt_engine import EngineKey
    from segzero_core.segmenter.sam2 import LoadedSegmenter


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero build-engine",
        examples=["--rtx", "--model tabletop --precision fp16"],
        description="Build the image encoder into a TensorRT engine for this machine's GPU, and"
        " compare its masks with torch's. Takes minutes; the engine is kept, and used by backend"
        " auto and tensorrt. With --rtx it is built by TensorRT-RTX, for GeForce RTX and RTX PRO,"
        " which takes seconds and needs no GPU; used by backend auto and tensorrt-rtx.",
    )
    parser.add_model_arguments()
    parser.add_argument("--precision", default="fp16", help="fp16 (default) or fp32")
    parser.add_argument("--device", default="cuda", help="cuda (default) or cuda:1")
    parser.add_argument("--rtx", action="store_true", help="build by TensorRT-RTX")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `segzero build-engine` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    backend = "tensorrt-rtx" if arguments.rtx else "tensorrt"
    # Everything that can be refused at once is refused before anything is loaded.
    import torch

    from segzero_core.encoders import tensorrt_engine
    from segzero_core.loading import choose_device
    from segzero_core.segmenter.encoder_parity import mask_agreement
    from segzero_core.segmenter.encoder_selection import tensorrt_encoder

    tensorrt = tensorrt_engine.import_tensorrt(backend)
    on_gpu = torch.cuda.is_available()
    device = choose_device(arguments.device if on_gpu else "cpu")
    sam = export.load(arguments.model, arguments.segmenter)
    key, path = build(sam, arguments.precision, device, backend)
    print(
        f"built {path} for {key.gpu} ({key.compute_capability}) with TensorRT {key.tensorrt},"
        f" {path.stat().st_size / 1e6:.1f} MB"
    )
    try:
        tensorrt_engine.check_gpu(tensorrt, torch.device(device))
    except ConfigError as error:
        print(f"not run: {error}. Its masks are compared where it is first loaded")
        return 0
    there = export.load(arguments.model, arguments.segmenter, device)
    encoder = tensorrt_encoder(there, device, arguments.precision, backend)
    agreement = mask_agreement(there.encoder, encoder, there.segmenter)
    print(f"its masks agree with torch's: IoU {', '.join(f'{v:.4f}' for v in agreement)}")
    return 0


def build(
    sam: LoadedSegmenter, precision: str, device: str, backend: str = "tensorrt"
) -> tuple[EngineKey, Path]:
    """Build an encoder's engine, and its ONNX file where there is none; return key and file."""
    import torch

    from segzero_core.checkpoints.sam2_checkpoint import image_side
    from segzero_core.encoders import tensorrt_engine
    from segzero_core.encoders.onnx_export import onnx_path

    tensorrt, gpu = tensorrt_engine.import_tensorrt(backend), torch.device(device)
    side = image_side(sam.model)
    graph = onnx_path(sam.weights_hash, side, precision)
    if not graph.is_file():
        export.write(sam, precision)
    key = tensorrt_engine.engine_key(tensorrt, gpu, sam.weights_hash, precision, side)
    with ProgressBar(bar_format="{bar:30} {desc}", leave=False, disable=None) as bar:

        def show(phase: str, step: int, steps: int) -> None:
            bar.total = steps or None
            bar.set_description_str(phase[:40], refresh=False)
            bar.update(step - bar.n)

        path = tensorrt_engine.build_engine(tensorrt, graph, key, show, gpu.index or 0)
    return key, path
