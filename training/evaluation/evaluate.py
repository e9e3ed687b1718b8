"""`segzero evaluate`: run a model on all queries of some data, and score its answers.

    segzero evaluate --data DIR --model tabletop --json
    segzero evaluate --data DIR --prompts truth         the segmenter alone, given true prompts
    segzero evaluate --data DIR --baseline random       a true mask, picked blindly
    segzero evaluate --benchmark refcoco+ --root COCO --split testA --sentences all --model M
    segzero evaluate --benchmark reasonseg --root LISA --split test --ignore lisa --model M
    segzero evaluate --benchmark libero --suite libero_spatial_swap --states 10 --model M
    segzero evaluate --compare A.jsonl B.jsonl          is the second model better?
    accelerate launch --num_processes 4 -m training.evaluation.evaluate --data DIR --model M

The rules of scoring are in `training.evaluation.metrics` and in docs/evaluation.md. A failure
counts as IoU 0 and is never dropped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from segzero_core.errors import InputError
from segzero_core.terminal.progress_bar import ProgressBar
from training.arguments import new_parser, positive, run_command, settings_from
from training.data.rendered_scenes import LIBERO_KINDS, QUERY_KINDS, open_scenes
from training.data.sources.base import FIRST, SENTENCE_POLICIES, SourceOptions
from training.data.sources.reasonseg import KINDS as REASONSEG_KINDS
from training.data.sources.refcoco import KINDS as REFCOCO_KINDS
from training.data.sources.rle import Rle
from training.evaluation.cases import (
    BENCHMARKS,
    Case,
    CaseSet,
    ImageCases,
    TrueAnswer,
    open_benchmark,
    open_data,
)
from training.evaluation.distributed import among_launched, among_new, is_first, is_launched
from training.evaluation.libero import (
    LIBERO,
    open_libero,
    render_suite,
    suite_section,
    suite_table,
)
from training.evaluation.metrics import IGNORE_POLICIES, LISA, score_answer, score_failure
from training.evaluation.predictions import (
    EvaluatedModel,
    Protocol,
    Scored,
    check_writable,
    write_predictions,
    write_whole,
)
from training.evaluation.predictors import (
    Prediction,
    Predictor,
    baseline_predictor,
    batch_predictor,
    pipeline_predictor,
)
from training.evaluation.summary import as_table, report

KINDS: Final = tuple(
    dict.fromkeys((*QUERY_KINDS, *LIBERO_KINDS, *REFCOCO_KINDS, *REASONSEG_KINDS))
)
_USUAL_SPLIT: Final = "val"
_EXAMPLES: Final = """examples:
  segzero evaluate --data data/test --model tabletop
  segzero evaluate --data data/test --baseline largest --kind name
  segzero evaluate --benchmark reasonseg --root LISA --split val --model FOLDER --samples a.json
  segzero evaluate --compare a.json b.json"""

Share: TypeAlias = tuple[list[Scored], EvaluatedModel]
"""The predictions of one process, and the model that made them."""


def evaluate(
    images: Sequence[ImageCases], predict: Predictor, ignore: str = LISA, *, quiet: bool = False
) -> list[Scored]:
    """Predict and score all cases by one of `IGNORE_POLICIES`, with a progress bar unless `quiet`.

    Raises:
        InputError: An image cannot be read.
    """
    scored: list[Scored] = []
    total = sum(len(entry.cases) for entry in images)
    with ProgressBar(
        total=total, unit="query", desc="evaluate", file=sys.stderr, disable=quiet
    ) as progress:
        for entry in images:
            view = entry.read()
            predictions = predict(entry, view)
            for case, truth, found in zip(entry.cases, view.truths, predictions, strict=True):
                scored.append(score(case, truth.under(ignore), found))
            progress.update(len(entry.cases))
    return scored


def score(case: Case, truth: TrueAnswer, found: Prediction) -> Scored:
    """Score the prediction of one case."""
    if found.masks is None:
        outcome = score_failure(case.kind, truth.mask, found.ms, unusable=found.unusable)
        return Scored(case, outcome, found.completion, found.prompts, (), found.error)
    outcome = score_answer(
        case.kind,
        found.masks,
        truth.mask,
        [prompt.box for prompt in found.prompts],
        truth.boxes,
        found.ms,
        points=[point for prompt in found.prompts for point in prompt.points],
        ignore=truth.ignore,
    )
    masks = tuple(Rle.from_mask(mask) for mask in found.masks)
    return Scored(case, outcome, found.completion, found.prompts, masks)


def build_parser() -> argparse.ArgumentParser:
    """Describe the arguments."""
    parser = new_parser("segzero evaluate", __doc__)
    parser.epilog = _EXAMPLES
    add_what = parser.add_mutually_exclusive_group(required=True).add_argument
    add_what("--data", type=Path, help="folder of rendered scenes, or of prepared data")
    add_what("--benchmark", choices=(*BENCHMARKS, LIBERO), help="a benchmark as it is published")
    two = {"type": Path, "nargs": 2, "metavar": ("A", "B")}
    add_what("--compare", **two, help="two files made by --samples")
    add = parser.add_argument
    add("--root", type=Path, help="the folder the benchmark lies in, see docs/data.md")
    add("--suite", help="of LIBERO, for instance libero_spatial_swap")
    add("--states", type=positive, default=10, help="initial states of each of its tasks (10)")
    add("--split", help="of a benchmark (val by default); for scenes train, test or all phrasings")
    add("--split-by", help="unc, umd or google; the usual one of the benchmark by default")
    how = "how the sentences of an annotation become queries (default first)"
    add("--sentences", choices=SENTENCE_POLICIES, default=FIRST, help=how)
    add("--allow-partial", action="store_true", help="accept a copy that is not whole")
    add("--model", default="tabletop", help="name, folder or Hub id")
    add("--segmenter", help="folder or Hub id in place of the model's own")
    add("--template", help="prompt template in place of the model's own")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--grammar", action="store_true", help="constrain decoding to well-formed answers")
    add("--kind", choices=KINDS, help="only queries of this kind")
    add("--limit", type=positive, help="at most this many queries (or scenes)")
    how = "pixels to ignore count nowhere (lisa, default) or as meant (reference)"
    add("--ignore", choices=IGNORE_POLICIES, default=LISA, help=how)
    add("--processes", type=positive, default=1, help="number of processes that share the images")
    add("--batch", type=positive, default=1, help="queries about one image asked at once")
    add_blind = parser.add_mutually_exclusive_group().add_argument
    how = "measure the segmenter alone, with true prompts"
    add_blind("--prompts", choices=("truth",), help=how)
    how = "pick a true mask without looking"
    add_blind("--baseline", choices=("random", "largest"), help=how)
    add("--samples", type=Path, help="write the prediction of every query to this file")
    add("--report", type=Path, help="write an HTML page with the worst and best answers")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _run(args: argparse.Namespace) -> str | None:
    """Run the command; return the text to print, None in all processes but the first."""
    if args.compare:
        from training.evaluation.compare import compare

        comparison = compare(*args.compare)
        return json.dumps(comparison.to_values()) if args.json else comparison.as_text()
    if args.prompts:
        return _measure_segmenter(args)
    if args.grammar and (args.batch > 1 or args.baseline):
        raise InputError(
            "--grammar is for a model that is asked one query after the other; leave out"
            " --batch and --baseline"
        )
    for path in filter(None, (args.samples, args.report)):
        check_writable(path)
    # Before any model is loaded, so that damaged data is found in the first second.
    cases = _open(args)
    samples, model = _predict_all(args, cases)
    if not is_first():
        return None
    protocol = Protocol(args.ignore, cases.averaging)
    summary = report(samples, protocol, model, cases.data)
    if args.samples:
        write_predictions(args.samples, samples, protocol, model, cases.data)
    if args.report:
        from training.evaluation.html_report import build_report

        write_whole(args.report, build_report(summary, samples, cases, args.ignore))
    if args.benchmark == LIBERO:
        summary[LIBERO] = suite_section(samples, args.suite, args.states)
    if args.json:
        return json.dumps(summary)
    return as_table(summary) + (suite_table(summary[LIBERO]) if args.benchmark == LIBERO else "")


def _measure_segmenter(args: argparse.Namespace) -> str:
    from training.evaluation.segmenter import as_text, load, measure

    if args.data is None and args.benchmark != LIBERO:
        raise InputError("--prompts truth needs rendered scenes (--data)")
    folders = open_scenes(args.data or render_suite(_suite(args), args.states))
    loaded, close_up_share = load(args.segmenter, args.model, args.device)
    summary = measure(loaded, folders[: args.limit], close_up_share)
    return json.dumps(summary) if args.json else as_text(summary)


def _open(args: argparse.Namespace) -> CaseSet:
    if args.data:
        return open_data(args.data, args.kind, args.split, args.limit)
    if args.benchmark == LIBERO:
        return open_libero(_suite(args), args.states, args.kind, args.limit)
    if args.root is None:
        raise InputError(f"--benchmark {args.benchmark} needs the folder it lies in (--root)")
    options = settings_from(args, SourceOptions, source=args.benchmark)
    kinds = (args.kind,) if args.kind else None
    return open_benchmark(replace(options, split=args.split or _USUAL_SPLIT, kinds=kinds))


def _suite(args: argparse.Namespace) -> str:
    if not args.suite:
        raise InputError("--benchmark libero needs a suite (--suite libero_spatial, …)")
    return str(args.suite)


def _predict_all(args: argparse.Namespace, cases: CaseSet) -> Share:
    """Predict all cases, here or shared with other processes; results in the cases' order."""
    count = min(args.processes, len(cases.images))
    if is_launched():
        shares = among_launched(partial(_predict_launched, args, cases), args.device)
    elif count > 1:
        shares = among_new(_predict_alone, args, count)
    else:
        shares = [_predict_share(args, cases, 0, 1)]
    by_id = {sample.case.id: sample for samples, _ in shares for sample in samples}
    return [by_id[case.id] for case in cases.cases], shares[0][1]


