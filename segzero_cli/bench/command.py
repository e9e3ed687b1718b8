"""`segzero bench`: compares the plain flow with this library on the same images."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from segzero_cli import console
from segzero_cli.arguments import Parser
from segzero_cli.bench.questions import load_questions
from segzero_core.errors import ConfigError, ModelLoadError
from segzero_core.terminal.progress_bar import ProgressBar
from segzero_core.types import RgbImage

_WARM_UP: Final = 2


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero bench",
        examples=["--check", "--model tabletop --runs 12 --out bench.json"],
        description="Measure from a query to the first mask: transformers' generate, then"
        " SAM 2's set_image and predict, against this library. Both are warm, have the same"
        " weights, threads, images and token limit, and take turns.",
        epilog="Keep the machine quiet meanwhile. Targets of --check: the first query 2 times"
        " faster, a second one about the same image 3 times, completions identical, masks alike.",
    )
    parser.add_argument(
        "--model", default="tabletop", help="tabletop (default), folder, Hub id or server"
    )
    parser.add_device_argument()
    parser.add_argument("--backend", default="auto", help="of the image encoder")
    parser.add_argument("--decode", default="auto", help="auto, eager, drafts, graph or compiled")
    parser.add_argument("--image", type=Path, nargs="*", metavar="FILE", help="two images or more")
    parser.add_argument("--query", nargs="*", metavar="TEXT", help="queries about them")
    parser.add_argument("--runs", type=int, default=24, help="queries of each kind (24)")
    parser.add_argument("--threads", type=int, default=0, help="of torch; default: as it is")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them there")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a target is missed")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `segzero bench` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    if arguments.runs < 1 or arguments.threads < 0:
        raise ConfigError("--runs and --threads: expected a positive number")
    for path in filter(None, (arguments.out, arguments.plot)):
        if not path.parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {path.parent}")
    questions = load_questions(arguments.image, arguments.query, arguments.runs + _WARM_UP)
    from segzero_cli.bench import report

    console.quieten_libraries()
    found = measure(arguments, questions)
    print(report.table(found))
    if found["runs"] + _WARM_UP > found["pictures"]:
        print(
            f"only {found['pictures']} images: queries were repeated, which helps speculative"
            " decoding (--decode drafts)"
        )
    print(report.describe(found))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        report.plot(found, arguments.plot)
    missed = report.misses(found)
    for miss in missed:
        print(f"missed: {miss}")
    print(
        f"first mask {found['first_ratio']:.2f} times faster than the plain flow, second query"
        f" {found['second_ratio']:.2f} times"
    )
    return int(arguments.check and bool(missed))


def measure(
    arguments: argparse.Namespace, questions: list[tuple[RgbImage, str, str]]
) -> dict[str, Any]:
    """Load both flows, let them take turns, and return the figures."""
    import torch

    from segzero_cli.bench import report
    from segzero_cli.bench.flows import OurFlow, PlainFlow, Run
    from segzero_cli.bench.roofline import measure_limits
    from segzero_core.cpu_threads import in_own_thread
    from segzero_core.loading import choose_device
    from segzero_core.pipeline import SegZero
    from segzero_core.reasoner.server_address import ServerAddress, is_server_address

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    # A model on a server is compared with the same one in the plain flow here.
    on_server = is_server_address(arguments.model)
    local = ServerAddress.parse(arguments.model).described_as if on_server else arguments.model
    if device == "cpu" and arguments.backend in ("auto", "onnxruntime"):
        in_own_thread(partial(_export_if_needed, local))
    dtype = "float32" if device == "cpu" else "bfloat16"
    plain = in_own_thread(partial(PlainFlow, local, device, dtype))
    model = SegZero.load(
        arguments.model, device=device, backend=arguments.backend, decode=arguments.decode
    )
    flows: dict[str, Any] = {"plain": plain, "ours": OurFlow(model, device)}
    runs: dict[str, list[Run]] = {
        f"{flow} {turn}": [] for turn in ("first", "second") for flow in flows
    }
    for index in ProgressBar(range(-_WARM_UP, arguments.runs), unit="image", leave=False):
        image, *texts = questions[(index + _WARM_UP) % len(questions)]
        for turn, text in zip(("first", "second"), texts, strict=True):
            # In turns, and neither always after the other.
            order = list(flows) if index % 2 else list(flows)[::-1]
            for name in order:
                # In a new thread, because torch's thread pools of the other flow slow this one.
                run = in_own_thread(partial(flows[name].ask, image, text))
                if index >= 0:
                    runs[f"{name} {turn}"].append(run)
    return report.summarize(runs) | {
        "limits": measure_limits(plain.model, plain.predictor.model, device),
        "machine": _machine(device),
        "backend": model.identity.encoder_backend,
        "model": arguments.model,
        "pictures": len(questions),
    }


def _export_if_needed(model: str) -> None:
    """Export the encoder to ONNX, where the packages for it are installed."""
    from segzero_cli import export
    from segzero_core.checkpoints.sam2_checkpoint import image_side
    from segzero_core.encoders.onnx_export import onnx_path

    sam = export.load(model, None)
    if onnx_path(sam.weights_hash, image_side(sam.model), "fp32").is_file():
        return
    try:
        export.write(sam, "fp32")
    except (ConfigError, ModelLoadError) as error:
        print(f"the encoder stays with torch: {error}", file=sys.stderr)


def _machine(device: str) -> dict[str, Any]:
    import torch

    if device == "cpu":
        name = platform.machine()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        name, peak = torch.cuda.get_device_name(device), torch.cuda.max_memory_allocated()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "peak_memory_mb": round(peak / 1e6, 1),
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }
