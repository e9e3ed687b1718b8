"""`segzero check-model`: tests a model and its prompt on images whose boxes are known."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from segzero_cli import console
from segzero_cli.arguments import Parser
from segzero_cli.check_model.frames import GOOD_IOU, Sample, better_frame, mean_iou, off_scale
from segzero_core.checkpoints.description import ModelDescription
from segzero_core.completion.parser import parse_completion
from segzero_core.errors import AnswerParseError, ReasoningError
from segzero_core.images.files import load_image
from segzero_core.prompt import is_native
from segzero_core.types import Box, RgbImage

SCENES: Final = Path(__file__).parent / "scenes"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and what came of it."""

    query: str  # the question
    truth: Box | None  # the object's box [px of the image]; None: it is not there
    # The boxes as they were written; None where there is no usable answer.
    said: tuple[Box, ...] | None
    error: str  # why there is none
    chunks: int  # of the reply; tokens, where the model is local
    first_ms: float  # to the first of them
    total_ms: float  # to the end of the reply
    image_wh: tuple[int, int]  # width and height of the image


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero check-model",
        examples=["tabletop", "http://localhost:8000/v1#MODEL --json"],
        description="Ask a model about images that come with the package, whose boxes are known:"
        " box errors, tokens, refusals, times, and whether the boxes are in the coordinate frame"
        " that the model's description says. No segmenter is loaded.",
        epilog="Exit code 0: it is asked as it should be. 1: its boxes are in another frame, off"
        " by a factor, unreadable, or too far from the true ones.",
    )
    parser.add_argument("model", metavar="NAME", help="tabletop, folder, Hub id, or server")
    parser.add_device_argument()
    parser.add_argument("--template", help="in place of the model's own")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `segzero check-model` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    from segzero_core.loading import choose_device, load_reasoner

    console.quieten_libraries()
    reasoner = load_reasoner(
        arguments.model, choose_device(arguments.device), template=arguments.template
    ).reasoner
    description = reasoner.description
    asked = [_ask(reasoner, *each) for each in questions()]
    report = summarize(asked, description)
    if arguments.json:
        print(json.dumps(report))
    else:
        _print(asked, description, report)
    return 0 if report["ok"] else 1


def questions() -> list[tuple[RgbImage, str, Box | None]]:
    """Return the images of the package, with questions and true boxes."""
    scenes = json.loads((SCENES / "scenes.json").read_text(encoding="utf-8"))
    found: list[tuple[RgbImage, str, Box | None]] = []
    for scene in scenes:
        image = load_image(SCENES / scene["image"])
        for question in scene["questions"]:
            box = question["box_xyxy"]
            found.append((image, question["query"], None if box is None else Box(*box)))
    return found


def _ask(reasoner: Any, image: RgbImage, query: str, truth: Box | None) -> Asked:
    """Ask one question; the model's own failures are part of the report."""
    began = time.perf_counter()
    chunks: list[str] = []
    first_ms, said, error = 0.0, None, ""
    try:
        for chunk in reasoner.stream(image, query):
            first_ms = first_ms or (time.perf_counter() - began) * 1e3
            chunks.append(chunk)
        native = is_native(reasoner.description.prompt_template)
        prompts = parse_completion("".join(chunks), native=native).prompts
        said = tuple(prompt.box for prompt in prompts)
    except AnswerParseError as failure:
        error = str(failure)
    except ReasoningError as failure:
        if not chunks:
            raise  # the server, not the answer
        error = str(failure)
    total_ms = (time.perf_counter() - began) * 1e3
    size = (int(image.shape[1]), int(image.shape[0]))
    return Asked(query, truth, said, error, len(chunks), first_ms, total_ms, size)


def summarize(asked: Sequence[Asked], description: ModelDescription) -> dict[str, Any]:
    """Return the metrics, and a text about what is wrong."""
    there = [each for each in asked if each.truth is not None]
    absent = [each for each in asked if each.truth is None]
    samples = samples_of(asked)
    iou = mean_iou(samples, description.frame_wh) * len(samples) / len(there)
    unusable = [each for each in asked if each.said is None]
    frame, factors = better_frame(samples, description), off_scale(samples, description)
    problem = ""
    if len(unusable) > len(asked) / 2:
        problem = (
            f"{len(unusable)} of {len(asked)} replies are no answer in the form of the template"
            f" {description.prompt_template}; the first: {unusable[0].error}"
        )
    elif frame:
        problem = (
            f"the boxes are in {frame}, and the description says {description.coordinates}"
            f" (frame {'x'.join(map(str, description.frame_wh))}); correct its segzero.json"
        )
    elif factors is not None and iou > 0:
        problem = (
            f"all boxes are off by a factor of {factors[0]:.3f} in x and {factors[1]:.3f} in y:"
            " something resizes the image"
        )
    elif iou < GOOD_IOU:
        problem = "it is asked in its frame as far as can be seen, and finds too little"
    return {
        "ok": not problem,
        "problem": problem,
        "mean_iou": round(iou, 4),
        "found": sum(sample.best(description.frame_wh)[1] >= GOOD_IOU for sample in samples),
        "asked": len(there),
        "refused": sum(each.said == () for each in absent),
        "absent": len(absent),
        "unusable": len(unusable),
        "chunks_median": float(np.median([each.chunks for each in asked])),
        "first_ms_median": round(float(np.median([each.first_ms for each in asked])), 1),
        "total_ms_median": round(float(np.median([each.total_ms for each in asked])), 1),
        "frame_wh": list(description.frame_wh),
        "template": description.prompt_template,
    }


def samples_of(asked: Sequence[Asked]) -> list[Sample]:
    """Return the answers that hold a box about an object that is there."""
    return [
        Sample(each.said, each.truth, each.image_wh)
        for each in asked
        if each.said and each.truth is not None
    ]


def _print(asked: Sequence[Asked], description: ModelDescription, report: dict[str, Any]) -> None:
    for each in asked:
        print(f"{each.query:<18} {_outcome(each, description):<46} {each.total_ms:6.0f} ms")
    print(
        f"{report['found']} of {report['asked']} found, mean IoU {report['mean_iou']:.2f};"
        f" {report['refused']} of {report['absent']} refused that are not there;"
        f" {report['unusable']} unusable"
    )
    print(
        f"median: {report['chunks_median']:.0f} tokens, first after"
        f" {report['first_ms_median']:.0f} ms, whole reply {report['total_ms_median']:.0f} ms"
    )
    frame = "x".join(map(str, report["frame_wh"]))
    ending = f"asked as it should be: template {report['template']}, frame {frame}"
    print(console.printable(f"NOT OK: {report['problem']}" if report["problem"] else ending))


def _outcome(each: Asked, description: ModelDescription) -> str:
    if each.said is None:
        return "no usable answer"
    if each.truth is None:
        return "refused, it is not there" if not each.said else "found, and it is not there"
    if not each.said:
        return "refused, and it is there"
    box, iou = Sample(each.said, each.truth, each.image_wh).best(description.frame_wh)
    error_px = max(abs(a - b) for a, b in zip(box.xyxy, each.truth.xyxy, strict=True))
    return f"IoU {iou:.2f}, largest error {error_px:.0f} px, {len(each.said)} boxes"