def _predict_launched(
    args: argparse.Namespace, cases: CaseSet, rank: int, count: int, device: str
) -> Share:
    if args.device == "auto":
        args = argparse.Namespace(**vars(args) | {"device": device})
    return _predict_share(args, cases, rank, count)


def _predict_alone(args: argparse.Namespace, rank: int, count: int) -> Share:
    """Open the data in a process of its own, and predict a share of it."""
    return _predict_share(args, _open(args), rank, count)


def _predict_share(args: argparse.Namespace, cases: CaseSet, rank: int, count: int) -> Share:
    predict, model = _load(args)
    return evaluate(cases.share(rank, count), predict, args.ignore, quiet=rank > 0), model


def _load(args: argparse.Namespace) -> tuple[Predictor, EvaluatedModel]:
    if args.baseline:
        return baseline_predictor(args.baseline), EvaluatedModel(f"blind guess: {args.baseline}")
    options = {"segmenter": args.segmenter, "device": args.device, "template": args.template}
    if args.batch > 1:
        from training.evaluation.batch_inference import load_with_batches

        pipeline, reasoner = load_with_batches(args.model, **options)
        predict = batch_predictor(pipeline, reasoner.complete, args.batch)
    else:
        from segzero_core.pipeline import SegZero

        pipeline = SegZero.load(args.model, grammar=args.grammar, **options)
        predict = pipeline_predictor(pipeline)
    identity, template = pipeline.identity, pipeline.description.prompt_template
    return predict, EvaluatedModel(
        identity.name, identity.weights_hash, template, args.batch, grammar=args.grammar
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see `run_command`."""
    args = build_parser().parse_args(argv)
    return run_command("segzero evaluate", lambda: _run(args), quiet=not is_first())


if __name__ == "__main__":
    sys.exit(main())
