"""How often the object that a question means is lifted by the simulated gripper.

    python -m benchmarks.grasp --trials 100 --seed 1600000 --check
    python -m benchmarks.grasp --truth --trials 100 --check
    python -m benchmarks.grasp --trials 12 --json grasp.json

Without `--truth`: cluttered tables of `worlds.tabletop.render`, one question each, the six kinds
in turn, answered by a model from the image; its masks and the depth make the grasps, the client
of `examples/grasp_client.py` decides and moves. Tables on which the image's border cuts an object
that is meant are left out, for such an object gets no pose (`--cut` keeps them: one object in
eight is cut). Target: 50 % of all questions.

With `--truth`: one object of any kind on a table, and its true mask. Target: 85 %.

A trial succeeds if an object that was meant is 10 cm up for 1 s, touching nothing but the gripper,
and no other object rose. For `many` (all the tools) any one of those that were meant will do. For
`none` it succeeds if nothing moved. A miss has one cause:

    no answer      an error, nothing found, or the client asked back though one object was meant
    wrong object   the mask that it grasped is of another object; for `none`, of anything
    bad mask       the right object, but the mask misses it (IoU under 0.5) or has no usable depth
    bad grasp      no grasp, blocked, closed on nothing, or something else rose too
    slipped        between the fingers, and lost on the way up
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.depth import camera_of
from benchmarks.figures import conclude, new_parser
from examples.grasp_client import Answer, Found, GraspPose, Place, Step, decide, pick
from segzero_core import SegZero, SegZeroError
from segzero_core.ambiguity import is_ambiguous
from segzero_core.config import GraspConfig
from segzero_core.depth import (
    MAX_BORDER_PX,
    CameraModel,
    border_pixels,
    depth_in_meters,
    measure_object,
)
from segzero_core.geometry import MATCH_IOU, mask_iou
from segzero_core.terminal.progress_bar import ProgressBar
from worlds.common.scene import Query
from worlds.tabletop.camera import Camera, RenderedImage
from worlds.tabletop.cell import Cell, Lift
from worlds.tabletop.hand import GRASP_SETTINGS
from worlds.tabletop.render import Stage, stage_scene, stage_single
from worlds.tabletop.vocabulary import QUERY_KINDS

TRIALS, SEED = 100, 1_600_000
TARGET_QUESTIONS, TARGET_TRUTH = 0.50, 0.85
CAUSES: Final = ("no answer", "wrong object", "bad mask", "bad grasp", "slipped")


@dataclass(frozen=True, eq=False)
class Masks:
    """What was segmented: bool [N, H, W], scores [N], and what a client hears besides."""

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    ambiguous: bool = False
    error: str = ""


Segmenting = Callable[[RenderedImage, Query], Masks]


def true_masks(image: RenderedImage, query: Query) -> Masks:
    """Take the masks that the renderer knows."""
    masks = np.array([image.instances == each for each in query.ids], np.bool_)
    return Masks(masks, np.ones(len(masks), np.float32))


def answers_of(pipeline: SegZero) -> Segmenting:
    """Let a model answer, as the node does."""

    def segment(image: RenderedImage, query: Query) -> Masks:
        try:
            result = pipeline.segment(image.color, query.text)
        except SegZeroError as error:
            height, width = image.instances.shape
            return Masks(np.zeros((0, height, width), np.bool_), np.zeros(0), error=str(error))
        ambiguous = is_ambiguous(result)
        found = result.segmentation
        return Masks(found.masks, found.scores, ambiguous)

    return segment


def answer_of(found: Masks, image: RenderedImage, camera: CameraModel) -> Answer:
    """Find grasps for masks, as the node does; an object without depth has none."""
    depth_m, config = depth_in_meters(image.depth_mm, "16UC1"), GraspConfig(**GRASP_SETTINGS)
    objects = []
    for mask, score in zip(found.masks, found.scores, strict=True):
        try:
            grasps = measure_object(mask, depth_m, camera, grasping=config).grasps
        except SegZeroError:
            grasps = ()
        poses = (GraspPose(g.position_m, g.rotation, g.width_m, g.score) for g in grasps)
        objects.append(Found(float(score), tuple(poses)))
    return Answer(found.error, found.ambiguous, tuple(objects))


def object_under(mask: NDArray[np.bool_], instances: NDArray[np.uint16]) -> tuple[int, float]:
    """Return the id of the object that a mask fits best (0: none), and its IoU."""
    best, overlap = 0, 0.0
    for each in np.unique(instances[mask]):
        if each:
            truth = instances == each
            iou = float(mask_iou(truth, mask))
            if iou > overlap:
                best, overlap = int(each), iou
    return best, overlap


def try_out(stage: Stage, query: Query, camera: Camera, segment: Segmenting) -> dict[str, Any]:
    """Do one trial; returns its kind, question, step, cause (empty: success) and masks' IoU."""
    cell = Cell(stage.world)
    image = cell.shoot(camera, stage.pose)
    found = segment(image, query)
    answer = answer_of(found, image, camera_of(stage.scene))
    decision = decide(answer)
    step, lift, object_id, overlap = decision.step, Lift((), ()), 0, 0.0
    shown = decision.index
    if step is Step.NO_GRASP:
        shown = int(np.argmax(found.scores))
    if shown >= 0:
        object_id, overlap = object_under(found.masks[shown], image.instances)
    if step is Step.GRASP:
        place = Place(stage.pose.rotation, stage.pose.position_m)
        step = pick(cell, [place.of(grasp) for grasp in decision.grasps])
        lift = cell.hold()
    return {
        "seed": stage.scene.seed,
        "kind": query.kind,
        "query": query.text,
        "things": [stage.world.objects[each - 1].kind for each in query.ids],
        "step": step.name,
        "iou": round(overlap, 3),
        "cause": cause_of(query, step, lift, object_id, overlap),
    }


