"""`segzero bench`: the plain flow and ours, one question after the other, on the same pictures."""

from __future__ import annotations

import json
import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from segzero_cli import console
from segzero_cli.main import Parser
from segzero_core.errors import ConfigError, ModelLoadError
from segzero_core.images.files import load_image
from segzero_core.types import RgbImage

_DRAWN_QUESTIONS: Final = ("the red mug", "every mug", "something to drive a nail with")
_CLIP: Final = Path("demo/clip.mcap")
_WARM_UP: Final = 2
# Of the scenes that no training has seen.
_FIRST_SEED: Final = 1_700_000


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero bench",
        description="Measure from a question to the first mask: transformers' generate, then"
        " SAM 2's set_image and predict, against this library. Both are warm, have the same"
        " weights, threads, pictures and token limit, and take turns.",
        epilog="Keep the machine quiet meanwhile. Targets of --check: the first question 2 times"
        " faster, a second one about the same picture 3 times, replies identical, masks alike.",
    )
    parser.add_argument("--model", default="tabletop", help="tabletop (default), folder, Hub id")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:1")
    parser.add_argument("--backend", default="auto", help="of the image encoder")
    parser.add_argument("--decode", default="auto", help="auto, eager, drafts, graph or compiled")
    parser.add_argument(
        "--image", type=Path, nargs="*", metavar="FILE", help="two pictures or more"
    )
    parser.add_argument("--query", nargs="*", metavar="TEXT", help="questions about them")
    parser.add_argument("--runs", type=int, default=24, help="questions of each kind (24)")
    parser.add_argument("--threads", type=int, default=0, help="of torch; default: as it is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them there")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a target is missed")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `segzero bench` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    if arguments.runs < 1 or arguments.threads < 0:
        raise ConfigError("--runs and --threads: expected a positive number")
    for path in filter(None, (arguments.json, arguments.plot)):
        if not path.parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {path.parent}")
    questions = load_questions(arguments.image, arguments.query, arguments.runs + _WARM_UP)
    from segzero_cli.bench import report

    console.quieten_libraries()
    found = measure(arguments, questions)
    print(report.table(found))
    for line in describe(found):
        print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        report.plot(found, arguments.plot)
    missed = report.misses(found)
    for words in missed:
        print(f"missed: {words}")
    print(
        f"first mask {found['first_ratio']:.2f} times faster than the plain flow, second question"
        f" {found['second_ratio']:.2f} times"
    )
    return int(arguments.check and bool(missed))


def load_questions(
    images: Sequence[Path] | None, queries: Sequence[str] | None, count: int
) -> list[tuple[RgbImage, str, str]]:
    """Return pictures with a first and a second question about each.

    Without pictures: `count` rendered scenes with their own questions, so that none comes twice;
    where they cannot be rendered those of the demo's clip, else drawn ones, again and again.

    Raises:
        ConfigError: A memory of the last picture needs at least two to be told apart.
    """
    if images is not None and len(images) < 2:
        raise ConfigError("--image: name two pictures or more, so that a first question is one")
    if images:
        texts = list(queries or _DRAWN_QUESTIONS)
        pictures = [load_image(path) for path in images]
    elif not queries and (rendered := _rendered(count)):
        return rendered
    else:
        pictures, texts = _of_the_clip()
        texts = list(queries or texts)
    return [
        (picture, texts[index % len(texts)], texts[(index + 1) % len(texts)])
        for index, picture in enumerate(pictures)
    ]


def _rendered(count: int) -> list[tuple[RgbImage, str, str]]:
    """Render test scenes; none where the renderer is not installed."""
    try:
        from worlds.tabletop.camera import Camera
        from worlds.tabletop.render import render_scene

        with Camera() as camera:
            scenes = (render_scene(camera, _FIRST_SEED + index) for index in range(count))
            return [
                (picture.color.copy(), scene.queries[0].text, scene.queries[-1].text)
                for scene, picture in scenes
            ]
    except Exception as error:  # a missing or broken renderer raises anything
        print(f"no rendered scenes: {error}", file=sys.stderr)
        return []


