"""`segzero segment`: one query about one image, no ROS."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, TextIO

import numpy as np

from segzero_cli import console
from segzero_cli.arguments import RECORDING_SUFFIX, Parser, check_output_path
from segzero_core.events import AnswerDelta, Event, Finished, ThinkingDelta
from segzero_core.geometry import box_from_mask
from segzero_core.images.files import check_writable, load_image, save_image
from segzero_core.images.lettering import add_caption
from segzero_core.images.overlay import draw_overlay
from segzero_core.prompt import TEMPLATES, clean_query
from segzero_core.types import Result


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero segment",
        description="Find what a query means in an image. The reasoning is shown as it comes.",
        examples=[
            'table.png "the red mug"',
            'table.png "something to drive a nail with" --out overlay.png --mask mask.png',
            'table.png "the red mug" --model libero --json',
            'table.png "the red mug" --rerun answer.rrd',
        ],
        epilog="Exit code 0 also when nothing matched; 2 when there is no usable answer.",
    )
    parser.add_argument("image", metavar="IMAGE", help="image file, such as table.png")
    parser.add_argument("query", metavar="QUERY", help='what to find, such as "the red mug"')
    parser.add_model_arguments()
    parser.add_fallback_argument()
    parser.add_argument(
        "--template", choices=sorted(TEMPLATES), help="in place of the model's own"
    )
    parser.add_device_argument()
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="longest completion")
    parser.add_argument("--backend", default="auto", help="of the image encoder; see docs/cli.md")
    parser.add_argument("--precision", default="auto", help="of the reasoner's weights")
    parser.add_argument(
        "--grammar", action="store_true", help="constrain the decoding to well-formed answers"
    )
    parser.add_argument("--out", metavar="FILE", help="write image, answer and thinking, drawn")
    parser.add_argument("--mask", metavar="FILE", help="write the mask, 255 on what was found")
    parser.add_rerun_argument()
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON; the reasoning to stderr"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `segzero segment` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    # Everything that can be refused without a model is refused before loading one.
    image = load_image(arguments.image)
    query = clean_query(arguments.query)
    for path in filter(None, (arguments.out, arguments.mask)):
        check_writable(path)
    if arguments.rerun:
        from segzero_cli.recording import Recording

        check_output_path(arguments.rerun, RECORDING_SUFFIX)
    from segzero_core.pipeline import SegZero

    console.quieten_libraries()
    model = SegZero.load(
        arguments.model,
        fallbacks=arguments.fallback,
        segmenter=arguments.segmenter,
        device=arguments.device,
        template=arguments.template,
        max_new_tokens=arguments.max_new_tokens,
        backend=arguments.backend,
        precision=arguments.precision,
        grammar=arguments.grammar,
    )
    with ExitStack() as stack:
        events = model.stream(image, query)
        if arguments.rerun:
            recording = Recording("elapsed", with_space=False, path=arguments.rerun)
            stack.enter_context(recording)
            events = recording.follow(image, query, events)
        result = show(events, sys.stderr if arguments.json else sys.stdout)
    if arguments.out:
        drawn = draw_overlay(image, result.segmentation, result.reasoning.prompts)
        save_image(arguments.out, add_caption(drawn, query, result.reasoning.thinking))
    if arguments.mask:
        save_image(arguments.mask, result.segmentation.union().astype(np.uint8) * 255)
    if arguments.json:
        print(json.dumps(to_json(result)))
    else:
        print(summary(result))
    return 0


def show(events: Iterable[Event], stream: TextIO) -> Result:
    """Write the reasoning to a stream as it comes; return the result."""
    written: type | None = None
    try:
        for event in events:
            if isinstance(event, Finished):
                return event.result
            if isinstance(event, ThinkingDelta | AnswerDelta):
                if written not in (None, type(event)):
                    console.write("\n", stream)
                console.write(event.text, stream)
                written = type(event)
    finally:
        if written is not None:
            console.write("\n", stream)
    raise AssertionError("the stream always ends with Finished or an error")


def summary(result: Result) -> str:
    """Return the result in a few lines of text."""
    found = result.segmentation
    objects = zip(result.reasoning.prompts, found.masks, found.scores, strict=True)
    lines = [
        f"object {number}: box {[round(v) for v in prompt.box.xyxy]}, {int(mask.sum())} pixels,"
        f" score {score:.2f}"
        for number, (prompt, mask, score) in enumerate(objects, start=1)
    ]
    times, model = result.timings, result.model
    lines = lines or [f"nothing in the image matches {result.query!r}"]
    lines += [
        f"{times.total_ms:.0f} ms ({times.tokens} tokens), {model.name} {model.weights_hash}"
    ]
    return "\n".join(lines)


def to_json(result: Result) -> dict[str, Any]:
    """Return the result as values of JSON, without the masks."""
    objects, found = [], result.segmentation
    for prompt, mask, score in zip(
        result.reasoning.prompts, found.masks, found.scores, strict=True
    ):
        mask_box = box_from_mask(mask)
        objects.append(
            {
                "box_xyxy": list(prompt.box.xyxy),
                "points": [list(point.xy) for point in prompt.points],
                "mask_box_xyxy": None if mask_box is None else list(mask_box.xyxy),
                "area_px": int(mask.sum()),
                "score": round(float(score), 4),
            }
        )
    times = result.timings
    return {
        "query": result.query,
        "thinking": result.reasoning.thinking,
        "completion": result.reasoning.completion,
        "size_wh": list(result.size_wh),
        "objects": objects,
        "timings": {name: round(getattr(times, name), 1) for name in times.__slots__},
        "answered_by": result.answered_by,
        "model": {name: getattr(result.model, name) for name in result.model.__slots__},
    }
