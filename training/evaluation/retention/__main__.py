"""Measures what a model still knows: questions that are answered in words, without a template.

    python -m training.evaluation.retention --benchmark chartqa --root CHARTQA --model M
    python -m training.evaluation.retention --benchmark textvqa --root TEXTVQA --model M
    python -m training.evaluation.retention --benchmark tabletop --root scenes --model tabletop

Training for one task makes a model forget others. Seg-Zero (arXiv:2503.06520, figure 5) measures
how much with ChartQA and TextVQA; the small tabletop model is asked for colors, counts and object
classes. The folders are laid out as in docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from segzero_core.checkpoints.registry import find_model
from segzero_core.checkpoints.weights import weights_hash
from segzero_core.errors import SegZeroError
from segzero_core.images.files import load_image
from segzero_core.loading import choose_device
from segzero_core.reasoner.base import squash
from segzero_core.terminal.progress_bar import ProgressBar
from training.arguments import new_parser, positive, run_command
from training.evaluation.batch_inference import BatchReasoner
from training.evaluation.bootstrap import Resampler
from training.evaluation.predictions import check_writable, write_whole
from training.evaluation.retention.benchmarks import (
    BENCHMARKS,
    Benchmark,
    Question,
    open_benchmark,
)
from training.evaluation.retention.metrics import spoken_answer

MAX_NEW_TOKENS: Final = 128
"""Longest completion; a right one is a few words."""


@dataclass(frozen=True)
class Answered:
    """A question with the model's completion, its score, and the time it took [ms]."""

    question: Question
    completion: str
    score: float
    ms: float

    def to_line(self) -> str:
        """Return the line of JSON that `--samples` writes."""
        q = self.question
        values = {"id": q.id, "kind": q.kind, "question": q.text, "truths": q.truths}
        values |= {"reply": self.completion, "score": self.score, "ms": self.ms}
        return json.dumps(values) + "\n"


def ask(reasoner: BatchReasoner, benchmark: Benchmark, batch: int, suffix: str) -> list[Answered]:
    """Ask all questions with a suffix, greedily; a batch that fails is asked one by one.

    Raises:
        InputError: An image cannot be read.
    """
    answered: list[Answered] = []
    with ProgressBar(total=len(benchmark.questions), unit="query", file=sys.stderr) as progress:
        for start in range(0, len(benchmark.questions), batch):
            questions = benchmark.questions[start : start + batch]
            answered += _ask_batch(reasoner, benchmark, questions, suffix)
            progress.update(len(questions))
    return answered


def _ask_batch(
    reasoner: BatchReasoner, benchmark: Benchmark, questions: Sequence[Question], suffix: str
) -> list[Answered]:
    description = reasoner.description
    pixels = [load_image(question.image) for question in questions]
    started = time.perf_counter()
    try:
        side = description.seen_size_wh
        shown = (lambda p: squash(p, side)) if benchmark.squashed else Image.fromarray
        images = [shown(image) for image in pixels]
        texts = [f"{q.text}\n{suffix}" if suffix else q.text for q in questions]
        if description.lowercase_query:
            texts = [text.lower() for text in texts]
        messages = [
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
            for text in texts
        ]
        completions = reasoner.generate(images, messages, MAX_NEW_TOKENS)
    except SegZeroError as error:
        if len(questions) > 1:
            alone = (_ask_batch(reasoner, benchmark, [q], suffix) for q in questions)
            return [answered for one in alone for answered in one]
        # A failure is a wrong answer and stays in the count.
        ProgressBar.write(f"{questions[0].id}: {error}", file=sys.stderr)
        completions = [""]
    ms = (time.perf_counter() - started) * 1e3 / len(questions)
    return [
        Answered(question, text, benchmark.score(spoken_answer(text), question.truths), ms)
        for question, text in zip(questions, completions, strict=True)
    ]


def summarize(answered: Sequence[Answered]) -> dict[str, Any]:
    """Return accuracy, its interval and N over all questions and for each kind."""
    resampler = Resampler([str(a.question.image) for a in answered])

    def of_kind(kind: str | None) -> dict[str, Any]:
        counts = [kind in (None, a.question.kind) for a in answered]
        scores = [a.score if count else 0.0 for a, count in zip(answered, counts, strict=True)]
        return {
            "accuracy": sum(scores) / sum(counts),
            "interval": resampler.interval(scores, counts),
            "n": sum(counts),
        }

    kinds = dict.fromkeys(a.question.kind for a in answered)
    return {
        **of_kind(None),
        "kinds": {kind: of_kind(kind) for kind in kinds},
        "ms": float(np.mean([a.ms for a in answered])),
    }


def _as_table(summary: Mapping[str, Any]) -> str:
    lines = [f"{summary['benchmark']}, {summary['model']['name']}"]
    for kind, row in [*summary["kinds"].items(), ("all", summary)]:
        ends = row["interval"]
        interval = "" if ends is None else f"   95 %: {ends[0]:.3f} to {ends[1]:.3f}"
        lines.append(f"{kind:<12}{row['accuracy']:>7.3f}{row['n']:>7}{interval}")
    return "\n".join(lines)


def _run(args: argparse.Namespace) -> str:
    if args.samples:
        check_writable(args.samples)
    benchmark = open_benchmark(args.benchmark, args.root, args.split, args.limit)
    files = find_model(args.model)
    digest = weights_hash(sorted(files.reasoner.glob("*.safetensors")))
    reasoner = BatchReasoner(files.reasoner, files.description, choose_device(args.device))
    suffix = benchmark.suffix if args.suffix is None else args.suffix
    answered = ask(reasoner, benchmark, args.batch, suffix)
    if args.samples:
        write_whole(args.samples, "".join(a.to_line() for a in answered))
    summary = summarize(answered) | {
        "benchmark": benchmark.name,
        "data": {"hash": benchmark.hash},
        "model": {"name": files.name, "weights_hash": digest},
        "suffix": suffix,
        "batch": args.batch,
    }
    return json.dumps(summary) if args.json else _as_table(summary)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see `run_command`."""
    parser = new_parser("python -m training.evaluation.retention", __doc__)
    add = parser.add_argument
    add("--benchmark", choices=BENCHMARKS, required=True)
    add("--root", type=Path, required=True, help="the folder it lies in")
    add("--split", help="test of ChartQA and val of TextVQA by default")
    add("--model", default="tabletop", help="name, folder or Hub id")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--limit", type=positive, help="at most this many questions")
    add("--batch", type=positive, default=1, help="questions asked at once")
    add("--suffix", help="added to each question; the benchmark's own by default")
    add("--samples", type=Path, help="write every completion to this file")
    add("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    return run_command("training.evaluation.retention", lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())