def _of_the_clip() -> tuple[list[RgbImage], list[str]]:
    import numpy as np

    from segzero_core.segmenter.encoder_parity import drawn_scene

    clip = Path(__file__).resolve().parents[2] / _CLIP
    try:
        from segzero_cli.demo.clip import read_clip

        shots = read_clip(clip) if clip.is_file() else []
    except ImportError:  # rosbags is not installed
        shots = []
    if not shots:
        return [drawn_scene(seed)[0] for seed in range(3)], list(_DRAWN_QUESTIONS)
    pictures = []
    for shot in shots:
        message = shot.camera["color"]
        flat = np.frombuffer(bytes(message.data), np.uint8)
        pictures.append(flat.reshape(message.height, message.width, -1)[..., :3].copy())
    return pictures, [shot.question.text for shot in shots]


def measure(arguments: Any, questions: list[tuple[RgbImage, str, str]]) -> dict[str, Any]:
    """Load both flows, let them take turns, and return the figures."""
    import torch

    from segzero_cli.bench import report
    from segzero_cli.bench.flows import Flow, OurFlow, PlainFlow, Run
    from segzero_cli.bench.roofline import measure_limits
    from segzero_core.cpu_threads import in_own_thread
    from segzero_core.loading import choose_device
    from segzero_core.pipeline import SegZero

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    if device == "cpu" and arguments.backend in ("auto", "onnxruntime"):
        in_own_thread(partial(_export_if_needed, arguments.model))
    dtype = "float32" if device == "cpu" else "bfloat16"
    plain = in_own_thread(partial(PlainFlow, arguments.model, device, dtype))
    model = SegZero.load(
        arguments.model, device=device, backend=arguments.backend, decode=arguments.decode
    )
    flows: dict[str, Flow] = {"plain": plain, "ours": OurFlow(model, device)}
    runs: dict[str, list[Run]] = {
        f"{flow} {turn}": [] for turn in ("first", "second") for flow in flows
    }
    for index in range(-_WARM_UP, arguments.runs):
        image, *texts = questions[(index + _WARM_UP) % len(questions)]
        print(f"\r{max(index, 0)}/{arguments.runs}", end="", file=sys.stderr, flush=True)
        for turn, text in zip(("first", "second"), texts, strict=True):
            # In turns, and neither always after the other.
            order = list(flows) if index % 2 else list(flows)[::-1]
            for name in order:
                # Neither pays for helpers that the other one has left in this thread.
                run = in_own_thread(partial(flows[name].ask, image, text))
                if index >= 0:
                    runs[f"{name} {turn}"].append(run)
    print("\r", end="", file=sys.stderr)
    found = report.figures(runs)
    found["limits"] = asdict(measure_limits(plain._model, plain._predictor.model, device))
    found["machine"] = _machine(device)
    found["backend"] = model.identity.encoder_backend
    found["model"] = arguments.model
    found["pictures"] = len(questions)
    return found


def describe(found: dict[str, Any]) -> list[str]:
    """Say in words what the table does not."""
    limits, machine = found["limits"], found["machine"]
    ours = found["flows"]["ours first"]
    often = found["runs"] + _WARM_UP > found["pictures"]
    repeated = [
        f"only {found['pictures']} pictures: questions came again, which helps the guessing of"
        " tokens (decode drafts)"
    ]
    return [
        *(repeated if often else []),
        "median (95th percentile) in ms; encoder and decoder are their own working times",
        f"replies: {found['identical_completions']} of {found['compared']} identical, masks agree"
        f" by {found['least_mask_iou']:.4f} or more; encoder: {found['backend']}",
        f"memory: {machine['peak_memory_mb']:.0f} MB at most, both flows together",
        f"limits: {limits['bandwidth_gb_s']:.1f} GB/s over {limits['weights_per_token_mb']:.0f} MB"
        f" a token allow {limits['tokens_per_s']:.0f} tokens/s, reached"
        f" {ours['tokens_per_s'] / limits['tokens_per_s']:.0%};"
        f" {limits['matrix_gflop_s']:.0f} GFLOP/s over {limits['encoder_gflop']:.0f} GFLOP allow"
        f" the encoder {limits['encoder_ms']:.0f} ms",
        f"on {machine['device']}, {machine['threads']} threads, Python {machine['python']}, "
        + ", ".join(f"{name} {number}" for name, number in machine["versions"].items()),
    ]


def _export_if_needed(model: str) -> None:
    """Have the encoder in ONNX, where the packages for it are there."""
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

    on_gpu = device != "cpu"
    peak = torch.cuda.max_memory_allocated() if on_gpu else _peak_bytes()
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "peak_memory_mb": round(peak / 1e6, 1),
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