def cause_of(query: Query, step: Step, lift: Lift, object_id: int, overlap: float) -> str:
    """Name why a trial failed; empty if it did not.

    Args:
        query: What was asked.
        step: How the client ended.
        lift: What is up.
        object_id: Id of the object whose mask was grasped.
        overlap: IoU of that mask with the object.
    """
    still = step in (Step.FAILED, Step.NOTHING, Step.ASK)
    if not query.ids:
        # Unable to answer is no refusal, even if nothing moves.
        return "no answer" if step is Step.FAILED else "" if still else "wrong object"
    meant = [each for each in lift.lifted if each + 1 in query.ids]
    if len(meant) == 1 and len(lift.lifted) == 1 and not lift.disturbed:
        return ""
    if still:
        return "no answer"
    if object_id not in query.ids:
        return "wrong object"
    if overlap < MATCH_IOU:
        return "bad mask"
    return "slipped" if step in (Step.HELD, Step.SLIPPED) and not lift.lifted else "bad grasp"


def questions(
    camera: Camera, seed: int, count: int, *, cut: bool = False
) -> Iterator[tuple[Stage, Query]]:
    """Yield tables with a question each, the kinds in turn; tables without one are left out.

    Args:
        camera: Takes the images.
        seed: Of the first table.
        count: How many.
        cut: Also those that mean an object which the image's border cuts.
    """
    for number in range(count):
        kind = QUERY_KINDS[number % len(QUERY_KINDS)]
        fitting: list[Query] = []
        while not fitting:
            stage = stage_scene(camera, seed)
            seed += 1
            fitting = [
                query
                for query in stage.scene.queries
                if query.kind == kind and (cut or all(_is_whole(stage, i) for i in query.ids))
            ]
        yield stage, fitting[0]


def _is_whole(stage: Stage, object_id: int) -> bool:
    return border_pixels(stage.image.instances == object_id) <= MAX_BORDER_PX


def singles(camera: Camera, seed: int, count: int) -> Iterator[tuple[Stage, Query]]:
    """Yield tables with one object, and what stands in for a question."""
    for number in range(count):
        stage = stage_single(camera, seed + number)
        kind = stage.world.objects[0].kind
        yield stage, Query(kind, f"the {kind}", (1,))


def summary(rows: list[dict[str, Any]], target: float) -> dict[str, Any]:
    """Count successes and causes, over all and by kind."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    if not set(kinds) <= set(QUERY_KINDS):
        kinds = sorted(kinds)
    table = {"all": _counts(rows)}
    table |= {kind: _counts([row for row in rows if row["kind"] == kind]) for kind in kinds}
    return {
        "trials": len(rows),
        "lifted": table["all"]["share"],
        "target": target,
        "kinds": table,
        "rows": rows,
    }


def _counts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    causes = Counter(row["cause"] for row in rows if row["cause"])
    good = len(rows) - sum(causes.values())
    return {
        "n": len(rows),
        "good": good,
        "share": round(good / len(rows), 4),
        "causes": {cause: causes[cause] for cause in CAUSES},
    }


def report(figures: dict[str, Any]) -> None:
    print(f"{'kind':12} {'n':>4} {'lifted':>7} " + " ".join(f"{each:>12}" for each in CAUSES))
    for kind, row in [*list(figures["kinds"].items())[1:], ("all", figures["kinds"]["all"])]:
        causes = " ".join(f"{row['causes'][each]:12}" for each in CAUSES)
        print(f"{kind:12} {row['n']:4} {100 * row['share']:5.0f} % {causes}")
    asked = sum(row["step"] == Step.ASK.name for row in figures["rows"])
    print(
        f"{100 * figures['lifted']:.1f} % of {figures['trials']} trials succeeded (target "
        f"{100 * figures['target']:.0f} %); the client asked back in {asked}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--seed", type=int, default=SEED, help="of the first table")
    parser.add_argument("--truth", action="store_true", help="single objects with true masks")
    parser.add_argument("--cut", action="store_true", help="also objects that the border cuts")
    parser.add_argument("--model", default="tabletop", help="that answers the questions")
    args = parser.parse_args(argv)
    if args.trials < 1 or args.seed < 0:
        parser.error("--trials must be at least 1 and --seed at least 0")
    segment = true_masks if args.truth else answers_of(SegZero.load(args.model))
    target = TARGET_TRUTH if args.truth else TARGET_QUESTIONS
    rows = []
    with Camera() as camera:
        if args.truth:
            tables = singles(camera, args.seed, args.trials)
        else:
            tables = questions(camera, args.seed, args.trials, cut=args.cut)
        for stage, query in ProgressBar(tables, desc="grasping", unit="trial", total=args.trials):
            rows.append(try_out(stage, query, camera, segment))
    figures = summary(rows, target)
    report(figures)
    return conclude(args, figures, missed=figures["lifted"] < target)


if __name__ == "__main__":
    sys.exit(main())
