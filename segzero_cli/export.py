"""`segzero export`: the image encoder of a SAM 2 as an ONNX file."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segzero_cli.arguments import Parser
from segzero_core.errors import ConfigError

if TYPE_CHECKING:
    from segzero_core.segmenter.sam2 import LoadedSegmenter


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero export",
        examples=["", "--model libero", "--model tabletop --precision fp16 --out encoder.onnx"],
        description="Write the image encoder of a SAM 2 to an ONNX file, where backend"
        " onnxruntime and segzero build-engine look for it, and compare it with torch.",
    )
    parser.add_model_arguments()
    parser.add_argument(
        "--config",
        metavar="NAME",
        help="a configuration of the sam2 package, such as configs/sam2.1/sam2.1_hiera_t.yaml,"
        " with random weights; needs --out",
    )
    parser.add_argument("--precision", default="fp32", help="fp32 (default) or fp16")
    parser.add_argument("--out", type=Path, metavar="FILE", help="in place of the cache")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `segzero export` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    if arguments.config and not arguments.out:
        raise ConfigError("--config: random weights are not for the cache; name a file by --out")
    if arguments.config:
        sam = random_segmenter(arguments.config)
    else:
        sam = load(arguments.model, arguments.segmenter)
    write(sam, arguments.precision, arguments.out)
    return 0


def load(model: str, segmenter: str | None, device: str = "cpu") -> LoadedSegmenter:
    """Load the segmenter of a model, or one by its own name."""
    from segzero_core.checkpoints.registry import find_model
    from segzero_core.segmenter.sam2 import load_segmenter

    return load_segmenter(segmenter or find_model(model).segmenter, device)


def random_segmenter(config: str) -> LoadedSegmenter:
    """Build a SAM 2 from a configuration of the sam2 package, with random weights."""
    import torch

    from segzero_core.checkpoints.sam2_architecture import build_sam2
    from segzero_core.checkpoints.sam2_checkpoint import package_config
    from segzero_core.encoders.torch_encoder import TorchImageEncoder
    from segzero_core.segmenter.sam2 import LoadedSegmenter, Sam2Segmenter

    torch.manual_seed(0)
    sam = build_sam2(package_config(config)).requires_grad_(requires_grad=False)
    # The constructor makes it zero everywhere, which would hide a mistake.
    torch.nn.init.normal_(sam.image_encoder.trunk.pos_embed, std=0.02)  # type: ignore[union-attr, arg-type]
    return LoadedSegmenter(TorchImageEncoder(sam), Sam2Segmenter(sam), config, "random")


def write(sam: LoadedSegmenter, precision: str, out: Path | None = None) -> Path:
    """Export an encoder, print how much it differs from torch, and return the path of the file."""
    from segzero_core.checkpoints.sam2_checkpoint import image_side
    from segzero_core.encoders.onnx_export import export_encoder, onnx_path

    path = out or onnx_path(sam.weights_hash, image_side(sam.model), precision)
    print(f"exporting the image encoder of {sam.name} in {precision}", file=sys.stderr, flush=True)
    start = time.perf_counter()
    errors = export_encoder(sam.model, sam.weights_hash, path, precision)
    for error in errors:
        print(
            f"{error.name}: differs from torch by at most {error.largest:.1e}"
            f" ({error.relative:.1e} of its range)"
        )
    size_mb = path.stat().st_size / 1e6
    print(f"{path}: {size_mb:.1f} MB in {time.perf_counter() - start:.0f} s")
    return path
