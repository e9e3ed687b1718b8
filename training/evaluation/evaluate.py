"""`segzero evaluate`: ask a model everything that stands in some data, and score it.

    segzero evaluate --data DIR --model tabletop --json
    segzero evaluate --data DIR --prompts truth         the segmenter alone, given true prompts
    segzero evaluate --data DIR --baseline random       a true mask, picked blindly
    segzero evaluate --benchmark refcoco+ --root COCO --split testA --sentences all --model M
    segzero evaluate --benchmark reasonseg --root LISA --split test --ignore lisa --model M
    segzero evaluate --compare A.jsonl B.jsonl          is the second model better?
    accelerate launch --num_processes 4 -m training.evaluation.evaluate --data DIR --model M

The rules of scoring stand in `training.evaluation.metrics` and in docs/evaluation.md. A failure
counts as IoU 0 and is never dropped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from tqdm import tqdm

from segzero_core.errors import InputError, SegZeroError
from training.arguments import positive
from training.data.rendered_scenes import QUERY_KINDS, open_scenes
from training.data.sources.base import FIRST, SENTENCE_POLICIES
from training.data.sources.reasonseg import KINDS as REASONSEG_KINDS
from training.data.sources.refcoco import KINDS as REFCOCO_KINDS
from training.data.sources.rle import Rle
from training.evaluation.cases import (
    BENCHMARKS,
    Case,
    CaseSet,
    PictureCases,
    TrueAnswer,
    open_benchmark,
    open_data,
)
from training.evaluation.distributed import among_launched, among_new, is_first, is_launched
from training.evaluation.metrics import IGNORE_POLICIES, LISA, score_answer, score_failure
from training.evaluation.predictions import (
    AskedModel,
    Protocol,
    Scored,
    check_writable,
    write_samples,
    write_whole,
)
from training.evaluation.predictors import (
    Answerer,
    Reply,
    ask_baseline,
    ask_in_batches,
    ask_pipeline,
)
from training.evaluation.summary import as_table, report

BAD_INPUT_EXIT_CODE = 2
KINDS: Final = tuple(dict.fromkeys((*QUERY_KINDS, *REFCOCO_KINDS, *REASONSEG_KINDS)))
_USUAL_SPLIT: Final = "val"

Share: TypeAlias = tuple[list[Scored], AskedModel]
"""What one process did."""


def evaluate(
    pictures: Sequence[PictureCases], answer: Answerer, ignore: str = LISA, *, quiet: bool = False
) -> list[Scored]:
    """Ask everything about the pictures, with a progress bar on standard error.

    Args:
        pictures: What to ask.
        answer: Who answers.
        ignore: One of `IGNORE_POLICIES`.
        quiet: Show no progress bar.

    Raises:
        InputError: A picture cannot be read.
    """
    scored: list[Scored] = []
    total = sum(len(picture.cases) for picture in pictures)
    with tqdm(
        total=total, unit="query", desc="evaluate", file=sys.stderr, disable=quiet
    ) as progress:
        for picture in pictures:
            view = picture.read()
            replies = answer(picture, view)
            for case, truth, reply in zip(picture.cases, view.truths, replies, strict=True):
                scored.append(score(case, truth.under(ignore), reply))
            progress.update(len(picture.cases))
    return scored


def score(case: Case, truth: TrueAnswer, reply: Reply) -> Scored:
    """Score the reply to one case."""
    if reply.masks is None:
        outcome = score_failure(case.kind, truth.mask, reply.ms, unusable=reply.unusable)
        return Scored(case, outcome, reply.completion, reply.prompts, (), reply.error)
    outcome = score_answer(
        case.kind,
        reply.masks,
        truth.mask,
        [prompt.box for prompt in reply.prompts],
        truth.boxes,
        reply.ms,
        points=[point for prompt in reply.prompts for point in prompt.points],
        ignore=truth.ignore,
    )
    masks = tuple(Rle.from_mask(mask) for mask in reply.masks)
    return Scored(case, outcome, reply.completion, reply.prompts, masks)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segzero evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, help="folder of rendered scenes, or of prepared data")
    what.add_argument("--benchmark", choices=BENCHMARKS, help="a benchmark as it is published")
    what.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A", "B"), help="two files made by --samples"
    )
    add = parser.add_argument
    add("--root", type=Path, help="the folder the benchmark lies in, see docs/data.md")
    add("--split", help="of a benchmark (val by default); for scenes train, test or all phrasings")
    add("--split-by", help="unc, umd or google; the usual one of the benchmark by default")
    add(
        "--sentences",
        choices=SENTENCE_POLICIES,
        default=FIRST,
        help="how the sentences of an annotation become queries (default first)",
    )
    add("--allow-partial", action="store_true", help="accept a copy that is not whole")
    add("--model", default="tabletop", help="name, folder or Hub id")
    add("--segmenter", help="folder or Hub id in place of the model's own")
    add("--template", help="prompt template in place of the model's own")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--grammar", action="store_true", help="only let well-formed answers be said")
    add("--kind", choices=KINDS, help="only this kind of question")
    add("--limit", type=positive, help="at most so many questions (or scenes)")
    add(
        "--ignore",
        choices=IGNORE_POLICIES,
        default=LISA,
        help="pixels to ignore count nowhere (lisa, default) or as meant (reference)",
    )
    add(
        "--processes",
        type=positive,
        default=1,
        help="share the pictures among so many processes",
    )
    add("--batch", type=positive, default=1, help="questions about one picture asked at once")
    blind = parser.add_mutually_exclusive_group()
    blind.add_argument(
        "--prompts", choices=("truth",), help="measure the segmenter alone, with true prompts"
    )
    blind.add_argument(
        "--baseline", choices=("random", "largest"), help="pick a true mask without looking"
    )
    add("--samples", type=Path, help="write what became of every question to this file")
    add("--report", type=Path, help="write an HTML page with the worst and best answers")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _run(args: argparse.Namespace) -> str:
    """Do what the arguments say and return what is printed."""
    if args.compare:
        from training.evaluation.compare import compare

        comparison = compare(*args.compare)
        return json.dumps(comparison.to_values()) if args.json else comparison.as_text()
    if args.prompts:
        return _measure_segmenter(args)
    if args.grammar and (args.batch > 1 or args.baseline):
        raise InputError(
            "--grammar is for a model that is asked one question after the other; leave out"
            " --batch and --baseline"
        )
    for path in filter(None, (args.samples, args.report)):
        check_writable(path)
    # Before any model is loaded, so that damaged data is found in the first second.
    cases = _open(args)
    samples, model = _ask_all(args, cases)
    if not is_first():
        return ""
    protocol = Protocol(args.ignore, cases.averaging)
    figures = report(samples, protocol, model, cases.data)
    _write_files(args, figures, samples, cases, protocol, model)
    return json.dumps(figures) if args.json else as_table(figures)


def _measure_segmenter(args: argparse.Namespace) -> str:
    from training.evaluation.segmenter import as_text, load, measure

    if args.data is None:
        raise InputError("--prompts truth needs rendered scenes (--data)")
    folders = open_scenes(args.data)
    figures = measure(load(args.segmenter, args.model, args.device), folders[: args.limit])
    return json.dumps(figures) if args.json else as_text(figures)


def _open(args: argparse.Namespace) -> CaseSet:
    if args.data:
        return open_data(args.data, args.kind, args.split, args.limit)
    if args.root is None:
        raise InputError(f"--benchmark {args.benchmark} needs the folder it lies in (--root)")
    from training.data.prepare import SourceOptions

    options = SourceOptions(
        source=args.benchmark,
        root=args.root,
        split=args.split or _USUAL_SPLIT,
        split_by=args.split_by,
        sentences=args.sentences,
        kinds=(args.kind,) if args.kind else None,
        limit=args.limit,
        allow_partial=args.allow_partial,
    )
    return open_benchmark(options)


def _ask_all(args: argparse.Namespace, cases: CaseSet) -> tuple[list[Scored], AskedModel]:
    """Ask everything, here or shared with other processes; results in the order of the cases."""
    count = min(args.processes, len(cases.pictures))
    if is_launched():
        shares = among_launched(partial(_ask_launched, args, cases), args.device)
    elif count > 1:
        shares = among_new(_ask_alone, args, count)
    else:
        shares = [_ask_share(args, cases, 0, 1)]
    by_id = {sample.case.id: sample for samples, _ in shares for sample in samples}
    return [by_id[case.id] for case in cases.cases], shares[0][1]


def _ask_launched(
    args: argparse.Namespace, cases: CaseSet, rank: int, count: int, device: str
) -> Share:
    if args.device == "auto":
        args = argparse.Namespace(**vars(args) | {"device": device})
    return _ask_share(args, cases, rank, count)


def _ask_alone(args: argparse.Namespace, rank: int, count: int) -> Share:
    """Open the data and take a share of it, in a process of its own."""
    return _ask_share(args, _open(args), rank, count)


def _ask_share(args: argparse.Namespace, cases: CaseSet, rank: int, count: int) -> Share:
    answer, model = _load(args)
    return evaluate(cases.share(rank, count), answer, args.ignore, quiet=rank > 0), model


def _load(args: argparse.Namespace) -> tuple[Answerer, AskedModel]:
    if args.baseline:
        return ask_baseline(args.baseline), AskedModel(f"blind guess: {args.baseline}")
    loaded: dict[str, Any] = {
        "segmenter": args.segmenter,
        "device": args.device,
        "template": args.template,
    }
    if args.batch > 1:
        from training.evaluation.batch_inference import load_with_batches

        pipeline, reasoner = load_with_batches(args.model, **loaded)
        answer = ask_in_batches(pipeline, reasoner.complete, args.batch)
    else:
        from segzero_core.pipeline import SegZero

        pipeline = SegZero.load(args.model, grammar=args.grammar, **loaded)
        answer = ask_pipeline(pipeline)
    identity, template = pipeline.identity, pipeline.description.prompt_template
    asked = AskedModel(
        identity.name, identity.weights_hash, template, args.batch, grammar=args.grammar
    )
    return answer, asked


def _write_files(
    args: argparse.Namespace,
    figures: dict[str, Any],
    samples: Sequence[Scored],
    cases: CaseSet,
    protocol: Protocol,
    model: AskedModel,
) -> None:
    if args.samples:
        write_samples(args.samples, samples, protocol, model, cases.data)
    if args.report:
        from training.evaluation.html_report import build_report

        write_whole(args.report, build_report(figures, samples, cases, args.ignore))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, or 2 with one line on standard error when the input cannot be used.
    """
    args = _parser().parse_args(argv)
    try:
        printed = _run(args)
    except SegZeroError as error:
        if is_first():
            print(f"segzero evaluate: {error}", file=sys.stderr)
        return BAD_INPUT_EXIT_CODE
    if is_first():
        print(printed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
