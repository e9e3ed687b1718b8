"""`segzero evaluate`: ask a model everything that stands in rendered folders, and score it.

    segzero evaluate --data DIR --model tabletop --json
    segzero evaluate --data DIR --prompts truth          the segmenter alone, given true boxes and
    points segzero evaluate --data DIR --baseline random        a true mask, picked blindly

The rules of scoring stand in `training.scoring`. A failure counts as IoU 0 and is never dropped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from segzero_core.errors import ReasoningError, SegZeroError
from tabletop.scene import Query
from training.evaluation_data import (
    QUERY_KINDS,
    EvaluationScene,
    Question,
    open_scenes,
    select_questions,
)
from training.scoring import Outcome, Summary, by_kind, score_answer, score_failure, summarise

if TYPE_CHECKING:
    from segzero_core.pipeline import SegZero

BAD_INPUT_EXIT_CODE = 2
BASELINE_SEED = 0

Answerer = Callable[[EvaluationScene, Query], Outcome]


def evaluate(questions: Sequence[Question], answer: Answerer) -> list[Outcome]:
    """Put every question to `answer`, with a progress bar on standard error.

    Args:
        questions: What to ask, questions about one scene one after the other.
        answer: Answers one question and scores itself.

    Raises:
        InputError: A scene's pictures cannot be read.
    """
    outcomes: list[Outcome] = []
    scene: EvaluationScene | None = None
    for folder, query in tqdm(questions, unit="query", desc="evaluate", file=sys.stderr):
        if scene is None or scene.folder != folder:
            scene = EvaluationScene.read(folder)
        outcomes.append(answer(scene, query))
    return outcomes


def ask_pipeline(pipeline: SegZero) -> Answerer:
    """Answer with a model; whatever it fails at counts as nothing found."""

    def answer(scene: EvaluationScene, question: Query) -> Outcome:
        truth = scene.union(question.ids)
        started = time.perf_counter()
        try:
            result = pipeline.segment(scene.image, question.text)
        except SegZeroError as error:
            ms = (time.perf_counter() - started) * 1e3
            unusable = isinstance(error, ReasoningError)
            if not unusable:
                tqdm.write(f"{scene.folder}: {question.text!r}: {error}", file=sys.stderr)
            return score_failure(question.kind, truth, ms, unusable=unusable)
        ms = (time.perf_counter() - started) * 1e3
        boxes = [prompt.box for prompt in result.reasoning.prompts]
        return score_answer(
            question.kind, result.segmentation.masks, truth, boxes, scene.boxes(question.ids), ms
        )

    return answer


def ask_baseline(name: str) -> Answerer:
    """Answer blindly with the mask of one true object: a `random` one, or the `largest`."""
    rng = np.random.default_rng(BASELINE_SEED)

    def answer(scene: EvaluationScene, question: Query) -> Outcome:
        started = time.perf_counter()
        ids = scene.visible_ids
        if name == "random":
            chosen = int(rng.choice(ids))
        else:
            chosen = max(ids, key=lambda index: int(np.count_nonzero(scene.mask(index))))
        ms = (time.perf_counter() - started) * 1e3
        return score_answer(
            question.kind,
            scene.mask(chosen)[None],
            scene.union(question.ids),
            scene.boxes([chosen]),
            scene.boxes(question.ids),
            ms,
        )

    return answer


def report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Put everything into the one object that `--json` prints."""
    kinds = {kind: asdict(summarise(group)) for kind, group in by_kind(outcomes).items()}
    return {**asdict(summarise(outcomes)), "kinds": kinds}


def as_table(outcomes: Sequence[Outcome]) -> str:
    """Write the figures as a table with one row a kind, and all of them below."""
    rows = [(kind, summarise(group)) for kind, group in by_kind(outcomes).items()]
    rows.append(("all", summarise(outcomes)))
    lines = ["kind        gIoU   cIoU  box@50 unusable refused     N      ms"]
    for kind, figures in rows:
        lines.append(f"{kind:<10}{_columns(figures)}")
    return "\n".join(lines)


def _columns(figures: Summary) -> str:
    shares = (
        (figures.giou, 6),
        (figures.ciou, 7),
        (figures.box_acc_50, 8),
        (figures.unusable, 9),
        (figures.refusals_correct, 8),
    )
    text = "".join("-".rjust(w) if v is None else f"{v:.3f}".rjust(w) for v, w in shares)
    return f"{text}{figures.n:>6}{figures.ms or 0.0:>8.0f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segzero evaluate",
        description="Score a model's answers to the questions of rendered scenes: gIoU, cIoU, box"
        " accuracy, unusable replies, correct refusals and time, for each kind of question.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of rendered scenes")
    parser.add_argument("--model", default="tabletop", help="name, folder or Hub id")
    parser.add_argument("--segmenter", help="folder or Hub id in place of the model's own")
    parser.add_argument("--template", help="prompt template in place of the model's own")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    parser.add_argument("--kind", choices=QUERY_KINDS, help="only this kind of question")
    parser.add_argument("--limit", type=_positive, help="at most so many questions (or scenes)")
    parser.add_argument(
        "--split", choices=("train", "test", "all"), default="all", help="phrasings to ask with"
    )
    parser.add_argument(
        "--processes", type=_positive, default=1, help="share the scenes among so many processes"
    )
    blind = parser.add_mutually_exclusive_group()
    blind.add_argument(
        "--prompts", choices=("truth",), help="measure the segmenter alone, with true prompts"
    )
    blind.add_argument(
        "--baseline", choices=("random", "largest"), help="pick a true mask without looking"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def _run(args: argparse.Namespace) -> str:
    """Do what the arguments say and return what is printed."""
    folders = open_scenes(args.data)
    if args.prompts:
        from training.evaluate_segmenter import as_text, load, measure

        figures = measure(load(args.segmenter, args.model, args.device), folders[: args.limit])
        return json.dumps(figures) if args.json else as_text(figures)
    # Before any model is loaded, so that a damaged scene is found in the first second.
    questions = select_questions(folders, args.kind, args.split, args.limit)
    outcomes = _in_processes(args, questions) if args.processes > 1 else _ask(args, questions)
    return json.dumps(report(outcomes)) if args.json else as_table(outcomes)


def _ask(args: argparse.Namespace, questions: Sequence[Question]) -> list[Outcome]:
    if args.baseline:
        return evaluate(questions, ask_baseline(args.baseline))
    from segzero_core.pipeline import SegZero

    pipeline = SegZero.load(
        args.model, segmenter=args.segmenter, device=args.device, template=args.template
    )
    return evaluate(questions, ask_pipeline(pipeline))


def _in_processes(args: argparse.Namespace, questions: Sequence[Question]) -> list[Outcome]:
    """Ask in several processes at once; each loads the model for itself and uses one core."""
    count = min(args.processes, len(questions))
    shares = [(args, questions[start::count]) for start in range(count)]
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        return [outcome for part in pool.starmap(_ask_alone, shares) for outcome in part]


def _ask_alone(args: argparse.Namespace, questions: Sequence[Question]) -> list[Outcome]:
    import torch

    torch.set_num_threads(1)
    return _ask(args, questions)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, or 2 with one line on standard error when the input cannot be used.
    """
    args = _parser().parse_args(argv)
    try:
        print(_run(args))
    except SegZeroError as error:
        print(f"segzero evaluate: {error}", file=sys.stderr)
        return BAD_INPUT_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
